import { accuracyOf } from '../benchmark/context.ts';
import { BenchmarkProfileType, BenchmarkScenarioType } from '../benchmark/schema.ts';
import { DeploymentType } from '../deployments/schema.ts';
import { builder, enumValues } from '../graphql/builder.ts';
import { numberKey, page, pageArgs } from '../graphql/connection.ts';
import type { Context } from '../graphql/context.ts';
import { findJob } from '../jobs/jobs.ts';
import { JobType } from '../jobs/schema.ts';
import type { Job } from '../jobs/tables.ts';
import { findModelVersion, findModelVersionEver } from '../models/models.ts';
import { ModelType, ModelVersionType } from '../models/schema.ts';
import { DifferenceType } from '../reports/comparison.schema.ts';
import { BenchmarkRowType } from '../reports/rows.schema.ts';
import { AccuracyType, MachineType, ReportType } from '../reports/schema.ts';
import { type HistoryOf, type HistoryPoint, listPoints } from './points.ts';
import { listRegressions, regressionsOf, sayRegression } from './regressions.ts';
import type { RegressionFacts } from './regressionText.ts';
import type { RegressionRow, regressionMetrics } from './tables.ts';

const RegressionMetricType = builder.enumType('RegressionMetric', {
  description: 'In what a version is worse.',
  values: enumValues<(typeof regressionMetrics)[number]>({
    P95: 'The P95 latency: by 3 % or more, and the interval of the ratio is above 1.',
    P50: 'The median latency, where there are too few samples for P95.',
    ACCURACY:
      'The accuracy on the same images: it fell by more than 0.01. For classifiers the interval of the difference is also below 0; a mean average precision has no interval.',
  }),
});

const factsOf = ({ factsJson }: RegressionRow): RegressionFacts => factsJson as RegressionFacts;

const RegressionType = builder.objectRef<RegressionRow>('Regression').implement({
  description:
    'A version of a model that is worse than an earlier one: than the newest that was measured in the same way, or than one that is deployed. It is decided by intervals, and speed only on the same machine.',
  fields: (t) => ({
    at: t.expose('at', { type: 'DateTime', description: 'When it was found.' }),
    metric: t.expose('metric', { type: RegressionMetricType, description: 'In what.' }),
    says: t.string({ description: 'What was found, in words.', extensions: { cost: 2 }, resolve: (r, _a, { db }) => sayRegression(db, r) }),
    modelVersion: t.field({
      type: ModelVersionType,
      nullable: true,
      description: 'The version that is worse; null when it was deleted.',
      resolve: (r, _a, { db }) => findModelVersion(db, r.modelVersionId),
    }),
    against: t.field({
      type: ModelVersionType,
      nullable: true,
      description: 'The earlier version; null when it was deleted.',
      resolve: (r, _a, { db }) => findModelVersion(db, r.againstId),
    }),
    before: t.float({
      description: 'Of the earlier version: nanoseconds of a latency, or an accuracy from 0 to 1.',
      resolve: (r) => factsOf(r).before,
    }),
    after: t.float({ description: 'Of the version that is worse.', resolve: (r) => factsOf(r).after }),
    low: t.float({
      nullable: true,
      description: 'Lower end of the 95 % interval: of after ÷ before for a latency, of after − before for an accuracy.',
      resolve: (r) => factsOf(r).low,
    }),
    high: t.float({ nullable: true, description: 'Upper end of that interval.', resolve: (r) => factsOf(r).high }),
    job: t.field({
      type: JobType,
      description: 'The benchmark, evaluation or conversion that found it.',
      resolve: (r, _a, { db }) => findJob(db, r.jobId) as Job,
    }),
  }),
});

const RegressionConnection = builder.connectionObject(
  { type: RegressionType, name: 'RegressionConnection', description: 'A page of regressions.' },
  { description: 'A regression in a page.' },
);

builder.queryField('regressions', (t) =>
  t.field({
    type: RegressionConnection,
    description: 'Versions that were found to be worse than earlier ones, newest first.',
    authScopes: { can: 'READ' },
    args: pageArgs(),
    resolve: (_root, args, { db }) =>
      page(
        'regressions',
        args,
        numberKey,
        (limit, after: number | null) => listRegressions(db, limit, after),
        (r) => r.seq,
      ),
  }),
);

builder.objectField(JobType, 'regressions', (t) =>
  t.field({
    type: [RegressionType],
    description: 'What a benchmark, an evaluation or a conversion has found to be worse than in an earlier version.',
    extensions: { size: 2 },
    resolve: (j, _a, { db }) => regressionsOf(db, j.id),
  }),
);

builder.objectField(ReportType, 'regressions', (t) =>
  t.field({
    type: [RegressionType],
    description: 'Versions that are slower than an earlier one. They are no part of the report’s facts.',
    extensions: { size: 2 },
    resolve: (r, _a, { db }) => regressionsOf(db, r.benchmarkJobId),
  }),
);

const PointType = builder.objectRef<HistoryPoint>('BenchmarkPoint').implement({
  description:
    'A benchmark of a model version. Speeds of different machines cannot be compared: `machine` and `differences` tell them apart.',
  fields: (t) => ({
    measuredAt: t.expose('measuredAt', { type: 'DateTime', description: 'When the benchmark ended.' }),
    job: t.field({ type: JobType, description: 'The benchmark.', resolve: (p, _a, { db }) => findJob(db, p.jobId) as Job }),
    modelVersion: t.field({
      type: ModelVersionType,
      nullable: true,
      description: 'What was measured; null when it was deleted.',
      resolve: (p, _a, { db }) => findModelVersion(db, p.modelVersionId),
    }),
    machine: t.expose('machine', { type: MachineType, description: 'Where it was measured.' }),
    scenario: t.expose('scenario', { type: BenchmarkScenarioType, description: 'In which order inferences came.' }),
    profile: t.expose('profile', { type: BenchmarkProfileType, description: 'How thoroughly it was measured.' }),
    row: t.field({
      type: BenchmarkRowType,
      description:
        'The version at the setting that the report chose; if it has no right row there, at its smallest batch on the fewest threads.',
      resolve: (p) => ({ ...p.row, jobId: p.jobId }),
    }),
    baseline: t.field({
      type: BenchmarkRowType,
      description: 'The row that the report compares with. It may be of another version.',
      resolve: (p) => ({ ...p.baseline, jobId: p.jobId }),
    }),
    accuracy: t.field({
      type: AccuracyType,
      nullable: true,
      description: 'What the version reaches by its newest evaluation; null when nobody evaluated it.',
      extensions: { cost: 3 },
      resolve(p, _a, { db }) {
        const version = findModelVersionEver(db, p.modelVersionId);
        return version && accuracyOf(db, version);
      },
    }),
    differences: t.field({
      type: [DifferenceType],
      description: 'What was not the same at the point before it: machine, versions of Whetstone and of the engine, scenario, profile.',
      extensions: { size: 2 },
      resolve: (p) => p.differences,
    }),
    regressions: t.field({
      type: [RegressionType],
      description: 'In what this benchmark has found the version to be worse than an earlier one.',
      extensions: { size: 1, cost: 1 },
      resolve: (p, _a, { db }) => regressionsOf(db, p.jobId, p.modelVersionId),
    }),
  }),
});

const PointConnection = builder.connectionObject(
  { type: PointType, name: 'BenchmarkPointConnection', description: 'A page of benchmarks over time.' },
  { description: 'A benchmark of a version in a page.' },
);

/** A point is read as a whole: two rows of about 30 values. */
const pointCost = 60;
const cost = (argument: (name: string) => unknown): number => pointCost * Number(argument('first') ?? 0);

const pageOf = (of: HistoryOf, args: { first: number; after?: string | null }, { db }: Context) =>
  page(
    `benchmarkHistory ${Object.values(of)[0]}`,
    args,
    numberKey,
    (limit, after: number | null) => listPoints(db, of, limit, after),
    (point) => point.seq,
  );

builder.objectField(ModelType, 'benchmarkHistory', (t) =>
  t.field({
    type: PointConnection,
    description: 'How its versions were measured over time, newest first: a point for each version of a benchmark.',
    extensions: { cost },
    args: pageArgs(),
    resolve: (m, args, context) => pageOf({ modelId: m.id }, args, context),
  }),
);

builder.objectField(DeploymentType, 'benchmarkHistory', (t) =>
  t.field({
    type: PointConnection,
    description: 'How the versions that it has served were measured over time, newest first.',
    extensions: { cost },
    args: pageArgs(),
    resolve: (d, args, context) => pageOf({ deploymentId: d.id }, args, context),
  }),
);
