/**
 * How far a statistic moves when the blocks of a measurement (its rounds) are drawn again with replacement: the percentile bootstrap of
 * Efron (1979) over blocks. Samples within a round are alike. What the machine did from one round to the next is what makes two
 * measurements differ, and samples drawn one by one would hide it.
 */
import type { RawSamples } from './samples.ts';
import { confidence, nearestRank } from './statistics.ts';

export interface Interval {
  low: number;
  high: number;
}

const resamples = 1000;
/** Fewer blocks say too little about the machine. */
const blocksMin = 5;
/** Of more samples every k-th in order of latency stands for its neighbours: 0.02 % of the ranks. */
const rankedMax = 5000;

/** The indices of the samples in order of latency. To sort two million of them takes half a second. */
export const orderOf = ({ latencyNs }: RawSamples): Uint32Array =>
  Uint32Array.from(latencyNs.keys()).sort((a, b) => (latencyNs[a] as number) - (latencyNs[b] as number));

/**
 * Intervals of the mean latency and of each percentile (in thousandths), in nanoseconds. Null with fewer than five blocks. `order` is that of
 * `orderOf`.
 */
export function blockIntervals(
  { latencyNs, block }: RawSamples,
  perMilles: readonly number[],
  order: Uint32Array,
): { mean: Interval; percentiles: Interval[] } | null {
  const blockIndices = new Map([...new Set(block)].map((id, index) => [id, index]));
  const blocks = blockIndices.size;
  if (blocks < blocksMin) return null;
  const blockOf = (i: number) => blockIndices.get(block[i] as number) as number;
  const sums = new Float64Array(blocks);
  const counts = new Float64Array(blocks);
  for (let i = 0; i < latencyNs.length; i += 1) {
    const index = blockOf(i);
    sums[index] = (sums[index] as number) + (latencyNs[i] as number);
    counts[index] = (counts[index] as number) + 1;
  }
  const stride = Math.ceil(latencyNs.length / rankedMax);
  const ranked = order.filter((_, rank) => rank % stride === 0);
  const rankedBlocks = ranked.map(blockOf);

  const means = new Float64Array(resamples);
  const found = perMilles.map(() => new Float64Array(resamples));
  const random = randomNumbers();
  for (let n = 0; n < resamples; n += 1) {
    const weights = new Uint32Array(blocks);
    for (let drawn = 0; drawn < blocks; drawn += 1) {
      const index = random() % blocks;
      weights[index] = (weights[index] as number) + 1;
    }
    const weighted = (values: Float64Array) => values.reduce((sum, value, index) => sum + value * (weights[index] as number), 0);
    means[n] = weighted(sums) / weighted(counts);
    const total = rankedBlocks.reduce((sum, index) => sum + (weights[index] as number), 0);
    for (const [p, perMille] of perMilles.entries()) {
      const rank = nearestRank(perMille, total);
      let at = 0;
      for (let below = weights[rankedBlocks[0] as number] as number; below < rank; below += weights[rankedBlocks[at] as number] as number)
        at += 1;
      (found[p] as Float64Array)[n] = latencyNs[ranked[at] as number] as number;
    }
  }
  return { mean: intervalOf(means), percentiles: found.map(intervalOf) };
}

function intervalOf(values: Float64Array): Interval {
  const sorted = values.toSorted();
  const beyond = Math.floor(((1 - confidence) / 2) * resamples);
  return { low: sorted[beyond] as number, high: sorted[resamples - 1 - beyond] as number };
}

/** The same 32-bit numbers in every process, so that a report can be made again: xorshift (Marsaglia 2003). */
function randomNumbers(): () => number {
  let state = 0x9e3779b9;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}
