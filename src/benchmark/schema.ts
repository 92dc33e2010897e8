import { type EngineName, type EngineState, engineNames, engines, readEngines } from '../engine/engines.ts';
import { builder, enumValues, idOf, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import { JobType } from '../jobs/schema.ts';
import type { BenchmarkProfile } from '../jobs/specs.ts';
import { accuracyDropUsual, type BenchmarkRequest } from './context.ts';
import { type StartedBenchmark, startBenchmark } from './start.ts';
import type { Verdict } from './tables.ts';

export const EngineNameType = builder.enumType('EngineName', {
  description: 'What runs a model.',
  values: enumValues(Object.fromEntries(engineNames.map((name) => [name, `${engines[name].title}.`])) as Record<EngineName, string>),
});

export const BenchmarkVerdictType = builder.enumType('BenchmarkVerdict', {
  description: 'What a measurement is worth.',
  values: enumValues<Verdict>({
    VALID: 'Measured without a disturbance.',
    UNSTABLE: 'Others took processor time meanwhile: the intervals are wider, and `reasons` says who.',
    INVALID: 'The model computes other results than its reference: its speed does not count.',
    UNAVAILABLE: 'Nothing could be measured: the reasons say why.',
  }),
});

export const BenchmarkProfileType = builder.enumType('BenchmarkProfile', {
  description: 'How thoroughly a configuration is measured.',
  values: enumValues<BenchmarkProfile>({
    QUICK: 'Up to 3 s of warm-up, then 5 to 10 s until it is known which row is the best; no claim about P99.',
    FULL: 'Up to 30 s of warm-up, then 30 to 120 s until it is known which row is the best, with samples enough for P99.',
  }),
});

export const BenchmarkTargetType = builder.enumType('BenchmarkTarget', {
  description: 'What a configuration is chosen by, among those that are accurate enough.',
  values: enumValues<BenchmarkRequest['target']>({
    LATENCY: 'The shortest P95 latency; of the median, or the mean, where there are too few samples for it.',
    THROUGHPUT: 'The most images a second.',
    MEMORY: 'The least memory.',
  }),
});

export const BenchmarkScenarioType = builder.enumType('BenchmarkScenario', {
  description: 'In which order inferences come, by the names of MLPerf Inference. Its scenario Server is `startLoadTest`.',
  values: enumValues<BenchmarkRequest['scenario']>({
    SINGLE_STREAM: 'The next one starts when the last has ended: what one client waits for.',
    MULTI_STREAM: 'Each instance has a stream of its own: what so many clients wait for, all at once.',
    OFFLINE: 'All are there at once, and the instances share them: the most work that the machine can do. Only the throughput counts.',
  }),
});

const EngineType = builder.objectRef<EngineState>('Engine').implement({
  description: 'Something that runs models, and whether it can on this machine.',
  fields: (t) => ({
    name: t.expose('name', { type: EngineNameType, description: 'Its name.' }),
    title: t.exposeString('title', { description: 'What it is.' }),
    version: t.exposeString('version', { description: 'Its library with its version.' }),
    available: t.boolean({ description: 'Whether it can be used.', resolve: (e) => e.reason === null }),
    reason: t.exposeString('reason', { nullable: true, description: 'Why it cannot be used; null when it can.' }),
  }),
});

builder.queryFields((t) => ({
  engines: t.field({
    type: [EngineType],
    description: 'All engines, the simplest first, and which of them are there.',
    extensions: { size: 5 },
    authScopes: { can: 'READ' },
    resolve: (_root, _args, { config }) => readEngines(config.childEnv.PATH ?? ''),
  }),
}));

export const DimensionInput = builder.inputType('DimensionInput', {
  description: 'Size of a dimension that a model leaves open.',
  fields: (t) => ({
    name: t.string({ required: true, description: 'Its name; of one without a name the input and its place from 0, as in `image[2]`.' }),
    size: t.int({ required: true, description: 'Its size.' }),
  }),
});

builder.relayMutationField(
  'startBenchmark',
  {
    inputFields: (t) => ({
      modelVersionIds: t.idList({
        required: true,
        description: 'ONNX versions, at most 20; the first is what the others are compared with.',
      }),
      batchSizes: t.intList({ required: true, defaultValue: [1], description: 'Batch sizes, each 1 to 1024.' }),
      engines: t.field({ type: [EngineNameType], description: 'Engines; those that are there unless told otherwise.' }),
      intraOpThreads: t.intList({
        description:
          'Threads that one inference computes with. By default one with more instances, and two numbers in a single stream: as many as a deployment is served with, and all cores.',
      }),
      scenario: t.field({
        type: BenchmarkScenarioType,
        required: true,
        defaultValue: 'SINGLE_STREAM',
        description: 'In which order inferences come.',
      }),
      instances: t.intList({
        description:
          'Copies of a model that compute at the same time, each with `intraOpThreads` threads; by default as many as the cores have room for, and one in a single stream.',
      }),
      profile: t.field({ type: BenchmarkProfileType, required: true, defaultValue: 'QUICK', description: 'How thoroughly to measure.' }),
      dims: t.field({
        type: [DimensionInput],
        description:
          'Sizes of dimensions that are left open. Height and width of an image come from the version’s `preprocess`. The first dimension is the batch, unless it is named here.',
      }),
      seed: t.field({
        type: 'SafeInt',
        required: true,
        defaultValue: 0,
        description: 'Of the inputs of a model without a probe set, 0 to 2³² - 1.',
      }),
      target: t.field({
        type: BenchmarkTargetType,
        description: 'What a configuration is chosen by: by default LATENCY in a single stream, and otherwise THROUGHPUT.',
      }),
      accuracyDropMax: t.float({
        required: true,
        defaultValue: accuracyDropUsual,
        description:
          'How much of the accuracy (top-1, or a detector’s mAP50-95) a choice may lose against the most accurate version, 0 to 1.',
      }),
      warmupSecondsMax: t.float({ description: 'Longest warm-up, instead of the profile’s.' }),
      secondsMin: t.float({ description: 'Shortest measurement, instead of the profile’s: 0.1 to 3600 s.' }),
      secondsMax: t.float({ description: 'Longest measurement, instead of the profile’s: 0.1 to 3600 s.' }),
      dryRun: t.boolean({ required: true, defaultValue: false, description: 'Only check the input and tell how long it would take.' }),
      priority: t.int({ description: 'Higher starts first, -100 to 100; 0 unless told otherwise.' }),
      idempotencyKey: t.string({ description: 'The same key gives the same job, however often the request is sent.' }),
    }),
  },
  {
    description:
      'Measures the speed of each version at each batch size on each engine with each number of threads and of instances, alone on the machine, and makes a report.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) =>
      payload(() =>
        startBenchmark(context, context.actor, {
          ...input,
          modelVersionIds: input.modelVersionIds.map((id) => idOf('ModelVersion', id)),
        }),
      ),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<StartedBenchmark>) => ({
      job: t.field({
        type: JobType,
        nullable: true,
        description: 'The job, waiting in the queue; null after a dry run.',
        resolve: (p) => p.result?.job,
      }),
      configurations: t.int({ nullable: true, description: 'Rows that the report will have.', resolve: (p) => p.result?.cells }),
      estimatedDurationMs: t.field({
        type: 'SafeInt',
        nullable: true,
        description: 'How long it will take, once nothing else runs.',
        resolve: (p) => p.result?.estimatedDurationMs,
      }),
      durationMsMax: t.field({
        type: 'SafeInt',
        nullable: true,
        description: 'How long it may take at most.',
        resolve: (p) => p.result?.durationMsMax,
      }),
    }),
  },
);
