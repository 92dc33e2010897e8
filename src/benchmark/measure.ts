/** One configuration, alone in this process (`cell.ts`): cold start, gate, warm-up, then blocks of the measurement. */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Engine, EngineSession, Feeds } from '../engine/engine.ts';
import { engines } from '../engine/engines.ts';
import type { Phase } from '../jobs/protocol.ts';
import type { BenchmarkSettings, BenchmarkSpec } from '../jobs/specs.ts';
import { gateFailures, magnitudeMin, tolerances } from '../models/gate.ts';
import { largestDifference } from '../models/probe.ts';
import { type GateResult, nothingMeasured, type PlannedCell, planCells, type Telemetry } from './cells.ts';
import { type GpuMeter, openGpuMeter } from './gpuMeter.ts';
import { feedsOf, load, numbersOf, type Prepared, run } from './inputs.ts';
import { type Instances, openInstances, warmUpSome } from './instances.ts';
import { noiseBetween, readNoise } from './noise.ts';
import type { RawSamples } from './samples.ts';
import { figuresOf, median } from './statistics.ts';

type Precision = BenchmarkSpec['models'][number]['precision'];

/** Of the mean of all differences of an output: rounding goes both ways, boxes that lie 2 pixels beside do not. */
const meanTolerances: Record<Precision, number> = { FP32: 1e-4, FP16: 5e-4, INT8: 1e-3 };

/** Runs whose medians are compared to tell whether the speed has settled, and by how much they may differ. */
const warmupBlock = 10;
const warmupSpread = 0.03;

const now = (): bigint => process.hrtime.bigint();
const since = (start: bigint): number => Number(now() - start);

/** Where the measurement tells what it does. */
export interface MeasureProgress {
  phase(phase: Phase, total: number | null): void;
  /** So many more items (images) of the phase are done. It sends new metrics at once. */
  advance(items: number, metrics?: Record<string, number>): void;
}

/** So many more inferences are done. */
type Advance = (runs: number) => void;

/** What a block of the measurement is asked for. It ends at the first limit, after one inference at least. */
export interface BlockAsked {
  /** The block's number, from 0, which its samples carry. */
  round: number;
  seconds: number;
  samplesMax: number;
  /** For how long this configuration was measured in earlier blocks. */
  elapsedNs: number;
}

export interface Block {
  samples: RawSamples;
  elapsedNs: number;
  noise: NonNullable<Telemetry['noise']>;
}

export type Use = Pick<Telemetry, 'memory' | 'gpu'>;

/** A configuration that is loaded, right and warm. */
export interface WarmCell {
  block(asked: BlockAsked): Promise<Block>;
  /** Ends it, and says what it used. */
  close(): Promise<Use>;
}

/** Loads a configuration, compares its outputs with the reference and warms it up. `warm` is null when no speed of it counts. */
export async function openCell(
  spec: BenchmarkSpec,
  cell: PlannedCell,
  prepared: Prepared,
  progress: MeasureProgress,
): Promise<{ telemetry: Telemetry; warm: WarmCell | null }> {
  const model = spec.models[cell.model] as BenchmarkSpec['models'][number];
  const { device, computesIn, load: loadEngine }: Engine = engines[cell.engine];
  const open = await loadEngine();
  const feeds = feedsOf(prepared.inputs, model.probe, spec.seed, prepared.expected.length);
  const advance: Advance = (runs) => progress.advance(runs * cell.batchSize);

  const { n, batchSize, intraOpThreads, instances: count } = cell;
  const about = { cell: n, cells: planCells(spec).length, model: cell.model, batchSize, intraOpThreads, instances: count };
  progress.phase('gate', feeds.length * cell.batchSize);
  // Until its first block has ended. After that each message has the figures of its latest one, so that every row's are seen in each round.
  progress.advance(0, about);
  const peak = watchPeak();
  const baselineBytes = process.memoryUsage.rss();
  const gpu = openGpuMeter(device, process.env.CUDA_VISIBLE_DEVICES ?? '');
  const loadedAt = now();
  const loaded = await load(open, model.file, { intraOpThreads: cell.intraOpThreads });
  if ('problem' in loaded) {
    const code = device === 'cpu' ? loaded.problem.code : 'ENGINE_UNAVAILABLE';
    return { telemetry: nothingMeasured({ ...loaded.problem, code }), warm: null };
  }
  const loadNs = since(loadedAt);
  const { session } = loaded;
  const firstAt = now();
  const first = await run(session, feeds[0] as Feeds);
  if ('problem' in first) return { telemetry: nothingMeasured(first.problem), warm: null };
  const telemetry: Telemetry = {
    unavailable: null,
    cold: { loadNs, firstInferenceNs: since(firstAt) },
    gate: await compare(session, feeds, prepared, model.precision === 'FP32' ? (computesIn ?? 'FP32') : model.precision, advance),
    warmup: null,
    memory: null,
    noise: null,
    gpu: gpu.use(),
  };
  if (gateFailures(telemetry.gate?.outputs ?? []).length > 0) return { telemetry, warm: null };
  const { engine } = cell;
  const data = {
    engine,
    file: model.file,
    intraOpThreads,
    inputs: prepared.inputs,
    probe: model.probe,
    seed: spec.seed,
    feeds: feeds.length,
  };
  const instances = await openInstances(count, session, feeds, data);
  if ('problem' in instances) return { telemetry: nothingMeasured(instances.problem), warm: null };
  progress.phase('warmup', null);
  telemetry.warmup = await instances.beside(() => warmUp(session, feeds, spec.settings, advance));
  const { runs, durationNs } = telemetry.warmup;
  /** Of one inference, as the last block has shown it. */
  let inferenceNs = durationNs / Math.max(1, runs);
  return {
    telemetry,
    warm: {
      async block(asked) {
        const total = spec.scenario === 'OFFLINE' ? Math.ceil((asked.seconds * 1e9 * count) / inferenceNs) : null;
        const block = await measureBlock(instances, gpu, cell, asked, total, advance);
        inferenceNs = (block.elapsedNs * count) / block.samples.latencyNs.length;
        const seconds = (asked.elapsedNs + block.elapsedNs) / 1e9;
        progress.advance(0, { ...about, round: asked.round, seconds, ...figuresOf(block.samples.latencyNs, block.elapsedNs, batchSize) });
        return block;
      },
      async close() {
        const memory = { baselineBytes, peakBytes: peak() };
        await instances.close();
        await session.close();
        return { memory, gpu: gpu.use() };
      },
    },
  };
}

/** Each output by itself: its largest difference, and the mean of all. */
async function compare(
  session: EngineSession,
  feeds: Feeds[],
  { reference, expected, count }: Prepared,
  precision: Precision,
  advance: Advance,
): Promise<GateResult> {
  const seen = new Map<string, { difference: number; magnitude: number; sum: number; values: number }>();
  for (const [i, wantedOutputs] of expected.entries()) {
    const foundOutputs = numbersOf((await session.run(feeds[i] as Feeds)).outputs);
    for (const [name, wanted] of wantedOutputs) {
      const found = foundOutputs.get(name) ?? new Float32Array();
      const { difference, magnitude, sum, values } = seen.get(name) ?? { difference: 0, magnitude: magnitudeMin, sum: 0, values: 0 };
      seen.set(name, {
        difference: Math.max(difference, largestDifference(wanted, found)),
        magnitude: wanted.reduce((largest, value) => Math.max(largest, Math.abs(value)), magnitude),
        sum: wanted.reduce((total, value, at) => total + (found[at] as number) - value, sum),
        values: values + wanted.length,
      });
    }
    advance(1);
  }
  const outputs = [...seen].flatMap(([output, { difference, magnitude, sum, values }]) => [
    comparison(output, difference, tolerances[precision] * magnitude),
    comparison(`${output}, on average,`, Math.abs(sum / Math.max(1, values)), meanTolerances[precision] * magnitude),
  ]);
  return { reference, inputs: count, outputs };
}

const comparison = (output: string, difference: number, tolerance: number): GateResult['outputs'][number] => ({
  output,
  largestDifference: Number.isFinite(difference) ? difference : null,
  tolerance,
});

async function warmUp(
  session: EngineSession,
  feeds: Feeds[],
  { warmupRunsMin, warmupSecondsMin, warmupSecondsMax }: BenchmarkSettings,
  advance: Advance,
): Promise<NonNullable<Telemetry['warmup']>> {
  const startedAt = now();
  let latencies: number[] = [];
  let runs = 0;
  for (;;) {
    const durationNs = since(startedAt);
    const settled = runs >= warmupRunsMin && durationNs >= warmupSecondsMin * 1e9 && agree(latencies);
    if (settled || durationNs >= warmupSecondsMax * 1e9) return { runs, durationNs, settled };
    const more = await warmUpSome(session, feeds, runs % feeds.length);
    latencies = [...latencies, ...more].slice(-2 * warmupBlock);
    runs += more.length;
    advance(more.length);
  }
}

/** Whether the medians of the last two blocks agree. */
function agree(latencies: number[]): boolean {
  if (latencies.length < 2 * warmupBlock) return false;
  const last = median(latencies.slice(-warmupBlock));
  const before = median(latencies.slice(-2 * warmupBlock, -warmupBlock));
  return Math.abs(last - before) <= warmupSpread * before;
}

/** A first inference of each instance does not count, since it only brings back what the other configurations have driven out of the caches. */
async function measureBlock(
  instances: Instances,
  gpu: GpuMeter,
  { intraOpThreads, instances: count }: PlannedCell,
  { round, seconds, samplesMax, elapsedNs: earlierNs }: BlockAsked,
  total: number | null,
  advance: Advance,
): Promise<Block> {
  const before = readNoise();
  gpu.start();
  const measured = instances.block({ seconds, samplesMax: Math.ceil(samplesMax / count), total }, advance);
  const { latencyNs, endNs } = await measured.finally(() => gpu.stop());
  const noise = noiseBetween(before, readNoise(), intraOpThreads * count);
  const samples = { latencyNs, endNs: endNs.map((end) => earlierNs + end), block: new Float64Array(latencyNs.length).fill(round) };
  return { samples, elapsedNs: endNs.at(-1) as number, noise };
}

/** The process's peak of resident memory from now on: the kernel's where it can be reset (proc(5), clear_refs), else what it is at the end. */
function watchPeak(): () => number {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
    return () => 1024 * Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
  } catch {
    return () => process.memoryUsage.rss();
  }
}
