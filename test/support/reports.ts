/** Reports of benchmarks that nobody ran: their samples are made up. */
import { createHash } from 'node:crypto';
import type { Telemetry } from '../../src/benchmark/cells.ts';
import type { BenchmarkContext, ModelContext } from '../../src/benchmark/context.ts';
import { encodeSamples, type RawSamples } from '../../src/benchmark/samples.ts';
import { benchmarkRow, benchmarkRun } from '../../src/benchmark/tables.ts';
import { dataset, datasetVersion } from '../../src/datasets/tables.ts';
import { type Db, inTransaction } from '../../src/db.ts';
import { insertPoints } from '../../src/history/points.ts';
import { noteSlower } from '../../src/history/regressions.ts';
import { enqueue } from '../../src/jobs/enqueue.ts';
import { requireJob } from '../../src/jobs/jobs.ts';
import { benchmarkProfiles } from '../../src/jobs/specs.ts';
import { model, modelVersion } from '../../src/models/tables.ts';
import { type Made, type Measurement, makeReport, type Source } from '../../src/reports/make.ts';
import { insertReport } from '../../src/reports/reports.ts';
import { nobody } from './jobs.ts';

/** Of a row that nothing disturbed. */
export const telemetry: Telemetry = {
  unavailable: null,
  cold: { loadNs: 300_000_000, firstInferenceNs: 20_000_000 },
  gate: { reference: 'PROBE', inputs: 32, outputs: [{ output: 'logits', largestDifference: 1e-5, tolerance: 1e-4 }] },
  warmup: { runs: 60, durationNs: 2_000_000_000, settled: true },
  memory: { baselineBytes: 100 * 2 ** 20, peakBytes: 400 * 2 ** 20 },
  noise: { steal: 0, throttled: 0, contention: 0 },
  gpu: { utilizationPercent: null, memoryBytesMax: null, reason: 'It was measured on the processor.' },
};

export const processor = {
  processor: 'A processor',
  cores: 2,
  memoryBytes: 8 * 2 ** 30,
  platform: 'linux',
  arch: 'x64',
  kernel: '6',
  node: '24',
};

/** `latencyMs` is that of the first round; each later one is a little slower or faster, in the same way for every row. */
export interface MadeUpRow {
  latencyMs: number;
  model?: number;
  intraOpThreads?: number;
}

const rounds = 10;
const perRound = 60;

function samplesOf(latencyMs: number): RawSamples {
  const latencyNs = Float64Array.from({ length: rounds * perRound }, (_, i) => {
    const round = Math.floor(i / perRound);
    return Math.round(latencyMs * 1e6 * (1 + 0.01 * Math.sin(round)) * (1 + 0.002 * (i % 5)));
  });
  let end = 0;
  return {
    latencyNs,
    endNs: latencyNs.map((ns) => {
      end += ns;
      return end;
    }),
    block: latencyNs.map((_, i) => Math.floor(i / perRound)),
  };
}

/** A row that a benchmark has measured, or not: without samples. What it does not say is usual. */
export interface StoredRow extends Partial<Pick<Measurement, 'model' | 'engine' | 'batchSize' | 'intraOpThreads' | 'instances'>> {
  samples: RawSamples | null;
  telemetry?: Partial<Telemetry>;
}

/** The stored parts of a benchmark, and its blobs by hash. */
export function stored(
  rows: StoredRow[],
  models: ModelContext[],
  request: Partial<BenchmarkContext['request']> = {},
  { jobId = 'job-1', machine = processor }: { jobId?: string; machine?: Source['machine'] } = {},
): { source: Source; read: (sha256: string) => Promise<Uint8Array> } {
  const blobs = new Map<string, Uint8Array>();
  const measurements = rows.map(({ samples, telemetry: change, ...cell }, n): Measurement => {
    const bytes = samples && encodeSamples(samples);
    const sha256 = bytes ? createHash('sha256').update(bytes).digest('hex') : '';
    if (bytes) blobs.set(sha256, bytes);
    return {
      n,
      model: 0,
      engine: 'ONNXRUNTIME_CPU',
      engineVersion: 'onnxruntime 1.30.0',
      batchSize: 1,
      intraOpThreads: 1,
      instances: 1,
      ...cell,
      telemetry: { ...telemetry, ...change },
      samples: bytes && { sha256, sizeBytes: bytes.length },
    };
  });
  const context: BenchmarkContext = {
    jobId,
    measuredAt: 1_790_000_000_000,
    codeVersion: '0.1.0',
    inRounds: true,
    models,
    request: {
      modelVersionIds: models.map(({ versionId }) => versionId),
      batchSizes: [1],
      engines: ['ONNXRUNTIME_CPU'],
      intraOpThreads: [1],
      scenario: 'SINGLE_STREAM',
      instances: [1],
      dims: {},
      seed: 0,
      profile: 'QUICK',
      settings: benchmarkProfiles.QUICK,
      target: 'LATENCY',
      accuracyDropMax: 0.01,
      ...request,
    },
  };
  return { source: { context, machine, measurements }, read: async (sha256) => blobs.get(sha256) as Uint8Array };
}

/** What a benchmark of these models would have stored, and its report. */
export async function madeUp(
  rows: MadeUpRow[],
  models: ModelContext[],
  about: { jobId?: string; machine?: Source['machine'] } = {},
): Promise<{ context: BenchmarkContext; machine: Source['machine']; made: Made }> {
  const measured = rows.map(({ latencyMs, ...row }) => ({ ...row, samples: samplesOf(latencyMs) }));
  const { source, read } = stored(measured, models, {}, about);
  const { context, machine } = source;
  return { context, machine, made: await makeReport(source, read) };
}

/** As it was when a benchmark ended. */
export const modelContext = (number: number, change: Partial<ModelContext> = {}): ModelContext => ({
  versionId: `version-${number}`,
  name: 'digits',
  number,
  origin: 'CONVERTED',
  precision: 'FP32',
  preset: 'resnet50',
  sizeBytes: 94_000_000,
  sha256: 'a'.repeat(64),
  weightsHash: 'b'.repeat(64),
  lineageHash: 'c'.repeat(64),
  parameters: 23_500_000,
  accuracy: null,
  ...change,
});

/** A model with versions, and the images that they are evaluated on. `digits` is its name, `version-1` the id of the first. */
export function storeVersions(db: Db, numbers: number[]): void {
  const at = { createdAt: 0 };
  db.insert(dataset)
    .values({ id: 'data', name: 'digits', task: 'CLASSIFICATION', ...at })
    .run();
  db.insert(datasetVersion)
    .values({ id: 'data-1', datasetId: 'data', number: 1, state: 'READY', contentHash: 'd'.repeat(64), splitSeed: 0, ...at })
    .run();
  db.insert(model)
    .values({ id: 'digits', name: 'digits', task: 'CLASSIFICATION', ...at })
    .run();
  for (const number of numbers) {
    const about = { state: 'READY', format: 'ONNX', precision: 'FP32', origin: 'CONVERTED', ...at } as const;
    db.insert(modelVersion)
      .values({ id: `version-${number}`, modelId: 'digits', number, ...about })
      .run();
  }
}

/** A benchmark that has ended with these rows; `models` are indices into `numbers` of versions. Gives the job's id. */
export async function storeBenchmark(
  db: Db,
  rows: MadeUpRow[],
  numbers: number[],
  machine: Source['machine'] = processor,
): Promise<string> {
  const { id: jobId } = inTransaction(db, (tx) => enqueue(tx, nobody, { kind: 'BENCHMARK', spec: {} }));
  const models = numbers.map((number) => modelContext(number));
  const { context, made } = await madeUp(rows, models, { jobId, machine });
  inTransaction(db, (tx) => {
    tx.insert(benchmarkRun).values({ jobId, contextJson: context, machineJson: machine, verdict: made.verdict }).run();
    for (const { n, model, engine, engineVersion, batchSize, intraOpThreads, verdict, reasons } of made.report.rows) {
      const { versionId: modelVersionId, precision } = models[model] as ModelContext;
      const row = {
        jobId,
        n,
        modelVersionId,
        engine,
        engineVersion,
        precision,
        batchSize,
        intraOpThreads,
        dimsJson: {},
        scenario: 'SINGLE_STREAM' as const,
      };
      tx.insert(benchmarkRow)
        .values({ ...row, verdict, reasonsJson: reasons, telemetryJson: telemetry })
        .run();
    }
    insertReport(tx, jobId, made);
    insertPoints(tx, made.report);
    noteSlower(tx, { job: requireJob(tx, jobId), attemptNumber: 0 }, made.report);
  });
  return jobId;
}
