/** A report is a pure function of what a benchmark has stored: its context, its machine, its rows and their samples. */
import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import type { Cell, Machine } from '../benchmark/cells.ts';
import type { BenchmarkContext } from '../benchmark/context.ts';
import { type Rounds, roundsOf } from '../benchmark/pairing.ts';
import { blockIntervals, type Interval, orderOf } from '../benchmark/resampling.ts';
import { decodeSamples, type RawSamples } from '../benchmark/samples.ts';
import {
  confidence,
  nearestRank,
  type Percentile,
  percentiles,
  stabilityOf,
  summarizeLatency,
  windowNsOf,
  windowsOf,
} from '../benchmark/statistics.ts';
import { type Verdict, verdicts } from '../benchmark/tables.ts';
import { judge } from '../benchmark/verdict.ts';
import { canonicalJson } from '../canonical.ts';
import type { StoredBlob } from '../storage/blobs.ts';
import { choose } from './choice.ts';
import { baselineOf, deltasOf } from './deltas.ts';
import { claimed, courseMax, distributionPerMille, REPORT_SCHEMA_VERSION, type Report, type ReportRow } from './report.ts';

/** A cell whose samples are in the store. */
export type Measurement = Omit<Cell, 'samples' | 'blocks'> & { samples: StoredBlob | null };

export interface Source {
  context: BenchmarkContext;
  machine: Machine;
  measurements: Measurement[];
}

export interface Made {
  report: Report;
  /** Its canonical JSON. */
  content: string;
  sha256: string;
  /** That of the best row. */
  verdict: Verdict;
}

/** `read` gives the bytes of a blob. One row's samples are held at a time, and others get their turn in between. */
export async function makeReport({ context, machine, measurements }: Source, read: (sha256: string) => Promise<Uint8Array>): Promise<Made> {
  const rows: ReportRow[] = [];
  const rounds = new Map<number, Rounds>();
  for (const measurement of measurements) {
    const { n, samples, telemetry } = measurement;
    const raw = samples && decodeSamples(await read(samples.sha256));
    const measured: Rounds = raw && context.inRounds ? roundsOf(raw, telemetry.disturbedRounds) : new Map();
    rows.push(rowOf(context, measurement, raw, measured));
    if (measured.size > 0) rounds.set(n, measured);
    await setImmediate();
  }
  const report = reportOf(context, machine, rows, rounds);
  const content = canonicalJson(report);
  return {
    report,
    content,
    sha256: createHash('sha256').update(content).digest('hex'),
    verdict: verdicts.find((verdict) => rows.some((row) => row.verdict === verdict)) ?? 'UNAVAILABLE',
  };
}

function reportOf(
  { jobId, measuredAt, codeVersion, request, models }: BenchmarkContext,
  machine: Machine,
  rows: ReportRow[],
  rounds: ReadonlyMap<number, Rounds>,
): Report {
  const { modelVersionIds: _ids, ...asked } = request;
  const measured = { models, rows, machine, request: asked, rounds };
  const baseline = baselineOf(measured);
  return {
    schemaVersion: REPORT_SCHEMA_VERSION,
    measuredAt: new Date(measuredAt).toISOString(),
    jobId,
    codeVersion,
    confidence,
    models,
    rows,
    machine,
    request: asked,
    baseline: baseline?.n ?? null,
    deltas: deltasOf(measured, baseline),
    choice: choose(measured),
  };
}

function rowOf(
  { request, models }: BenchmarkContext,
  { telemetry, samples, ...cell }: Measurement,
  raw: RawSamples | null,
  rounds: Rounds,
): ReportRow {
  const { settings, profile } = request;
  const names = claimed[profile];
  const order = raw ? orderOf(raw) : new Uint32Array();
  const sorted = Float64Array.from(order, (n) => (raw as RawSamples).latencyNs[n] as number);
  const summary = raw && summarizeLatency(raw, cell.batchSize, sorted);
  const intervals =
    raw &&
    blockIntervals(
      raw,
      names.map((name) => percentiles[name]),
      order,
    );
  const stability = raw && stabilityOf(windowsOf(raw, cell.batchSize, windowNsOf(settings)));
  const { memory, ...measured } = telemetry;
  return {
    ...cell,
    ...measured,
    precision: models[cell.model]?.precision as string,
    ...judge({ telemetry, summary, stability, settings }),
    samples: samples && summary && { sha256: samples.sha256, sizeBytes: samples.sizeBytes, count: summary.count },
    latency: summary && {
      meanNs: summary.meanNs,
      meanLowNs: intervals?.mean.low ?? null,
      meanHighNs: intervals?.mean.high ?? null,
      minNs: summary.minNs,
      maxNs: summary.maxNs,
      distributionNs: distributionOf(sorted),
      ...Object.fromEntries(names.map((name, i) => [name, widened(summary.percentiles[name], intervals?.percentiles[i])])),
    },
    course: courseOf(rounds),
    itemsPerSecond: summary?.itemsPerSecond ?? null,
    elapsedNs: summary?.elapsedNs ?? null,
    stability,
    memory: memory && { ...memory, increaseBytes: Math.max(0, memory.peakBytes - memory.baselineBytes) },
  };
}

const distributionOf = (sorted: Float64Array): number[] =>
  distributionPerMille.map((perMille) => sorted[nearestRank(perMille, sorted.length) - 1] as number);

/** Of many rounds some, evenly spaced, the first and the last among them. */
function courseOf(rounds: Rounds): NonNullable<ReportRow['course']> {
  const all = [...rounds];
  const kept =
    all.length <= courseMax
      ? all
      : Array.from({ length: courseMax }, (_, i) => all[Math.round((i * (all.length - 1)) / (courseMax - 1))] as (typeof all)[number]);
  return kept.map(([round, { p50, p95 }]) => ({ round, p50Ns: p50, p95Ns: p95 }));
}

/** Binomial ranks tell of too few samples, drawn blocks of a changing machine: the interval holds both. */
function widened(percentile: Percentile, seen: Interval | undefined): Percentile {
  const { lowNs, highNs } = percentile;
  if (percentile.kind !== 'EXACT' || !seen) return percentile;
  return {
    ...percentile,
    lowNs: lowNs === null ? null : Math.min(lowNs, seen.low),
    highNs: highNs === null ? null : Math.max(highNs, seen.high),
  };
}
