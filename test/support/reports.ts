/** Reports of benchmarks that nobody ran: their samples are made up. */
import { createHash } from 'node:crypto';
import type { Telemetry } from '../../src/benchmark/cells.ts';
import type { BenchmarkContext, ModelContext } from '../../src/benchmark/context.ts';
import { encodeSamples } from '../../src/benchmark/samples.ts';
import { benchmarkRow, benchmarkRun } from '../../src/benchmark/tables.ts';
import { dataset, datasetVersion } from '../../src/datasets/tables.ts';
import { type Db, inTransaction } from '../../src/db.ts';
import { insertPoints } from '../../src/history/points.ts';
import { noteSlower } from '../../src/history/regressions.ts';
import { enqueue } from '../../src/jobs/enqueue.ts';
import { requireJob } from '../../src/jobs/jobs.ts';
import { benchmarkProfiles } from '../../src/jobs/specs.ts';
import { model, modelVersion } from '../../src/models/tables.ts';
import { type Made, makeReport, type Source } from '../../src/reports/make.ts';
import { insertReport } from '../../src/reports/reports.ts';
import { nobody } from './jobs.ts';

const telemetry: Telemetry = {
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

function samplesOf(latencyMs: number) {
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

/** What a benchmark of these models would have stored. */
export async function madeUp(
  rows: MadeUpRow[],
  models: ModelContext[],
  about: { jobId?: string; machine?: Source['machine'] } = {},
): Promise<{ context: BenchmarkContext; machine: Source['machine']; made: Made }> {
  const blobs = new Map<string, Uint8Array>();
  const measurements = rows.map(({ latencyMs, model = 0, intraOpThreads = 1 }, n) => {
    const bytes = encodeSamples(samplesOf(latencyMs));
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    blobs.set(sha256, bytes);
    const samples = { sha256, sizeBytes: bytes.length };
    return {
      n,
      model,
      engine: 'ONNXRUNTIME_CPU' as const,
      engineVersion: 'onnxruntime 1.30.0',
      batchSize: 1,
      intraOpThreads,
      instances: 1,
      telemetry,
      samples,
    };
  });
  const context: BenchmarkContext = {
    jobId: about.jobId ?? 'job-1',
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
    },
  };
  const machine = about.machine ?? processor;
  const made = await makeReport({ context, machine, measurements }, async (sha256) => blobs.get(sha256) as Uint8Array);
  return { context, machine, made };
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
