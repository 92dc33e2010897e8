import type { Machine } from '../benchmark/cells.ts';
import type { accuracyMetrics, ModelContext } from '../benchmark/context.ts';
import { BenchmarkProfileType, BenchmarkScenarioType, BenchmarkTargetType, BenchmarkVerdictType } from '../benchmark/schema.ts';
import { builder, enumValues, idOf } from '../graphql/builder.ts';
import { page, pageArgs, textKey } from '../graphql/connection.ts';
import { findJob } from '../jobs/jobs.ts';
import { JobType } from '../jobs/schema.ts';
import type { Job } from '../jobs/tables.ts';
import { findModelVersion } from '../models/models.ts';
import { ModelVersionType } from '../models/schema.ts';
import { exported, ReportExportType, ReportFormatType } from './exports.schema.ts';
import { type confidences, type DeltaView, REPORT_SCHEMA_VERSION, type ReportView, type StepView } from './report.ts';
import { findReport, findReportOf, listReports, readReport, readVerdict } from './reports.ts';
import { BenchmarkRowType } from './rows.schema.ts';
import type { StoredReport } from './tables.ts';
import { verifyReport } from './verify.ts';

export const MachineType = builder.objectRef<Machine>('BenchmarkMachine').implement({
  description: 'The machine that a benchmark ran on.',
  fields: (t) => ({
    processor: t.exposeString('processor', { description: 'Its processor.' }),
    cores: t.exposeInt('cores', { description: 'Logical cores.' }),
    memoryBytes: t.expose('memoryBytes', { type: 'SafeInt', description: 'Installed memory.' }),
    platform: t.exposeString('platform', { description: 'Its operating system.' }),
    arch: t.exposeString('arch', { description: 'Its instruction set.' }),
    kernel: t.exposeString('kernel', { description: 'Version of the operating system’s kernel.' }),
    node: t.exposeString('node', { description: 'Version of Node.' }),
  }),
});

const AccuracyMetricType = builder.enumType('AccuracyMetric', {
  description: 'What versions of a task are compared by.',
  values: enumValues<(typeof accuracyMetrics)[number]>({
    TOP1: 'Classifiers: share of images whose best class is the true one.',
    MAP50_95: 'Detectors: mean average precision over IoU 0.5, 0.55 … 0.95, by COCO’s evaluator.',
  }),
});

export const AccuracyType = builder.objectRef<NonNullable<ModelContext['accuracy']>>('ReportAccuracy').implement({
  description: 'What a version was evaluated to reach, when the benchmark ended.',
  fields: (t) => ({
    metric: t.expose('metric', { type: AccuracyMetricType, description: 'What `value` is.' }),
    value: t.exposeFloat('value', { description: '0 to 1; more is better.' }),
    images: t.exposeInt('images', { description: 'How many images.' }),
    dataset: t.exposeString('dataset', { description: 'Name of the dataset.' }),
    datasetVersion: t.exposeInt('datasetVersion', { description: 'Its version.' }),
    split: t.exposeString('split', { description: 'Which split.' }),
    engine: t.exposeString('engine', { description: 'What computed it.' }),
    ofParent: t.exposeBoolean('ofParent', { description: 'Whether the checkpoint was evaluated that the version was converted from.' }),
  }),
});

const ReportModelType = builder.objectRef<ModelContext>('ReportModel').implement({
  description: 'A model version as it was when the benchmark ended.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'Name of its model.' }),
    number: t.exposeInt('number', { description: 'Its number.' }),
    precision: t.exposeString('precision', { description: 'Number type of the weights.' }),
    parameters: t.expose('parameters', { type: 'SafeInt', description: 'Elements of its weights.' }),
    sizeBytes: t.expose('sizeBytes', { type: 'SafeInt', description: 'Size of its file.' }),
    sha256: t.exposeString('sha256', { description: 'SHA-256 of its file.' }),
    lineageHash: t.exposeString('lineageHash', { description: 'Hash of how it was made.' }),
    dims: t.field({
      type: 'JSON',
      nullable: true,
      description: 'Sizes of its open dimensions by name, as they were measured; null in reports that did not keep them.',
      resolve: (m) => m.dims,
    }),
    accuracy: t.field({
      type: AccuracyType,
      nullable: true,
      description: 'What it reaches; null when nobody evaluated it.',
      resolve: (m) => m.accuracy,
    }),
    modelVersion: t.field({
      type: ModelVersionType,
      nullable: true,
      description: 'The version as it is now; null when it was deleted.',
      resolve: (m, _args, { db }) => findModelVersion(db, m.versionId),
    }),
  }),
});

export const DeltaVerdictType = builder.enumType('DeltaVerdict', {
  description: 'How the speed of a row compares with the baseline’s.',
  values: enumValues<DeltaView['verdict']>({
    FASTER: 'An image takes less time, by 3 % or more, and the interval of the ratio excludes 1.',
    SLOWER: 'An image takes more time, by 3 % or more, and the interval of the ratio excludes 1.',
    NO_DIFFERENCE: 'The interval of the ratio lies within 3 %.',
    UNDECIDED: 'The interval of the ratio is too wide to tell.',
    NOT_COMPARABLE:
      'There is no interval: fewer than six rounds measured both rows or, in `compareReports`, one of the medians has none for lack of samples.',
  }),
});

const DeltaType = builder.objectRef<DeltaView>('BenchmarkDelta').implement({
  description: 'A row against the baseline. A ratio of 1.1 is 10 % more.',
  fields: (t) => ({
    n: t.exposeInt('n', { description: 'Number of the row.' }),
    verdict: t.expose('verdict', { type: DeltaVerdictType, description: 'Which one is faster.' }),
    says: t.exposeString('says', { description: 'Why.' }),
    timeRatio: t.exposeFloat('timeRatio', { nullable: true, description: 'Of the median times that one image takes, within rounds.' }),
    timeRatioLow: t.exposeFloat('timeRatioLow', { nullable: true, description: 'Lower end of its interval.' }),
    timeRatioHigh: t.exposeFloat('timeRatioHigh', { nullable: true, description: 'Upper end of its interval.' }),
    throughputRatio: t.exposeFloat('throughputRatio', { nullable: true, description: 'Of the images a second.' }),
    memoryRatio: t.exposeFloat('memoryRatio', { nullable: true, description: 'Of the memory that the model takes.' }),
    accuracyDifference: t.exposeFloat('accuracyDifference', {
      nullable: true,
      description: 'Difference of the accuracies on the same images.',
    }),
  }),
});

const ChoiceStepType = builder.objectRef<StepView>('ChoiceStep').implement({
  description: 'A rule that narrowed the rows down.',
  fields: (t) => ({
    rule: t.exposeString('rule', { description: 'RIGHT, ACCURACY, BATCH, TARGET, SIMPLER or CONFIDENCE.' }),
    says: t.exposeString('says', { description: 'What it found.' }),
    kept: t.exposeIntList('kept', { description: 'Numbers of the rows that were left.' }),
  }),
});

const ChoiceConfidenceType = builder.enumType('ChoiceConfidence', {
  description: 'How sure a choice is.',
  values: enumValues<(typeof confidences)[number]>({
    HIGH: 'Every other row is worse, intervals included.',
    MEDIUM: 'No other row can be better by more than 5 %.',
    LOW: 'Another row may be better by more than 5 %: the last step says which, and what would make it surer.',
  }),
});

const ChoiceType = builder.objectRef<ReportView['choice']>('BenchmarkChoice').implement({
  description: 'The configuration to use, with the reasoning.',
  fields: (t) => ({
    n: t.exposeInt('n', { nullable: true, description: 'Number of the chosen row; null when there is no winner.' }),
    confidence: t.field({
      type: ChoiceConfidenceType,
      nullable: true,
      description: 'How sure it is; null without a chosen row, and in reports of form 1.',
      resolve: (c) => c.confidence,
    }),
    says: t.exposeString('says', { description: 'The choice, or why there is none.' }),
    steps: t.field({ type: [ChoiceStepType], description: 'The rules in their order.', extensions: { size: 5 }, resolve: (c) => c.steps }),
  }),
});

const TechnicalType = builder.objectRef<ReportView>('ReportTechnical').implement({
  description: 'The report for those who want every number.',
  fields: (t) => ({
    measuredAt: t.field({ type: 'DateTime', description: 'When the benchmark ended.', resolve: (r) => Date.parse(r.measuredAt) }),
    codeVersion: t.exposeString('codeVersion', { description: 'Version of Whetstone that measured.' }),
    machine: t.field({ type: MachineType, description: 'Where it was measured.', resolve: (r) => r.machine }),
    profile: t.field({ type: BenchmarkProfileType, description: 'How thoroughly it was measured.', resolve: (r) => r.request.profile }),
    scenario: t.field({ type: BenchmarkScenarioType, description: 'In which order inferences came.', resolve: (r) => r.request.scenario }),
    target: t.field({ type: BenchmarkTargetType, description: 'What was chosen by.', resolve: (r) => r.request.target }),
    accuracyDropMax: t.float({ description: 'How much of the accuracy a choice may lose.', resolve: (r) => r.request.accuracyDropMax }),
    settings: t.field({
      type: 'JSON',
      description: 'Seconds, samples and warm-up of each measurement.',
      resolve: (r) => r.request.settings,
    }),
    dims: t.field({
      type: 'JSON',
      description: 'Sizes of open dimensions by name, as they were asked for.',
      resolve: (r) => r.request.dims,
    }),
    models: t.field({ type: [ReportModelType], description: 'The model versions.', extensions: { size: 5 }, resolve: (r) => r.models }),
    rows: t.field({
      type: [BenchmarkRowType],
      description: 'Every configuration, in the order in which it was measured; at most 200.',
      extensions: { size: 10 },
      resolve: (r) => r.rows.map((row) => ({ ...row, jobId: r.jobId })),
    }),
    baseline: t.exposeInt('baseline', { nullable: true, description: 'Number of the row that the others are compared with.' }),
    deltas: t.field({
      type: [DeltaType],
      description: 'The other measured rows against the baseline.',
      extensions: { size: 10 },
      resolve: (r) => r.deltas,
    }),
    choice: t.field({ type: ChoiceType, description: 'The configuration to use.', resolve: (r) => r.choice }),
  }),
});

const SimpleType = builder.objectRef<ReportView['simple']>('ReportSimple').implement({
  description: 'The report for those who want to know what it means.',
  fields: (t) => ({
    headline: t.exposeString('headline', { description: 'The result in a sentence.' }),
    points: t.exposeStringList('points', { description: 'What it means, then how it was measured.' }),
  }),
});

export const ReportType = builder.node(builder.objectRef<StoredReport>('Report'), {
  description: 'What a benchmark has found. It never changes: it is made of what was stored at the benchmark’s end.',
  id: { resolve: (r) => r.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findReport(db, id),
  authScopes: { can: 'READ' },
  fields: (t) => ({
    sha256: t.exposeString('sha256', { description: 'SHA-256 of the report as JSON.' }),
    schemaVersion: t.exposeInt('schemaVersion', { description: 'Form of the report.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was made.' }),
    job: t.field({ type: JobType, description: 'The benchmark.', resolve: (r, _args, { db }) => findJob(db, r.benchmarkJobId) as Job }),
    verdict: t.field({
      type: BenchmarkVerdictType,
      description: 'That of its best row.',
      resolve: (r, _args, { db }) => readVerdict(db, r),
    }),
    technical: t.field({
      type: TechnicalType,
      description: 'Every number.',
      extensions: { cost: 100 },
      resolve: (r, _args, { db }) => readReport(db, r),
    }),
    simple: t.field({
      type: SimpleType,
      description: 'What it means.',
      extensions: { cost: 100 },
      resolve: (r, _args, { db }) => readReport(db, r).simple,
    }),
    export: t.field({
      type: ReportExportType,
      description: 'The report as a file.',
      extensions: { cost: 500 },
      args: { format: t.arg({ type: ReportFormatType, required: true, description: 'In which form.' }) },
      resolve: (r, { format }, context) => exported(context, { reportId: r.id }, format),
    }),
    verified: t.boolean({
      nullable: true,
      description:
        'Makes the report again from the stored rows and samples, and says whether every byte is the same. It may take seconds; ' +
        'the answer is kept for a minute. Null for a report of an earlier form.',
      extensions: { cost: 500 },
      authScopes: { can: 'RUN_JOBS' },
      resolve: (r, _args, context) => (r.schemaVersion === REPORT_SCHEMA_VERSION ? verifyReport(context, r) : null),
    }),
  }),
});

const ReportConnection = builder.connectionObject(
  { type: ReportType, name: 'ReportConnection', description: 'A page of reports.' },
  { description: 'A report in a page.' },
);

const ReportFilterType = builder.inputType('ReportFilter', {
  description: 'Which reports.',
  fields: (t) => ({
    jobId: t.id({ description: 'Only of this benchmark.' }),
    modelVersionId: t.id({ description: 'Only those that measured this model version.' }),
  }),
});

builder.queryFields((t) => ({
  report: t.field({
    type: ReportType,
    nullable: true,
    description: 'One report; null when there is none with this id.',
    authScopes: { can: 'READ' },
    args: { id: t.arg.id({ required: true, description: 'Id of the report.' }) },
    resolve: (_root, { id }, { db }) => findReport(db, idOf('Report', id)),
  }),
  reports: t.field({
    type: ReportConnection,
    description: 'Reports, newest first.',
    authScopes: { can: 'READ' },
    args: { ...pageArgs(), filter: t.arg({ type: ReportFilterType, description: 'Which reports.' }) },
    resolve: (_root, { filter, ...args }, { db }) =>
      page(
        'reports',
        args,
        textKey,
        (limit, after: string | null) =>
          listReports(
            db,
            {
              jobId: filter?.jobId ? idOf('Job', filter.jobId) : null,
              modelVersionId: filter?.modelVersionId ? idOf('ModelVersion', filter.modelVersionId) : null,
            },
            limit,
            after,
          ),
        (r) => r.id,
      ),
  }),
}));

builder.objectField(JobType, 'report', (t) =>
  t.field({
    type: ReportType,
    nullable: true,
    description: 'What a benchmark has found; null for other jobs and until it has ended.',
    resolve: (j, _args, { db }) => findReportOf(db, j.id),
  }),
);
