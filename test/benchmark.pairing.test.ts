/** Machines whose truth is known: how often the comparison of rounds is right about two configurations. */
import { describe, expect, test } from 'vitest';
import { pairedRatio, type Rounds, roundsOf } from '../src/benchmark/pairing.ts';
import { shuffled } from '../src/benchmark/run.ts';

/** Uniform numbers from 0 to 1, the same for the same seed: mulberry32. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What a machine does to a block that begins at this moment, in seconds: how much longer everything takes. */
type Machine = (random: () => number) => (atSeconds: number) => number;
const machines: Record<string, Machine> = {
  steady: () => () => 1,
  'of a speed that drifts by 20 % in a minute': (random) => {
    const phase = 2 * Math.PI * random();
    return (at) => 1 + 0.2 * Math.sin((2 * Math.PI * at) / 60 + phase);
  },
  'of two speeds': (random) => {
    let slow = random() < 0.5;
    return () => {
      if (random() < 0.1) slow = !slow;
      return slow ? 1.3 : 1;
    };
  },
  'with a neighbour that takes half of it now and then': (random) => () => (random() < 0.15 ? 1.5 + random() : 1),
};

const rounds = 10;
const samplesPerBlock = 40;

/** Rounds of configurations that truly take so many milliseconds, on a machine, with latencies that have a heavy tail. */
function measured(machine: Machine, latenciesMs: number[], seed: number, random: () => number): Rounds[] {
  const slowdown = machine(random);
  const samples = latenciesMs.map(() => ({ latencyNs: [] as number[], endNs: [] as number[], block: [] as number[] }));
  let at = 0;
  for (let round = 0; round < rounds; round += 1) {
    const cells = latenciesMs.map((latencyMs, n) => ({ n, latencyMs }));
    for (const { n, latencyMs } of shuffled(cells, seed, round)) {
      const factor = slowdown(at);
      at += 1;
      for (let i = 0; i < samplesPerBlock; i += 1) {
        const tail = random() < 0.05 ? 1 + 2 * random() : 1;
        samples[n]?.latencyNs.push(latencyMs * 1e6 * factor * tail * (0.97 + 0.06 * random()));
        samples[n]?.endNs.push(0);
        samples[n]?.block.push(round);
      }
    }
  }
  return samples.map(({ latencyNs, endNs, block }) =>
    roundsOf({ latencyNs: Float64Array.from(latencyNs), endNs: Float64Array.from(endNs), block: Float64Array.from(block) }),
  );
}

describe.each(Object.entries(machines))('on a machine %s', (_name, machine) => {
  const cases = Array.from({ length: 1000 }, (_, seed) => {
    const random = randomNumbers(seed);
    const truth = 0.8 + 0.4 * random();
    const [a, b, twin] = measured(machine, [10, 10 * truth, 10], seed, random) as [Rounds, Rounds, Rounds];
    return { truth, found: pairedRatio(a, b, 'p50'), same: pairedRatio(a, twin, 'p50') };
  });

  test('99 of 100 intervals of the ratio hold the truth, more or less', () => {
    const held = cases.filter(({ truth, found }) => found && found.low <= truth && truth <= found.high).length;
    expect(held).toBeGreaterThanOrEqual(970);
  });

  test('of two that are the same, at most 1 in 50 seem to differ', () => {
    const apart = cases.filter(({ same }) => same && (same.low > 1 || same.high < 1) && Math.abs(same.ratio - 1) >= 0.03).length;
    expect(apart).toBeLessThanOrEqual(20);
  });
});

test('an interval is what the paired t-test gives: with ratios of 1.1 to 1.5 in five rounds', () => {
  const of = (values: number[]): Rounds => new Map(values.map((value, round) => [round, { p50: value, p95: value, mean: value }]));
  const found = pairedRatio(of([1, 1, 1, 1, 1]), of([1.1, 1.2, 1.3, 1.4, 1.5]), 'p50');
  // The mean of the logarithms ± 4.6041 standard errors, as a table of Student's t has it for 4 degrees of freedom.
  expect(found).toEqual({ ratio: expect.closeTo(1.29225, 5), low: expect.closeTo(1.004, 2), high: expect.closeTo(1.6633, 2), rounds: 5 });
  expect(pairedRatio(of([1, 1, 1, 1]), of([1, 1, 1, 1]), 'p50'), 'of four rounds').toBeNull();
});
