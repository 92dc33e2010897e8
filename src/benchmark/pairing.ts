/**
 * Comparison of two configurations within rounds. What the machine did in a round met both of them, and drops out of their ratio:
 * otherwise a slow drift or a busy neighbour would hide a difference, or invent one.
 */
import type { RawSamples } from './samples.ts';
import { confidence, nearestRank, percentiles } from './statistics.ts';

/** Of the latencies of one block, in nanoseconds. */
export interface RoundStatistics {
  p50: number;
  p95: number;
  mean: number;
}

/** By the number of the round. */
export type Rounds = ReadonlyMap<number, RoundStatistics>;

/** `ratio` is the geometric mean over the rounds that both have. */
export interface PairedRatio {
  ratio: number;
  low: number;
  high: number;
  rounds: number;
}

/** Fewer say too little about how much a ratio varies. */
const roundsMin = 5;

export function roundsOf({ latencyNs, block }: RawSamples): Rounds {
  const rounds = new Map<number, RoundStatistics>();
  for (let from = 0, to = 0; from < block.length; from = to) {
    while (to < block.length && block[to] === block[from]) to += 1;
    const sorted = latencyNs.slice(from, to).sort();
    const at = (perMille: number) => sorted[nearestRank(perMille, sorted.length) - 1] as number;
    rounds.set(block[from] as number, {
      p50: at(percentiles.p50),
      p95: at(percentiles.p95),
      mean: sorted.reduce((sum, ns) => sum + ns, 0) / sorted.length,
    });
  }
  return rounds;
}

/**
 * How a statistic of `b` relates to that of `a`, with the interval of the paired t-test on its logarithms (Student 1908). Null with fewer
 * than five rounds in common.
 */
export function pairedRatio(a: Rounds, b: Rounds, statistic: keyof RoundStatistics): PairedRatio | null {
  const logarithms = [...a].flatMap(([round, one]) => {
    const other = b.get(round);
    return other ? Math.log(other[statistic] / one[statistic]) : [];
  });
  const n = logarithms.length;
  if (n < roundsMin) return null;
  const mean = logarithms.reduce((sum, x) => sum + x, 0) / n;
  const variance = logarithms.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (n - 1);
  const half = studentQuantile(n - 1) * Math.sqrt(variance / n);
  return { ratio: Math.exp(mean), low: Math.exp(mean - half), high: Math.exp(mean + half), rounds: n };
}

/** Of the standard normal distribution, for two sides that err (1 - `confidence`) / 2 each. */
const normalQuantile = { 0.99: 2.5758293035489 }[confidence];

/** The same of Student's t: the expansion of Abramowitz and Stegun 26.7.5, to 0.3 % from 4 degrees of freedom on. */
function studentQuantile(freedom: number): number {
  const z = normalQuantile;
  const terms = [
    (z ** 3 + z) / 4,
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
    (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92_160,
  ];
  return terms.reduce((sum, term, power) => sum + term / freedom ** (power + 1), z);
}
