import { GateResult } from '../benchmark/cells.ts';
import { BenchmarkVerdictType, EngineNameType } from '../benchmark/schema.ts';
import { type Percentile, type PercentileName, percentiles, type Stability } from '../benchmark/statistics.ts';
import { builder, enumValues } from '../graphql/builder.ts';
import type { Comparison } from '../models/gate.ts';
import { downloadUrl } from '../storage/links.ts';
import { ThrottleReasonType } from '../system/schema.ts';
import type { RowView } from './report.ts';
import { samplesOf } from './reports.ts';

type Part<K extends keyof RowView> = NonNullable<RowView[K]>;

const ReasonType = builder.objectRef<RowView['reasons'][number]>('BenchmarkReason').implement({
  description: 'A rule that a measurement has met.',
  fields: (t) => ({
    code: t.exposeString('code', { description: 'Stable code, such as CONTENTION or THROUGHPUT_SPREAD.' }),
    message: t.exposeString('message', { description: 'What is so, with the number and the limit.' }),
  }),
});

const PercentileKindType = builder.enumType('PercentileKind', {
  description: 'What the samples say about a percentile.',
  values: enumValues<Percentile['kind']>({
    EXACT: '`ns` is the percentile.',
    AT_MOST: 'There are few samples: `ns` is an upper bound.',
    INSUFFICIENT: 'There are too few samples for any claim.',
  }),
});

export const PercentileType = builder.objectRef<Percentile & { name: PercentileName }>('BenchmarkPercentile').implement({
  description:
    'A percentile of the latency, by nearest rank. Its 95 % interval is the wider of binomial ranks and of blocks of time drawn again.',
  fields: (t) => ({
    percent: t.float({ description: 'Which one: 50 is the median.', resolve: (p) => percentiles[p.name] / 10 }),
    kind: t.expose('kind', { type: PercentileKindType, description: 'What `ns` is.' }),
    ns: t.expose('ns', { type: 'SafeInt', nullable: true, description: 'Nanoseconds; null with too few samples.' }),
    lowNs: t.expose('lowNs', {
      type: 'SafeInt',
      nullable: true,
      description: 'Lower end of the interval; null where samples are too few for it.',
    }),
    highNs: t.expose('highNs', {
      type: 'SafeInt',
      nullable: true,
      description: 'Upper end of the interval; null where samples are too few for it.',
    }),
  }),
});

const LatencyType = builder.objectRef<Part<'latency'>>('BenchmarkLatency').implement({
  description: 'How long an inference takes, of a whole batch.',
  fields: (t) => ({
    meanNs: t.exposeFloat('meanNs', { description: 'Mean in nanoseconds.' }),
    meanLowNs: t.exposeFloat('meanLowNs', {
      nullable: true,
      description: 'Lower end of the 95 % interval of the mean; null with fewer than five blocks.',
    }),
    meanHighNs: t.exposeFloat('meanHighNs', {
      nullable: true,
      description: 'Upper end of the 95 % interval of the mean; null with fewer than five blocks.',
    }),
    minNs: t.expose('minNs', { type: 'SafeInt', description: 'Shortest, in nanoseconds.' }),
    maxNs: t.expose('maxNs', { type: 'SafeInt', description: 'Longest, in nanoseconds: no outlier is removed.' }),
    percentiles: t.field({
      type: [PercentileType],
      description: 'Those that the profile makes claims about.',
      extensions: { size: 4 },
      resolve: (latency) =>
        (Object.keys(percentiles) as PercentileName[]).flatMap((name) => {
          const found = latency[name];
          return found ? [{ name, ...found }] : [];
        }),
    }),
  }),
});

const StabilityType = builder.objectRef<Stability>('BenchmarkStability').implement({
  description: 'How much the speed changed. Shares of 1; null with fewer than five windows.',
  fields: (t) => ({
    windows: t.exposeInt('windows', { description: 'Complete windows of the measurement.' }),
    throughputSpread: t.exposeFloat('throughputSpread', {
      nullable: true,
      description: '(max - min) / median of the throughput of the last five windows.',
    }),
    p95Spread: t.exposeFloat('p95Spread', {
      nullable: true,
      description: '(max - min) / median of the P95 latency of the last five windows.',
    }),
    drift: t.exposeFloat('drift', { nullable: true, description: 'Change of the throughput over all windows, by the Theil–Sen slope.' }),
  }),
});

const ColdType = builder.objectRef<Part<'cold'>>('BenchmarkColdStart').implement({
  description: 'What the first answer costs in a new process. The file is in the system’s cache.',
  fields: (t) => ({
    loadNs: t.expose('loadNs', { type: 'SafeInt', description: 'To load the model, in nanoseconds.' }),
    firstInferenceNs: t.expose('firstInferenceNs', { type: 'SafeInt', description: 'The first inference, in nanoseconds.' }),
  }),
});

const ReferenceType = builder.enumType('BenchmarkReference', {
  description: 'What the outputs were compared with.',
  values: enumValues<GateResult['reference']>({
    PROBE: 'Outputs of the trained model for real images.',
    SELF_REFERENCE: 'Outputs of the same file without optimisations for seeded inputs.',
  }),
});

const ComparisonType = builder.objectRef<Comparison>('GateComparison').implement({
  description: 'One output of a model, compared with its reference.',
  fields: (t) => ({
    output: t.exposeString('output', { description: 'Name of the output, or what of it was compared.' }),
    largestDifference: t.exposeFloat('largestDifference', {
      nullable: true,
      description: 'Largest absolute difference; null when a value was not a number or the shapes differed.',
    }),
    tolerance: t.exposeFloat('tolerance', { description: 'Largest difference that is allowed.' }),
  }),
});

const GateType = builder.objectRef<Part<'gate'>>('BenchmarkGate').implement({
  description: 'Whether the model computes the right results: before that, no speed counts.',
  fields: (t) => ({
    reference: t.expose('reference', { type: ReferenceType, description: 'What the outputs were compared with.' }),
    inputs: t.exposeInt('inputs', { description: 'Inputs that were compared.' }),
    outputs: t.field({
      type: [ComparisonType],
      description: 'Each output by itself: its largest difference, and the mean of all.',
      extensions: { size: 2 },
      // Reports of earlier versions have another form.
      resolve: (gate) => GateResult.parse(gate).outputs,
    }),
  }),
});

const WarmupType = builder.objectRef<Part<'warmup'>>('BenchmarkWarmup').implement({
  description: 'The runs before the measurement.',
  fields: (t) => ({
    runs: t.exposeInt('runs', { description: 'How many.' }),
    durationNs: t.expose('durationNs', { type: 'SafeInt', description: 'How long they took, in nanoseconds.' }),
    settled: t.exposeBoolean('settled', {
      description: 'Whether the speed had settled: the medians of the last two blocks of 10 runs were 3 % apart at most.',
    }),
  }),
});

const MemoryType = builder.objectRef<Part<'memory'>>('BenchmarkMemory').implement({
  description: 'Resident memory of the process that ran the model and nothing else.',
  fields: (t) => ({
    baselineBytes: t.expose('baselineBytes', { type: 'SafeInt', description: 'Before the model was loaded.' }),
    peakBytes: t.expose('peakBytes', { type: 'SafeInt', description: 'At most, until the end of the measurement.' }),
    increaseBytes: t.expose('increaseBytes', { type: 'SafeInt', description: 'What the model and its runs took.' }),
  }),
});

const NoiseType = builder.objectRef<Part<'noise'>>('BenchmarkNoise').implement({
  description: 'What disturbed the measurement. Shares of 1; null where the system does not tell.',
  fields: (t) => ({
    steal: t.exposeFloat('steal', { nullable: true, description: 'Time that other virtual machines took.' }),
    throttled: t.exposeFloat('throttled', {
      nullable: true,
      description: 'Scheduling periods in which the container’s quota stopped the process.',
    }),
    contention: t.exposeFloat('contention', { nullable: true, description: 'Time that other processes took from its threads.' }),
  }),
});

const GpuUseType = builder.objectRef<RowView['gpu']>('BenchmarkGpu').implement({
  description: 'What the GPU did; null with a reason where nobody measured it.',
  fields: (t) => ({
    utilizationPercent: t.exposeFloat('utilizationPercent', { nullable: true, description: 'Mean utilisation, 0 to 100.' }),
    memoryBytesMax: t.expose('memoryBytesMax', {
      type: 'SafeInt',
      nullable: true,
      description: 'Most GPU memory that was used, by other processes too.',
    }),
    powerWatts: t.float({ nullable: true, description: 'Mean power draw.', resolve: (gpu) => gpu.powerWatts }),
    temperatureCelsiusMax: t.float({ nullable: true, description: 'Highest temperature.', resolve: (gpu) => gpu.temperatureCelsiusMax }),
    throttleReasons: t.field({
      type: [ThrottleReasonType],
      nullable: true,
      description: 'Why its clocks were lower than they could be, at some time.',
      extensions: { size: 2 },
      resolve: (gpu) => gpu.throttleReasons,
    }),
    reason: t.exposeString('reason', { nullable: true, description: 'Why there are no numbers.' }),
  }),
});

/** A row with the report's job, which its samples belong to. */
export const BenchmarkRowType = builder.objectRef<RowView & { jobId: string }>('BenchmarkRow').implement({
  description: 'One configuration that was measured.',
  fields: (t) => ({
    n: t.exposeInt('n', { description: 'Number within the benchmark, from 0.' }),
    model: t.exposeInt('model', { description: 'Place of its model in `models`, from 0.' }),
    engine: t.expose('engine', { type: EngineNameType, description: 'What ran it.' }),
    engineVersion: t.exposeString('engineVersion', { description: 'The engine’s library with its version.' }),
    precision: t.exposeString('precision', { description: 'Number type of the weights.' }),
    batchSize: t.exposeInt('batchSize', { description: 'Images in one inference.' }),
    intraOpThreads: t.exposeInt('intraOpThreads', { description: 'Threads that one inference computes with.' }),
    instances: t.exposeInt('instances', { description: 'Copies of the model that computed at the same time.' }),
    verdict: t.expose('verdict', { type: BenchmarkVerdictType, description: 'What it is worth.' }),
    reasons: t.field({
      type: [ReasonType],
      description: 'Why, and what else to keep in mind.',
      extensions: { size: 3 },
      resolve: (r) => r.reasons,
    }),
    latency: t.field({ type: LatencyType, nullable: true, description: 'How long an inference takes.', resolve: (r) => r.latency }),
    itemsPerSecond: t.exposeFloat('itemsPerSecond', { nullable: true, description: 'Throughput in images a second.' }),
    elapsedNs: t.expose('elapsedNs', { type: 'SafeInt', nullable: true, description: 'How long it was measured, in nanoseconds.' }),
    stability: t.field({ type: StabilityType, nullable: true, description: 'How much the speed changed.', resolve: (r) => r.stability }),
    cold: t.field({ type: ColdType, nullable: true, description: 'What the first answer costs.', resolve: (r) => r.cold }),
    gate: t.field({ type: GateType, nullable: true, description: 'Whether it computes the right results.', resolve: (r) => r.gate }),
    warmup: t.field({ type: WarmupType, nullable: true, description: 'The runs before the measurement.', resolve: (r) => r.warmup }),
    memory: t.field({ type: MemoryType, nullable: true, description: 'Memory of its process.', resolve: (r) => r.memory }),
    noise: t.field({ type: NoiseType, nullable: true, description: 'What disturbed it.', resolve: (r) => r.noise }),
    disturbedRounds: t.exposeIntList('disturbedRounds', {
      nullable: true,
      description:
        'Rounds in which something else took the processor; null where there was none. Rows are compared in the others, where six are left.',
    }),
    gpu: t.field({ type: GpuUseType, description: 'What the GPU did.', resolve: (r) => r.gpu }),
    sampleCount: t.int({ nullable: true, description: 'Inferences that were timed.', resolve: (r) => r.samples?.count }),
    samplesSha256: t.string({ nullable: true, description: 'Hash of the file with all samples.', resolve: (r) => r.samples?.sha256 }),
    samplesUrl: t.string({
      nullable: true,
      description:
        'Download of all samples, valid for 10 minutes at least. The file has three columns of 64-bit integers, little-endian, one after the other: ' +
        'latency and end of each inference in nanoseconds, and the block of time that it ended in.',
      resolve({ jobId, n }, _args, context) {
        const id = samplesOf(context.db, jobId, n);
        return id ? downloadUrl(context, { id }) : null;
      },
    }),
  }),
});
