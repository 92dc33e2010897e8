/**
 * Comparison of two configurations within rounds. What the machine did in a round met both of them, and drops out of their ratio:
 * otherwise a slow drift or a busy neighbour would hide a difference, or invent one.
 */
import type { RawSamples } from './samples.ts';
import { confidence, nearestRank, percentiles } from './statistics.ts';

/** Of the latencies of one block, in nanoseconds. */
export type RoundStatistics = Record<Statistic, number> & {
  /** Whether something else took the processor from it (`noise.ts`). */
  disturbed?: boolean;
};
export type Statistic = 'p50' | 'p95' | 'mean';

/** By the number of the round. */
export type Rounds = ReadonlyMap<number, RoundStatistics>;

/** With its interval. */
export interface Ratio {
  ratio: number;
  low: number;
  high: number;
}

/** `ratio` is the typical one of `rounds` rounds that both have; `leftOut` others were disturbed. */
export interface PairedRatio extends Ratio {
  rounds: number;
  leftOut: number;
}

/** Five rounds have no interval of 95 %: all of them are on one side in 1 of 16 cases by chance. */
const roundsMin = 6;

/** `disturbed`: the numbers of the rounds in which something else took the processor. */
export function roundsOf({ latencyNs, block }: RawSamples, disturbed: readonly number[] = []): Rounds {
  const rounds = new Map<number, RoundStatistics>();
  for (let from = 0, to = 0; from < block.length; from = to) {
    while (to < block.length && block[to] === block[from]) to += 1;
    const sorted = latencyNs.slice(from, to).sort();
    const at = (perMille: number) => sorted[nearestRank(perMille, sorted.length) - 1] as number;
    rounds.set(block[from] as number, {
      p50: at(percentiles.p50),
      p95: at(percentiles.p95),
      mean: sorted.reduce((sum, ns) => sum + ns, 0) / sorted.length,
      disturbed: disturbed.includes(block[from] as number),
    });
  }
  return rounds;
}

/**
 * How a statistic of `b` relates to that of `a`: the median of the means of all pairs of the rounds' logarithms (Hodges and Lehmann 1963),
 * with the interval of Wilcoxon's signed-rank test (1945). A round in which a neighbour met one of the two moves it no more than any other
 * round. Rounds in which one of the two is known to have been disturbed are left out where six others are left: a neighbour meets
 * configurations of more threads harder, so that half of all rounds with one would tell about the neighbour. Null with fewer than six rounds in common.
 */
export function pairedRatio<S extends Statistic>(
  a: ReadonlyMap<number, Pick<RoundStatistics, S | 'disturbed'>>,
  b: ReadonlyMap<number, Pick<RoundStatistics, S | 'disturbed'>>,
  statistic: S,
): PairedRatio | null {
  const common = [...a].flatMap(([round, one]) => {
    const other = b.get(round);
    return other ? { logarithm: Math.log(other[statistic] / one[statistic]), disturbed: one.disturbed || other.disturbed } : [];
  });
  const quiet = common.filter(({ disturbed }) => !disturbed);
  const used = quiet.length < roundsMin ? common : quiet;
  const logarithms = used.map(({ logarithm }) => logarithm);
  const n = logarithms.length;
  if (n < roundsMin) return null;
  const means = Float64Array.from(logarithms.flatMap((x, i) => logarithms.slice(i).map((y) => (x + y) / 2))).sort();
  const last = means.length - 1;
  const beyond = signedRankBeyond(n);
  const at = (index: number) => means[index] as number;
  const middle = (at(last >> 1) + at((last + 1) >> 1)) / 2;
  return { ratio: Math.exp(middle), low: Math.exp(at(beyond)), high: Math.exp(at(last - beyond)), rounds: n, leftOut: common.length - n };
}

/** What computes at the same time: so many instances, each a batch of so many items. */
type AtOnce = Record<'batchSize' | 'instances', number>;

/** A ratio of the times of two batches as that of one item (image) of each, where each configuration always computes with all its instances. */
export const perItem = ({ ratio, low, high, ...found }: PairedRatio, of: AtOnce, to: AtOnce): PairedRatio => {
  const items = (to.batchSize * to.instances) / (of.batchSize * of.instances);
  return { ...found, ratio: ratio * items, low: low * items, high: high * items };
};

const beyonds = new Map<number, number>();

/** The largest sum of the ranks of one side among `n` that is as rare as the interval may err on that side: 0 for 6, 3 for 8, 52 for 20. */
export function signedRankBeyond(n: number): number {
  const known = beyonds.get(n);
  if (known !== undefined) return known;
  // How likely each sum is, where every rank is on this side with one half.
  const likely = new Float64Array((n * (n + 1)) / 2 + 1);
  likely[0] = 1;
  for (let rank = 1; rank <= n; rank += 1) {
    for (let sum = likely.length - 1; sum >= 0; sum -= 1) {
      likely[sum] = ((likely[sum] as number) + (sum >= rank ? (likely[sum - rank] as number) : 0)) / 2;
    }
  }
  let beyond = -1;
  for (let total = likely[0] as number; total <= (1 - confidence) / 2; total += likely[beyond + 1] as number) beyond += 1;
  beyonds.set(n, beyond);
  return beyond;
}
