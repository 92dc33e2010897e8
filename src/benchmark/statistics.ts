/** What samples say, and with what certainty. Pure functions of integer nanoseconds: the same samples give the same numbers. */

/** Of intervals. */
export const confidence = 0.95;
/** Of the bounds that decide whether a percentile is a number: LoadGen's value (MLPerf Inference Rules, "Early stopping criterion"). */
const boundConfidence = 0.99;

/** Percentiles by name, in thousandths: their ranks are then exact. */
export const percentiles = { p50: 500, p95: 950, p99: 990, p999: 999 } as const;
export type PercentileName = keyof typeof percentiles;

/** Samples beyond the bound that a percentile needs before it is a number (10), or at least an upper bound (1). */
const beyondNeeded = { EXACT: 10, AT_MOST: 1 } as const;

/** Rank of the nearest-rank percentile among n sorted samples, from 1: ⌈p·n⌉ (Hyndman and Fan 1996, definition 1). */
export const nearestRank = (perMille: number, n: number): number => Math.max(1, Math.ceil((perMille * n) / 1000));

/**
 * P(X ≤ k) of the binomial distribution with n trials of probability p, exact but for rounding: weights relative to that of the mode
 * are multiplied outwards until they no longer count, and divided by their sum.
 */
export function binomialCdf(n: number, p: number): (k: number) => number {
  const negligible = 1e-20;
  const mode = Math.min(n, Math.floor((n + 1) * p));
  const below: number[] = [];
  for (let k = mode, w = 1; k > 0; k -= 1) {
    w *= (k / (n - k + 1)) * ((1 - p) / p);
    if (w < negligible) break;
    below.push(w);
  }
  const weights = [...below.reverse(), 1];
  for (let k = mode, w = 1; k < n; k += 1) {
    w *= ((n - k) / (k + 1)) * (p / (1 - p));
    if (w < negligible) break;
    weights.push(w);
  }
  const first = mode - below.length;
  let sum = 0;
  const sums = weights.map((w) => {
    sum += w;
    return sum;
  });
  return (k) => (k < first ? 0 : k >= first + sums.length ? 1 : (sums[k - first] as number) / sum);
}

/** The largest k with P(X ≤ k) ≤ alpha; -1 when there is none. */
function largestUnder(cdf: (k: number) => number, n: number, alpha: number): number {
  let low = -1;
  let high = n;
  while (low + 1 < high) {
    const middle = Math.floor((low + high) / 2);
    if (cdf(middle) <= alpha) low = middle;
    else high = middle;
  }
  return low;
}

/**
 * Ranks, from 1, of the samples between which the true percentile lies with `confidence`, each side erring half of the rest: the
 * distribution-free interval of order statistics (Conover 1999, section 3.2). Null where so few samples have no such bound.
 */
export function intervalRanks(perMille: number, n: number): { low: number | null; high: number | null } {
  const alpha = (1 - confidence) / 2;
  const p = perMille / 1000;
  const under = largestUnder(binomialCdf(n, p), n, alpha);
  const over = largestUnder(binomialCdf(n, 1 - p), n, alpha);
  return { low: under < 0 ? null : under + 1, high: over < 0 ? null : n - over };
}

/**
 * How many of the largest samples may be left out so that the next one is still above the true percentile with `boundConfidence`; -1 when
 * not even the largest is. The early stopping rule of MLPerf's LoadGen.
 */
export const samplesBeyond = (perMille: number, n: number): number =>
  largestUnder(binomialCdf(n, 1 - perMille / 1000), n, 1 - boundConfidence);

/** The smallest number of samples that a percentile needs: 398 for P95, 2,010 for P99, 20,140 for P99.9; as a bound 130, 662, 6,636. */
export function samplesNeeded(perMille: number, kind: keyof typeof beyondNeeded = 'EXACT'): number {
  let low = 0;
  let high = 1;
  while (samplesBeyond(perMille, high) < beyondNeeded[kind]) high *= 2;
  while (low + 1 < high) {
    const middle = Math.floor((low + high) / 2);
    if (samplesBeyond(perMille, middle) < beyondNeeded[kind]) low = middle;
    else high = middle;
  }
  return high;
}

/** A percentile in nanoseconds, as far as the number of samples supports it. */
export interface Percentile {
  /** EXACT: `ns` is the percentile. AT_MOST: `ns` is an upper bound. INSUFFICIENT: there is no number. */
  kind: 'EXACT' | 'AT_MOST' | 'INSUFFICIENT';
  ns: number | null;
  /** Interval of an exact one; null where there are too few samples for that side. */
  lowNs: number | null;
  highNs: number | null;
}

/** `sorted` are latencies in nanoseconds, ascending. */
export function percentileOf(sorted: Float64Array, perMille: number): Percentile {
  const n = sorted.length;
  const at = (rank: number | null): number | null => (rank === null ? null : (sorted[rank - 1] as number));
  const beyond = n === 0 ? -1 : samplesBeyond(perMille, n);
  if (beyond >= beyondNeeded.EXACT) {
    const { low, high } = intervalRanks(perMille, n);
    return { kind: 'EXACT', ns: at(nearestRank(perMille, n)), lowNs: at(low), highNs: at(high) };
  }
  if (beyond >= beyondNeeded.AT_MOST) return { kind: 'AT_MOST', ns: at(n - beyond), lowNs: null, highNs: null };
  return { kind: 'INSUFFICIENT', ns: null, lowNs: null, highNs: null };
}

/** Samples that figures are made from while a benchmark runs: sorting more would take time from the measurement. */
const figuresMax = 2000;

/** What people see while a benchmark runs, without intervals: throughput of all, percentiles of the last samples. */
export function figuresOf(latencyNs: Float64Array, elapsedNs: number, batchSize: number): Record<string, number> {
  const sorted = latencyNs.slice(-figuresMax).sort();
  const at = (perMille: number) => (sorted[nearestRank(perMille, sorted.length) - 1] as number) / 1e6;
  return { itemsPerSecond: (latencyNs.length * batchSize) / (elapsedNs / 1e9), p50Ms: at(percentiles.p50), p95Ms: at(percentiles.p95) };
}

/** Samples of one measurement, in the order of their ends. */
export interface Samples {
  /** How long each inference took. */
  latencyNs: Float64Array;
  /** When each ended, counted from the start of the measurement. */
  endNs: Float64Array;
}

export interface LatencySummary {
  count: number;
  /** From the start of the measurement to the end of its last inference. */
  elapsedNs: number;
  meanNs: number;
  minNs: number;
  maxNs: number;
  /** Items (images) a second: the batch counts as that many. */
  itemsPerSecond: number;
  percentiles: Record<PercentileName, Percentile>;
}

/** Null without samples. `sorted` are the latencies, ascending. */
export function summarizeLatency(
  { latencyNs, endNs }: Samples,
  batchSize: number,
  sorted: Float64Array = latencyNs.toSorted(),
): LatencySummary | null {
  const count = latencyNs.length;
  if (count === 0) return null;
  const elapsedNs = endNs[count - 1] as number;
  const names = Object.keys(percentiles) as PercentileName[];
  return {
    count,
    elapsedNs,
    // Sums of integers below 2⁵³ are exact in any order: 104 days of nanoseconds.
    meanNs: sorted.reduce((sum, ns) => sum + ns, 0) / count,
    minNs: sorted[0] as number,
    maxNs: sorted[count - 1] as number,
    itemsPerSecond: (count * batchSize) / (elapsedNs / 1e9),
    percentiles: Object.fromEntries(names.map((name) => [name, percentileOf(sorted, percentiles[name])])) as LatencySummary['percentiles'],
  };
}

/** Windows at the end of a measurement that must agree. */
export const stableWindows = 5;

/** How long a window is: the shortest measurement has all that must agree. */
export const windowNsOf = ({ secondsMin }: { secondsMin: number }): number => Math.round((secondsMin * 1e9) / stableWindows);

/** A stretch of a measurement. */
export interface Window {
  count: number;
  itemsPerSecond: number;
  p95Ns: number;
}

/**
 * The windows of a measurement. A sample belongs to the window in which it ended. A window lasts from the end of the last sample before it
 * to the end of its own last one: otherwise runs that are long beside a window would make its throughput jump. A window in which nothing
 * ended is left out, and so is the last one when the measurement stopped within it.
 */
export function windowsOf({ latencyNs, endNs }: Samples, batchSize: number, windowNs: number): Window[] {
  const windows: Window[] = [];
  const complete = Math.floor((endNs.at(-1) ?? 0) / windowNs) * windowNs;
  let begunNs = 0;
  for (let from = 0; from < endNs.length; ) {
    const limit = (Math.floor((endNs[from] as number) / windowNs) + 1) * windowNs;
    if (limit > complete) break;
    let to = from;
    while (to < endNs.length && (endNs[to] as number) < limit) to += 1;
    const endedNs = endNs[to - 1] as number;
    const sorted = latencyNs.slice(from, to).sort();
    windows.push({
      count: to - from,
      itemsPerSecond: ((to - from) * batchSize) / ((endedNs - begunNs) / 1e9),
      p95Ns: sorted[nearestRank(percentiles.p95, sorted.length) - 1] as number,
    });
    begunNs = endedNs;
    from = to;
  }
  return windows;
}

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] as number) : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

/** (max - min) / median. */
export const spread = (values: number[]): number => (Math.max(...values) - Math.min(...values)) / median(values);

/** Median slope over all pairs of equally spaced values, per step (Theil 1950, Sen 1968). */
export function theilSen(values: number[]): number {
  const slopes: number[] = [];
  for (let i = 0; i < values.length; i += 1) {
    for (let j = i + 1; j < values.length; j += 1) slopes.push(((values[j] as number) - (values[i] as number)) / (j - i));
  }
  return slopes.length === 0 ? 0 : median(slopes);
}

export interface Stability {
  windows: number;
  /** Of the last five windows. Null with fewer than five. */
  throughputSpread: number | null;
  p95Spread: number | null;
  /** Share by which the throughput has changed from the first window to the last, without its sign. */
  drift: number | null;
}

export function stabilityOf(windows: Window[]): Stability {
  if (windows.length < stableWindows) return { windows: windows.length, throughputSpread: null, p95Spread: null, drift: null };
  const last = windows.slice(-stableWindows);
  const throughputs = windows.map((w) => w.itemsPerSecond);
  return {
    windows: windows.length,
    throughputSpread: spread(last.map((w) => w.itemsPerSecond)),
    p95Spread: spread(last.map((w) => w.p95Ns)),
    drift: (Math.abs(theilSen(throughputs)) * (windows.length - 1)) / median(throughputs),
  };
}
