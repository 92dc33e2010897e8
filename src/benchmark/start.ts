import { z } from 'zod';
import type { Actor } from '../accounts/audit.ts';
import type { Queryable } from '../db.ts';
import { engineNames, readEngines } from '../engine/engines.ts';
import { dimensionsOf, planShapes } from '../engine/shapes.ts';
import { parseInput, refuse } from '../errors.ts';
import { permitsOf, threadsMaxOf } from '../inference/config.ts';
import { submitJob } from '../jobs/enqueue.ts';
import type { JobServices } from '../jobs/kinds.ts';
import { JobPriority } from '../jobs/priority.ts';
import { OnnxMeta } from '../jobs/results.ts';
import { BenchmarkSettings, BenchmarkSpec, benchmarkProfiles } from '../jobs/specs.ts';
import type { Job } from '../jobs/tables.ts';
import { requireDisk } from '../storage/disk.ts';
import { requireReadyModel } from '../training/sources.ts';
import { planCells } from './cells.ts';
import { BenchmarkRequest, sizesOf } from './context.ts';

const cellsMax = 200;
export const durationMsMax = 20 * 3_600_000;

/** To start two processes, make the inputs, load the model and compare its outputs: what a model of 100 MB takes on a slow processor. */
const cellOverheadMs = 3000;
/** A sample takes 24 bytes, and an inference of the smallest models in use 20 µs. */
const bytesPerSecond = 24 * 50_000;

const { warmupSecondsMax, secondsMin, secondsMax } = BenchmarkSettings.shape;
const { batchSizes, intraOpThreads, instances, dims, seed, target, profile, accuracyDropMax } = BenchmarkRequest.shape;
const { scenario } = BenchmarkSpec.shape;

const StartBenchmarkInput = z
  .object({
    modelVersionIds: z.array(z.string()).min(1, 'Name at least one model version.').max(20, 'At most 20 model versions are compared.'),
    batchSizes,
    engines: z.array(z.enum(engineNames)).nullish(),
    intraOpThreads: intraOpThreads.nullish(),
    instances: instances.unwrap().nullish(),
    scenario,
    profile,
    dims: z
      .array(z.object({ name: z.string(), size: z.number() }))
      .max(100)
      .nullish()
      .transform((list) => Object.fromEntries((list ?? []).map(({ name, size }) => [name, size])))
      .pipe(dims),
    seed,
    target: target.nullish(),
    accuracyDropMax,
    warmupSecondsMax: warmupSecondsMax.nullish(),
    secondsMin: secondsMin.nullish(),
    secondsMax: secondsMax.nullish(),
    dryRun: z.boolean(),
    priority: JobPriority.nullish(),
    idempotencyKey: z.string().max(200).nullish(),
  })
  .strict();

/** What a benchmark will take. `job` is null when only that was asked for. */
export interface StartedBenchmark {
  job: Job | null;
  cells: number;
  estimatedDurationMs: number;
  durationMsMax: number;
}

/** Checks that everything can be measured, and puts the benchmark into the queue. */
export async function startBenchmark(services: JobServices, actor: Actor, raw: unknown): Promise<StartedBenchmark> {
  const input = parseInput(StartBenchmarkInput, raw);
  const { config, db } = services;
  const there = (await readEngines(config.childEnv.PATH ?? '')).filter(({ reason }) => reason === null).map(({ name }) => name);
  const isSingle = input.scenario === 'SINGLE_STREAM';
  const threads = distinct(input.intraOpThreads ?? (isSingle ? threadsOf(config) : [1])).toSorted((a, b) => a - b);
  const room = Math.max(1, Math.floor(config.cores / (threads.at(-1) as number)));
  const request: BenchmarkRequest = {
    modelVersionIds: distinct(input.modelVersionIds),
    batchSizes: distinct(input.batchSizes).toSorted((a, b) => a - b),
    engines: engineNames.filter((name) => (input.engines ?? there).includes(name)),
    intraOpThreads: threads,
    instances: distinct(input.instances ?? [isSingle ? 1 : room]).toSorted((a, b) => a - b),
    scenario: input.scenario,
    dims: input.dims,
    seed: input.seed,
    profile: input.profile,
    settings: settingsOf(input),
    target: input.target ?? (isSingle ? 'LATENCY' : 'THROUGHPUT'),
    accuracyDropMax: input.accuracyDropMax,
  };
  if (request.engines.length === 0) refuse('INVALID', 'engines', 'Name at least one engine: the query `engines` lists them.');
  for (const field of ['intraOpThreads', 'instances'] as const) {
    if ((request[field].at(-1) as number) <= config.cores) continue;
    const things = field === 'instances' ? 'instances' : 'threads';
    refuse('INVALID', field, `This machine has ${config.cores} cores: more ${things} than that only wait for each other.`);
  }
  if (isSingle && request.instances.join() !== '1') {
    refuse('INVALID', 'instances', 'A single stream has one instance: take the scenario MULTI_STREAM or OFFLINE to measure more of them.');
  }
  if (input.scenario === 'OFFLINE' && request.target === 'LATENCY') {
    refuse('INVALID', 'target', 'OFFLINE measures throughput, where no request waits for another: choose by THROUGHPUT or MEMORY.');
  }
  requireMeasurable(db, request);

  const cells = planCells({ ...request, models: request.modelVersionIds });
  if (cells.length > cellsMax) refuse('LIMIT', null, `These are ${cells.length} configurations; at most ${cellsMax} are measured at once.`);
  const { settings } = request;
  const measured = cells.filter(({ engine }) => there.includes(engine)).length;
  const estimate = {
    cells: cells.length,
    estimatedDurationMs: Math.round(
      measured * (cellOverheadMs + 1000 * (Math.min(settings.warmupSecondsMin, settings.warmupSecondsMax) + settings.secondsMin)),
    ),
    durationMsMax: Math.round(measured * (cellOverheadMs + 1000 * (settings.warmupSecondsMax + settings.secondsMax))),
  };
  if (estimate.durationMsMax > durationMsMax) {
    refuse(
      'LIMIT',
      null,
      `This may take ${Math.ceil(estimate.durationMsMax / 3_600_000)} hours; at most ${durationMsMax / 3_600_000} are measured at once.`,
    );
  }
  await requireDisk(services, measured * Math.min(24 * settings.samplesMax, bytesPerSecond * settings.secondsMax));
  if (input.dryRun) return { job: null, ...estimate };
  const job = submitJob(services, actor, { kind: 'BENCHMARK', input, priority: input.priority }, (tx): BenchmarkRequest => {
    requireMeasurable(tx, request);
    return request;
  });
  return { job, ...estimate };
}

/** As many as a deployment is served with, and as many as there are: the report then has a row that can be deployed, and tells what the others gain. */
const threadsOf = ({ cores, inferencePermits = permitsOf(cores, 1) }: JobServices['config']): number[] => [
  threadsMaxOf(cores, inferencePermits),
  cores,
];

const distinct = <T>(values: readonly T[]): T[] => [...new Set(values)];

function settingsOf(input: z.infer<typeof StartBenchmarkInput>): BenchmarkSettings {
  const usual = benchmarkProfiles[input.profile];
  const shortest = input.secondsMin ?? Math.min(usual.secondsMin, input.secondsMax ?? usual.secondsMin);
  const longest = input.secondsMax ?? Math.max(usual.secondsMax, shortest);
  if (longest < shortest) refuse('INVALID', 'secondsMax', 'The longest measurement is not shorter than the shortest one, `secondsMin`.');
  return { ...usual, secondsMin: shortest, secondsMax: longest, warmupSecondsMax: input.warmupSecondsMax ?? usual.warmupSecondsMax };
}

/** Every version can be loaded, every dimension has a size, and at least one batch size fits each version. */
export function requireMeasurable(db: Queryable, { modelVersionIds, batchSizes, dims }: BenchmarkRequest): void {
  const known = new Set<string>();
  for (const id of modelVersionIds) {
    const version = requireReadyModel(db, id, 'modelVersionIds');
    if (version.format !== 'ONNX') {
      refuse('INVALID', 'modelVersionIds', `Version ${version.number} is a checkpoint: convert it with \`startConversion\` first.`);
    }
    const { inputs } = OnnxMeta.parse(version.signatureJson);
    for (const name of dimensionsOf(inputs)) known.add(name);
    const sizes = sizesOf(version, dims);
    const problems = batchSizes.flatMap((batchSize) => {
      const planned = planShapes(inputs, batchSize, sizes);
      return 'problem' in planned ? [planned.problem] : [];
    });
    const fatal = problems.find(({ code }) => code !== 'BATCH_FIXED') ?? (problems.length === batchSizes.length ? problems[0] : undefined);
    if (fatal) refuse('INVALID', fatal.code === 'DIMENSION_MISSING' ? 'dims' : 'batchSizes', fatal.message);
  }
  const unknown = Object.keys(dims).find((name) => !known.has(name));
  if (unknown !== undefined) {
    refuse('INVALID', 'dims', `No model has a dimension ${unknown}. There are: ${[...known].sort().join(', ') || 'none'}.`);
  }
}
