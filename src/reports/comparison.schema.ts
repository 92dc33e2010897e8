import { ApiError, notFound } from '../errors.ts';
import { builder, idOf } from '../graphql/builder.ts';
import { compareReports, type Difference, type ReportComparison, type RowChange } from './comparison.ts';
import { findReport, readReport } from './reports.ts';
import { BenchmarkRowType } from './rows.schema.ts';
import { DeltaVerdictType } from './schema.ts';
import type { StoredReport } from './tables.ts';

export const DifferenceType = builder.objectRef<Difference>('ReportDifference').implement({
  description: 'Something that was not the same when two benchmarks were measured.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'What, such as processor, kernel or models.' }),
    before: t.exposeString('before', { description: 'In the first report.' }),
    after: t.exposeString('after', { description: 'In the second.' }),
  }),
});

type RowOfJobs = RowChange & { jobIds: [before: string, after: string] };

const RowChangeType = builder.objectRef<RowOfJobs>('ReportRowChange').implement({
  description: 'A configuration that both reports have measured. Ratios are those of the second report to the first.',
  fields: (t) => ({
    configuration: t.exposeString('configuration', {
      description: 'Model, engine, batch size and threads, as the first report names them.',
    }),
    before: t.field({
      type: BenchmarkRowType,
      description: 'The row of the first report.',
      resolve: (c) => ({ ...c.before, jobId: c.jobIds[0] }),
    }),
    after: t.field({
      type: BenchmarkRowType,
      description: 'The row of the second.',
      resolve: (c) => ({ ...c.after, jobId: c.jobIds[1] }),
    }),
    verdict: t.expose('verdict', {
      type: DeltaVerdictType,
      description: 'Whether the second is faster, by the median and its intervals. They were not measured in the same rounds.',
    }),
    timeRatio: t.exposeFloat('timeRatio', { nullable: true, description: 'Of the median latencies.' }),
    timeRatioLow: t.exposeFloat('timeRatioLow', { nullable: true, description: 'Lower end of its interval.' }),
    timeRatioHigh: t.exposeFloat('timeRatioHigh', { nullable: true, description: 'Upper end of its interval.' }),
    throughputRatio: t.exposeFloat('throughputRatio', { nullable: true, description: 'Of the images a second.' }),
    memoryRatio: t.exposeFloat('memoryRatio', { nullable: true, description: 'Of the memory that the model takes.' }),
    accuracyDifference: t.exposeFloat('accuracyDifference', {
      nullable: true,
      description: 'Second minus first accuracy; null unless both are known on the same images.',
    }),
  }),
});

const ReportComparisonType = builder.objectRef<ReportComparison & { rows: RowOfJobs[] }>('ReportComparison').implement({
  description: 'Two benchmarks of a model on two days or machines.',
  fields: (t) => ({
    differences: t.field({
      type: [DifferenceType],
      description: 'What was not the same: machine, versions, profile, models. Empty when nothing is known to differ.',
      extensions: { size: 5 },
      resolve: (c) => c.differences,
    }),
    rows: t.field({
      type: [RowChangeType],
      description: 'Configurations that both have, in the order of the first report.',
      extensions: { size: 10 },
      resolve: (c) => c.rows,
    }),
  }),
});

builder.queryField('compareReports', (t) =>
  t.field({
    type: ReportComparisonType,
    description: 'What changed from one report to another: of the same model, or of a later version of it.',
    extensions: { cost: 200 },
    authScopes: { can: 'READ' },
    args: { ids: t.arg.idList({ required: true, description: 'Two reports, the earlier one first.' }) },
    resolve(_root, { ids }, { db }) {
      if (ids.length !== 2) throw new ApiError('INVALID', `Two reports are compared; \`ids\` names ${ids.length}.`);
      const [first, second] = ids.map((id) => findReport(db, idOf('Report', String(id))) ?? notFound('report')) as [
        StoredReport,
        StoredReport,
      ];
      const { differences, rows } = compareReports(readReport(db, first), readReport(db, second));
      const jobIds: RowOfJobs['jobIds'] = [first.benchmarkJobId, second.benchmarkJobId];
      return { differences, rows: rows.map((row) => ({ ...row, jobIds })) };
    },
  }),
);
