/**
 * What the child of a benchmark stores in its work folder: a file of this form after each round, with the samples of each cell beside it. The
 * last one is what it tells the server.
 */
import { z } from 'zod';
import { engineNames } from '../engine/engines.ts';
import type { BenchmarkSpec } from '../jobs/specs.ts';
import { Comparison } from '../models/gate.ts';
import { throttleReasons } from '../system/throttling.ts';

const ns = z.int().min(0);
const bytes = z.int().min(0);
const share = z.number().min(0);

/** Benchmarks of earlier versions compared all outputs together. */
export const GateResult = z.preprocess(
  (stored) => {
    if (typeof stored !== 'object' || stored === null || 'outputs' in stored) return stored;
    const { largestDifference, tolerance, ...gate } = stored as Record<string, unknown>;
    return { ...gate, outputs: [{ output: '(all)', largestDifference, tolerance }] };
  },
  z.object({
    /** SELF_REFERENCE: the same file without optimisations, on seeded inputs. */
    reference: z.enum(['PROBE', 'SELF_REFERENCE']),
    inputs: z.int(),
    outputs: z.array(Comparison),
  }),
);
export type GateResult = z.infer<typeof GateResult>;

export const Telemetry = z.object({
  /** Why nothing was measured. */
  unavailable: z.object({ code: z.string(), message: z.string() }).nullable(),
  cold: z.object({ loadNs: ns, firstInferenceNs: ns }).nullable(),
  gate: GateResult.nullable(),
  /** `settled`: the medians of the last two blocks of 10 runs agreed. */
  warmup: z.object({ runs: z.int(), durationNs: ns, settled: z.boolean() }).nullable(),
  /** Resident memory of the process before the model was loaded, and its peak until the end of the measurement. */
  memory: z.object({ baselineBytes: bytes, peakBytes: bytes }).nullable(),
  /** While it was measured; null where this system does not tell. */
  noise: z
    .object({
      /** Time that the hypervisor took, of all time. */
      steal: share.nullable(),
      /** Scheduling periods in which the control group's quota stopped the process, of all periods. */
      throttled: share.nullable(),
      /** Processor time that others took away from the threads of the measurement, of the time these wanted. */
      contention: share.nullable(),
    })
    .nullable(),
  /** The rounds in which something else took the processor; absent where there was none, and in benchmarks of earlier versions. */
  disturbedRounds: z.array(z.int().min(0)).optional(),
  /** Of the GPU while it was measured. Benchmarks of earlier versions, and those of the processor, lack the optional ones. */
  gpu: z.object({
    utilizationPercent: z.number().nullable(),
    memoryBytesMax: bytes.nullable(),
    powerWatts: z.number().nullable().optional(),
    temperatureCelsiusMax: z.number().nullable().optional(),
    throttleReasons: z.array(z.enum(throttleReasons)).nullable().optional(),
    reason: z.string().nullable(),
  }),
});
export type Telemetry = z.infer<typeof Telemetry>;

/** Of a cell that could not be measured. */
export const nothingMeasured = (unavailable: NonNullable<Telemetry['unavailable']>): Telemetry => ({
  unavailable,
  cold: null,
  gate: null,
  warmup: null,
  memory: null,
  noise: null,
  gpu: { utilizationPercent: null, memoryBytesMax: null, reason: 'Nothing was measured.' },
});

export const Machine = z.object({
  processor: z.string(),
  cores: z.int(),
  memoryBytes: bytes,
  platform: z.string(),
  arch: z.string(),
  kernel: z.string(),
  node: z.string(),
});
export type Machine = z.infer<typeof Machine>;

/** What a round has measured of a cell. */
const BlockSummary = z.object({
  round: z.int().min(0),
  count: z.int().min(1),
  elapsedNs: ns,
  noise: Telemetry.shape.noise.unwrap(),
});
export type BlockSummary = z.infer<typeof BlockSummary>;

const Cell = z.object({
  n: z.int().min(0),
  /** Index into the models of the specification. */
  model: z.int().min(0),
  engine: z.enum(engineNames),
  engineVersion: z.string(),
  batchSize: z.int(),
  intraOpThreads: z.int(),
  /** Copies of the model that compute at the same time. Benchmarks of earlier versions had one. */
  instances: z.int().default(1),
  telemetry: Telemetry,
  /** In the order in which they were measured. */
  blocks: z.array(BlockSummary),
  samples: z.object({ name: z.string(), sha256: z.string(), sizeBytes: bytes }).nullable(),
});
export type Cell = z.infer<typeof Cell>;

export const CellsFile = z.object({
  machine: Machine,
  /** Differs after each start of the system; null where it does not say. */
  bootId: z.string().nullable(),
  codeVersion: z.string(),
  cells: z.array(Cell),
});
export type CellsFile = z.infer<typeof CellsFile>;

/** A configuration that is to be measured. */
export type PlannedCell = Pick<Cell, 'n' | 'model' | 'engine' | 'batchSize' | 'intraOpThreads' | 'instances'>;

type Matrix = { models: readonly unknown[] } & Pick<BenchmarkSpec, 'batchSizes' | 'engines' | 'intraOpThreads' | 'instances'>;

/** The cells of a benchmark, so ordered that inputs and reference of a model at a batch size are made once. */
export function planCells({ models, batchSizes, engines, intraOpThreads, instances }: Matrix): PlannedCell[] {
  return models
    .flatMap((_, model) =>
      batchSizes.flatMap((batchSize) =>
        engines.flatMap((engine) =>
          intraOpThreads.flatMap((threads) =>
            instances.map((count) => ({ model, batchSize, engine, intraOpThreads: threads, instances: count })),
          ),
        ),
      ),
    )
    .map((cell, n) => ({ n, ...cell }));
}
