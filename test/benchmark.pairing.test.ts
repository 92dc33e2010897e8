/** Machines whose truth is known: how often the comparison of rounds, and the choice, are right. */
import { describe, expect, test } from 'vitest';
import { contestOf } from '../src/benchmark/contest.ts';
import { pairedRatio, type Rounds, roundsOf, signedRankBeyond } from '../src/benchmark/pairing.ts';
import { shuffled } from '../src/benchmark/run.ts';
import { percentileOf } from '../src/benchmark/statistics.ts';
import { benchmarkProfiles } from '../src/jobs/specs.ts';
import { choose } from '../src/reports/choice.ts';
import type { Measured, ReportRow } from '../src/reports/report.ts';

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

/** What a machine does to a block that begins at this moment, in seconds: how much longer everything takes, and whether it says so. */
type Machine = (random: () => number) => (atSeconds: number, row: number) => number | { told: number };
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
  'with a neighbour that half of the time slows down all rows but the first, as the system tells': (random) => (_at, row) =>
    row > 0 && random() < 0.55 ? { told: 1.5 + random() } : 1,
};

const { blockSeconds, secondsMin, secondsMax, samplesWanted, precision } = benchmarkProfiles.QUICK;

interface Simulated {
  rounds: Rounds[];
  latencies: number[][];
}

/**
 * What the profile QUICK measures of configurations that truly take so many milliseconds, one inference after the other: latencies with a
 * heavy tail, as many rounds as the contest asks for.
 */
function measured(machine: Machine, latenciesMs: number[], seed: number, random: () => number): Simulated {
  const slowdown = machine(random);
  const latencies = latenciesMs.map((): number[] => []);
  const rounds = latenciesMs.map(() => new Map());
  const contenders = rounds.map((of, n) => ({
    n,
    model: 0,
    engine: 'ONNXRUNTIME_CPU' as const,
    batchSize: 1,
    intraOpThreads: n + 1,
    instances: 1,
    rounds: of,
  }));
  let at = 0;
  for (let round = 0; round < secondsMax / blockSeconds; round += 1) {
    const contest = contestOf(contenders, 'LATENCY', precision);
    const left = contenders.filter(
      ({ n, rounds: { size } }) =>
        size * blockSeconds < secondsMin ||
        (!contest.beaten.has(n) && (contest.open.has(n) || (latencies[n]?.length ?? 0) < samplesWanted)),
    );
    for (const { n } of shuffled(left, seed, round)) {
      const met = slowdown(at, n);
      const [slower, disturbed] = typeof met === 'number' ? [met, []] : [met.told, [round]];
      const factor = slower * (latenciesMs[n] as number) * 1e6;
      at += blockSeconds;
      const block: number[] = [];
      for (let elapsedNs = 0; elapsedNs < blockSeconds * 1e9; ) {
        const spread = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
        const ns = factor * Math.exp(0.06 * Math.abs(spread)) * (random() < 0.02 ? 1 + 2 * random() : 1);
        elapsedNs += ns;
        block.push(ns);
      }
      latencies[n]?.push(...block);
      const latencyNs = Float64Array.from(block);
      for (const [number, found] of roundsOf({ latencyNs, endNs: latencyNs, block: latencyNs.map(() => round) }, disturbed))
        rounds[n]?.set(number, found);
    }
  }
  return { rounds, latencies };
}

/** The row that a report recommends. */
function chosen({ rounds, latencies }: Simulated): number | null {
  const rows = latencies.map((all, n) => ({
    n,
    model: 0,
    engine: 'ONNXRUNTIME_CPU',
    batchSize: 1,
    intraOpThreads: n + 1,
    instances: 1,
    verdict: 'UNSTABLE',
    samples: { count: all.length },
    latency: { p95: percentileOf(Float64Array.from(all).sort(), 950) },
  }));
  const facts = { models: [{}], rows: rows as unknown as ReportRow[], request: { target: 'LATENCY', accuracyDropMax: 0 } };
  return choose({ ...facts, rounds: new Map(rounds.entries()) } as unknown as Measured).n;
}

const shareOf = <T>(cases: T[], is: (one: T) => unknown): number => cases.filter(is).length / cases.length;

describe.each(Object.entries(machines))('on a machine %s, in 1,000 cases', (_name, machine) => {
  const cases = Array.from({ length: 1000 }, (_, seed) => {
    const random = randomNumbers(seed);
    const truths = [10, 10, ...Array.from({ length: 3 }, () => 8 + 4 * random())];
    const found = measured(machine, truths, seed, random);
    const [a, twin, b] = found.rounds as [Rounds, Rounds, Rounds];
    const n = chosen(found);
    return {
      lost: n === null ? Number.POSITIVE_INFINITY : (truths[n] as number) / Math.min(...truths) - 1,
      truth: (truths[2] as number) / 10,
      ratio: pairedRatio(a, b, 'p95'),
      twins: pairedRatio(a, twin, 'p50'),
    };
  });

  test('the recommended row is within 3 % of the truly best in 95 of 100 or more', () => {
    expect(shareOf(cases, ({ lost }) => lost <= 0.03)).toBeGreaterThanOrEqual(0.95);
  });

  test('90 to 98 of 100 intervals of a ratio hold the truth', () => {
    const held = shareOf(cases, ({ truth, ratio }) => ratio && ratio.low <= truth && truth <= ratio.high);
    expect([held, held >= 0.9 && held <= 0.98]).toEqual([held, true]);
  });

  test('two that are the same seem to differ in 5 of 100 or fewer', () => {
    expect(
      shareOf(cases, ({ twins }) => twins && (twins.low > 1 || twins.high < 1) && Math.abs(twins.ratio - 1) >= 0.03),
    ).toBeLessThanOrEqual(0.05);
  });
});

const of = (values: number[]): Rounds => new Map(values.map((value, round) => [round, { p50: value, p95: value, mean: value }]));

test('an interval leaves out as many ranks as a table of Wilcoxon’s signed-rank test has it, for 5 % on two sides', () => {
  expect([6, 7, 8, 10, 12, 15, 20, 25, 30, 50].map(signedRankBeyond)).toEqual([0, 2, 3, 8, 13, 25, 52, 89, 137, 434]);
});

test('a ratio is the median of the means of all pairs of rounds, and needs six rounds', () => {
  const ones = [1, 1, 1, 1, 1, 1];
  const found = pairedRatio(of(ones), of([1.1, 1.2, 1.3, 1.4, 1.5, 9]), 'p50');
  expect(found).toMatchObject({ low: expect.closeTo(1.1, 9), high: expect.closeTo(9, 9), rounds: 6 });
  expect(found?.ratio).toBeCloseTo(Math.sqrt(Math.sqrt(1.2 * 1.5) * 1.4), 1);
  expect(pairedRatio(of(ones.slice(1)), of(ones.slice(1)), 'p50'), 'of five rounds').toBeNull();
});

test('rounds in which one of the two was disturbed are left out where six are left', () => {
  const met = (values: number[], disturbed: number[]): Rounds =>
    new Map([...of(values)].map(([round, found]) => [round, { ...found, disturbed: disturbed.includes(round) }]));
  const a = met([1, 1, 1, 1, 1, 1, 1, 1], [7]);
  const b = met([2, 2, 2, 2, 2, 2, 9, 2], [6]);
  expect(pairedRatio(a, b, 'p50')).toMatchObject({ low: expect.closeTo(2, 9), high: expect.closeTo(2, 9), rounds: 6, leftOut: 2 });
  expect(pairedRatio(a, met([2, 2, 2, 2, 2, 2, 9, 2], [5, 6]), 'p50'), 'five are left').toMatchObject({ rounds: 8, leftOut: 0 });
});

describe('a configuration', () => {
  const contender = (n: number, values: number[], batchSize = 1) => ({
    n,
    model: 0,
    engine: 'ONNXRUNTIME_CPU' as const,
    batchSize,
    intraOpThreads: batchSize > 1 ? 1 : n + 1,
    instances: 1,
    rounds: of(values),
  });
  const wild = [9, 15, 8, 14, 9, 16, 10];
  const steady = [10, 10, 10, 10, 10, 10, 10];

  test('whose rounds contradict each other is measured for longer, together with the best one', () => {
    const { open, beaten } = contestOf([contender(0, steady), contender(1, wild)], 'LATENCY', 0.05);
    expect([[...open].sort(), [...beaten]]).toEqual([[0, 1], []]);
  });

  test('that takes 30 % more beyond doubt is not, nor are two that are told apart, nor a larger batch where latency counts', () => {
    const contest = contestOf(
      [
        contender(0, steady),
        contender(
          1,
          steady.map((x) => 1.4 * x),
        ),
        contender(
          2,
          steady.map((x) => 1.1 * x),
        ),
        contender(3, wild, 4),
      ],
      'LATENCY',
      0.05,
    );
    expect([[...contest.open], [...contest.beaten].sort()]).toEqual([[], [1, 3]]);
  });

  test('of a larger batch contends for the throughput', () => {
    const { open, beaten } = contestOf(
      [
        contender(0, steady),
        contender(
          3,
          wild.map((x) => 4 * x),
          4,
        ),
      ],
      'THROUGHPUT',
      0.05,
    );
    expect([[...open].sort(), [...beaten]]).toEqual([[0, 3], []]);
  });
});
