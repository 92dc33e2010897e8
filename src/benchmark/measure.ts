/** Measures one configuration, alone in this process (`cell.ts`): cold start, gate, warm-up, measurement. */
import { readFileSync, writeFileSync } from 'node:fs';
import type { EngineSession } from '../engine/engine.ts';
import { engines } from '../engine/engines.ts';
import type { Phase } from '../jobs/protocol.ts';
import type { BenchmarkSettings, BenchmarkSpec } from '../jobs/specs.ts';
import { gateFailures } from '../models/gate.ts';
import { largestDifference } from '../models/probe.ts';
import { type GateResult, nothingMeasured, type PlannedCell, planCells, type Telemetry } from './cells.ts';
import { type Feeds, feedsOf, load, numbersOf, type Prepared, run } from './inputs.ts';
import { noiseBetween, readNoise } from './noise.ts';
import type { RawSamples } from './samples.ts';
import { figuresOf, median, windowNsOf } from './statistics.ts';

type Precision = BenchmarkSpec['models'][number]['precision'];

/**
 * Largest difference of an output, relative to the largest magnitude of the same output's reference. FP32 as in the conversion gate; a
 * 16-bit float has 11 bits; a step of INT8 is 1/127 of the range, and other kernels may round otherwise in each layer.
 */
const tolerances: Record<Precision, number> = { FP32: 1e-4, FP16: 1e-2, INT8: 5e-2 };
/** An output whose reference is all but zero still may differ by rounding. */
const magnitudeMin = 1e-2;

/** Runs whose medians are compared to tell whether the speed has settled, and by how much they may differ. */
const warmupBlock = 10;
const warmupSpread = 0.03;

const noGpu = { utilizationPercent: null, memoryBytesMax: null };
const gpuReasons = {
  cpu: 'It was measured on the processor.',
  cuda: 'Utilisation and memory of a GPU are read through NVML, which this engine does not do.',
};

const now = (): bigint => process.hrtime.bigint();
const since = (start: bigint): number => Number(now() - start);

/** Where the measurement tells what it does. */
export interface MeasureProgress {
  phase(phase: Phase, total: number | null): void;
  /** So many more items (images) of the phase are done. */
  advance(items: number, metrics?: Record<string, number>): void;
}

/** Called after each inference. */
type Advance = (metrics?: Record<string, number>) => void;

/** `samples` is null when the gate was not passed: then no speed counts. */
export async function measureCell(
  spec: BenchmarkSpec,
  cell: PlannedCell,
  prepared: Prepared,
  progress: MeasureProgress,
): Promise<{ telemetry: Telemetry; samples: RawSamples | null }> {
  const model = spec.models[cell.model] as BenchmarkSpec['models'][number];
  const { device, load: loadEngine } = engines[cell.engine];
  const open = await loadEngine();
  const feeds = feedsOf(prepared, model, spec.seed);
  const { n, model: modelIndex, batchSize, intraOpThreads } = cell;
  const about = { cell: n, cells: planCells(spec).length, model: modelIndex, batchSize, intraOpThreads };
  const advance: Advance = (metrics = about) => progress.advance(batchSize, metrics);

  progress.phase('gate', feeds.length * cell.batchSize);
  const peak = watchPeak();
  const baselineBytes = process.memoryUsage.rss();
  const loadedAt = now();
  const loaded = await load(open, model.file, { intraOpThreads: cell.intraOpThreads });
  if ('problem' in loaded) {
    const code = device === 'cpu' ? loaded.problem.code : 'ENGINE_UNAVAILABLE';
    return { telemetry: nothingMeasured({ ...loaded.problem, code }), samples: null };
  }
  const loadNs = since(loadedAt);
  const { session } = loaded;
  try {
    const firstAt = now();
    const first = await run(session, feeds[0] as Feeds);
    if ('problem' in first) return { telemetry: nothingMeasured(first.problem), samples: null };
    const telemetry: Telemetry = {
      unavailable: null,
      cold: { loadNs, firstInferenceNs: since(firstAt) },
      gate: await compare(session, feeds, prepared, tolerances[model.precision], advance),
      warmup: null,
      memory: null,
      noise: null,
      gpu: { ...noGpu, reason: gpuReasons[device] },
    };
    if (gateFailures(telemetry.gate?.outputs ?? []).length > 0) return { telemetry, samples: null };

    progress.phase('warmup', null);
    telemetry.warmup = await warmUp(session, feeds, spec.settings, advance);
    progress.phase('measurement', null);
    const before = readNoise();
    const samples = await measure(session, feeds, spec, about, advance);
    telemetry.noise = noiseBetween(before, readNoise(), cell.intraOpThreads);
    telemetry.memory = { baselineBytes, peakBytes: peak() };
    return { telemetry, samples };
  } finally {
    await session.close();
  }
}

async function compare(
  session: EngineSession,
  feeds: Feeds[],
  { reference, expected, count }: Prepared,
  relative: number,
  advance: Advance,
): Promise<GateResult> {
  const seen = new Map<string, { difference: number; magnitude: number }>();
  for (const [i, wantedOutputs] of expected.entries()) {
    const found = numbersOf(await session.run(feeds[i] as Feeds));
    for (const [name, wanted] of wantedOutputs) {
      const { difference, magnitude } = seen.get(name) ?? { difference: 0, magnitude: magnitudeMin };
      seen.set(name, {
        difference: Math.max(difference, largestDifference(wanted, found.get(name) ?? new Float32Array())),
        magnitude: wanted.reduce((largest, value) => Math.max(largest, Math.abs(value)), magnitude),
      });
    }
    advance();
  }
  const outputs = [...seen].map(([output, { difference, magnitude }]) => ({
    output,
    largestDifference: Number.isFinite(difference) ? difference : null,
    tolerance: relative * magnitude,
  }));
  return { reference, inputs: count, outputs };
}

async function warmUp(
  session: EngineSession,
  feeds: Feeds[],
  { warmupRunsMin, warmupSecondsMin, warmupSecondsMax }: BenchmarkSettings,
  advance: Advance,
): Promise<NonNullable<Telemetry['warmup']>> {
  const startedAt = now();
  const latencies: number[] = [];
  for (let runs = 0; ; runs += 1) {
    const durationNs = since(startedAt);
    const settled = runs >= warmupRunsMin && durationNs >= warmupSecondsMin * 1e9 && agree(latencies);
    if (settled || durationNs >= warmupSecondsMax * 1e9) return { runs, durationNs, settled };
    const runAt = now();
    await session.run(feeds[runs % feeds.length] as Feeds);
    latencies.push(since(runAt));
    advance();
  }
}

/** Whether the medians of the last two blocks agree. */
function agree(latencies: number[]): boolean {
  if (latencies.length < 2 * warmupBlock) return false;
  const last = median(latencies.slice(-warmupBlock));
  const before = median(latencies.slice(-2 * warmupBlock, -warmupBlock));
  return Math.abs(last - before) <= warmupSpread * before;
}

/** A single stream: the next inference starts when the last has ended. */
async function measure(
  session: EngineSession,
  feeds: Feeds[],
  spec: BenchmarkSpec,
  about: Record<string, number> & { batchSize: number },
  advance: Advance,
): Promise<RawSamples> {
  const { secondsMin, secondsMax, samplesWanted, samplesMax, blockSeconds } = spec.settings;
  // Their pages are taken when they are written to.
  const latencyNs = new Float64Array(samplesMax);
  const endNs = new Float64Array(samplesMax);
  const block = new Float64Array(samplesMax);
  const windowNs = windowNsOf(spec.settings);
  let metrics: Record<string, number> = about;
  let window = { from: 0, begunNs: 0 };
  let n = 0;
  let elapsedNs = 0;
  const startedAt = now();
  const goesOn = () => n < samplesMax && (elapsedNs < secondsMin * 1e9 || (n < samplesWanted && elapsedNs < secondsMax * 1e9));
  while (goesOn()) {
    const runAt = now();
    await session.run(feeds[n % feeds.length] as Feeds);
    const endedAt = now();
    elapsedNs = Number(endedAt - startedAt);
    latencyNs[n] = Number(endedAt - runAt);
    endNs[n] = elapsedNs;
    block[n] = Math.floor(elapsedNs / (blockSeconds * 1e9));
    n += 1;
    const lastedNs = elapsedNs - window.begunNs;
    if (lastedNs >= windowNs) {
      const seen = figuresOf(latencyNs.subarray(window.from, n), lastedNs, about.batchSize);
      metrics = { ...about, seconds: elapsedNs / 1e9, ...seen };
      window = { from: n, begunNs: elapsedNs };
    }
    advance(metrics);
  }
  return { latencyNs: latencyNs.slice(0, n), endNs: endNs.slice(0, n), block: block.slice(0, n) };
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
