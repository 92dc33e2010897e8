import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeSamples, encodeSamples, type RawSamples } from '../src/benchmark/samples.ts';
import {
  binomialCdf,
  confidence,
  intervalRanks,
  median,
  nearestRank,
  type PercentileName,
  percentileOf,
  percentiles,
  samplesBeyond,
  samplesNeeded,
  spread,
  stabilityOf,
  summarizeLatency,
  theilSen,
  windowsOf,
} from '../src/benchmark/statistics.ts';
import { withFolder } from './support/server.ts';

const perMille = fc.constantFrom(...Object.values(percentiles));

/** Samples of a single stream: latencies with pauses in between. */
const runs = (minLength = 1, maxLength = 3000) =>
  fc
    .array(fc.tuple(fc.integer({ min: 1, max: 50_000_000 }), fc.integer({ min: 0, max: 100_000 })), { minLength, maxLength })
    .map(samplesOf);

function samplesOf(steps: [latency: number, pause: number][]): RawSamples {
  let end = 0;
  const ends = steps.map(([latency, pause]) => {
    end += latency + pause;
    return end;
  });
  return {
    latencyNs: Float64Array.from(steps, ([latency]) => latency),
    endNs: Float64Array.from(ends),
    block: Float64Array.from(ends, (ns) => Math.floor(ns / 1e9)),
  };
}

/** P(X ≤ k) from Pascal's triangle in integers, for p in thousandths. */
function exactCdf(n: number, perMilleP: number, k: number): number {
  const [p, q] = [BigInt(perMilleP), BigInt(1000 - perMilleP)];
  let choose = 1n;
  let sum = 0n;
  for (let i = 0; i <= k; i += 1) {
    sum += choose * p ** BigInt(i) * q ** BigInt(n - i);
    choose = (choose * BigInt(n - i)) / BigInt(i + 1);
  }
  return Number((sum * 10n ** 18n) / 1000n ** BigInt(n)) / 1e18;
}

describe('a percentile', () => {
  test('is the smallest sample that the share is at or below', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 99 }), { minLength: 1, maxLength: 200 }), perMille, (values, p) => {
        const sorted = values.toSorted((a, b) => a - b);
        const rank = nearestRank(p, sorted.length);
        expect(rank * 1000).toBeGreaterThanOrEqual(p * sorted.length);
        expect((rank - 1) * 1000).toBeLessThan(p * sorted.length);
      }),
    );
  });

  test('has a rank without rounding errors', () => {
    for (let n = 1; n <= 20_000; n += 1) {
      for (const p of Object.values(percentiles)) expect(nearestRank(p, n)).toBe(Number((BigInt(p) * BigInt(n) + 999n) / 1000n));
    }
  });

  test('needs the numbers of samples that LoadGen asks for, at 99 % confidence', () => {
    const needed = Object.entries(percentiles).map(([name, p]) => [name, samplesNeeded(p), samplesNeeded(p, 'AT_MOST')]);
    expect(needed).toEqual([
      ['p50', 35, 11],
      ['p95', 398, 130],
      ['p99', 2010, 662],
      ['p999', 20_140, 6636],
    ]);
  });

  test.each([
    [661, 'INSUFFICIENT', null],
    // One larger sample may be left out: the second largest of 1 to n.
    [662, 'AT_MOST', 661],
    [2009, 'AT_MOST', 2000],
    [2010, 'EXACT', 1990],
  ])('P99 of %i samples is %s', (n, kind, ns) => {
    expect(
      percentileOf(
        Float64Array.from({ length: n }, (_, i) => i + 1),
        percentiles.p99,
      ),
    ).toMatchObject({ kind, ns });
  });

  test('lies in its interval', () => {
    fc.assert(
      fc.property(runs(400), ({ latencyNs }) => {
        const { ns, lowNs, highNs } = percentileOf(latencyNs.toSorted(), percentiles.p95);
        expect(lowNs).toBeLessThanOrEqual(ns as number);
        expect(highNs).toBeGreaterThanOrEqual(ns as number);
      }),
      { numRuns: 30 },
    );
  });
});

describe('binomial ranks', () => {
  test('come from the exact distribution', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 120 }), fc.integer({ min: 1, max: 999 }), fc.nat(), (n, p, at) => {
        const k = at % (n + 1);
        expect(binomialCdf(n, p / 1000)(k)).toBeCloseTo(exactCdf(n, p, k), 12);
      }),
    );
  });

  test('cover the true percentile with the confidence, and no narrower ones do on their side', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 400 }), perMille, (n, p) => {
        const { low, high } = intervalRanks(p, n);
        const alpha = (1 - confidence) / 2 + 1e-12;
        // The true percentile is below sample `low` when fewer than `low` samples are.
        if (low !== null) expect(exactCdf(n, p, low - 1)).toBeLessThanOrEqual(alpha);
        expect(exactCdf(n, p, low ?? 0)).toBeGreaterThan(alpha - 2e-12);
        if (high !== null) expect(1 - exactCdf(n, p, high - 1)).toBeLessThanOrEqual(alpha);
        expect(1 - exactCdf(n, p, (high ?? n + 1) - 2)).toBeGreaterThan(alpha - 2e-12);
      }),
      { numRuns: 60 },
    );
  });

  test('stay exact for millions of samples', () => {
    const n = 2_000_000;
    const { low, high } = intervalRanks(percentiles.p99, n);
    // The normal approximation is good there: 1.96 standard deviations of 140.7.
    expect(low).toBeGreaterThan(0.99 * n - 280);
    expect(low).toBeLessThan(0.99 * n - 272);
    expect(high).toBeGreaterThan(0.99 * n + 272);
    expect(high).toBeLessThan(0.99 * n + 280);
    expect(samplesBeyond(percentiles.p99, n)).toBeLessThan(0.01 * n);
  });
});

describe('a summary', () => {
  test('is the same whatever the order of the latencies, and counts the whole time', () => {
    fc.assert(
      fc.property(runs(), fc.integer({ min: 1, max: 64 }), (samples, batchSize) => {
        const summary = summarizeLatency(samples, batchSize);
        expect(summarizeLatency({ ...samples, latencyNs: samples.latencyNs.toReversed() }, batchSize)).toEqual(summary);
        expect(summary?.itemsPerSecond).toBe((samples.latencyNs.length * batchSize) / ((samples.endNs.at(-1) as number) / 1e9));
        expect(summary?.minNs).toBeLessThanOrEqual(summary?.meanNs as number);
        expect(summary?.maxNs).toBeGreaterThanOrEqual(summary?.meanNs as number);
      }),
      { numRuns: 50 },
    );
  });

  test('of no samples is none', () => {
    expect(summarizeLatency(samplesOf([]), 1)).toBeNull();
  });

  test('is what NumPy makes of the stored file', async () => {
    const sizes = [1, 10, 11, 35, 129, 130, 398, 661, 662, 2009, 2010, 20_140, 60_000];
    const random = fc.sample(
      fc.array(fc.double({ min: 0.001, max: 1, noNaN: true }), { minLength: 60_000, maxLength: 60_000, size: 'max' }),
      { seed: 1, numRuns: 1 },
    );
    await withFolder(async (folder) => {
      const all = sizes.map((n) => samplesOf((random[0] as number[]).slice(0, n).map((x) => [Math.ceil(1e7 * x * x), 700])));
      const files = all.map((samples, i) => {
        const file = join(folder, `${i}.bin`);
        writeFileSync(file, encodeSamples(samples));
        return file;
      });
      const python = join(import.meta.dirname, '..', 'trainer', '.venv', 'bin', 'python');
      const script = join(import.meta.dirname, 'support', 'statistics.py');
      const lines = execFileSync(python, ['-P', script, '8', ...files], { encoding: 'utf8' })
        .trim()
        .split('\n');
      for (const [i, line] of lines.entries()) {
        const found = JSON.parse(line);
        const summary = summarizeLatency(all[i] as RawSamples, 8);
        expect(found.count).toBe(summary?.count);
        expect(found.mean).toBeCloseTo(summary?.meanNs as number, 6);
        expect(found.itemsPerSecond).toBe(summary?.itemsPerSecond);
        for (const name of Object.keys(percentiles) as PercentileName[]) {
          const { kind, ns, lowNs, highNs } = (summary as NonNullable<typeof summary>).percentiles[name];
          expect([kind, ns, lowNs, highNs], `${name} of ${summary?.count}`).toEqual(found.percentiles[percentiles[name]]);
        }
      }
      expect(lines).toHaveLength(sizes.length);
    });
  });
});

describe('windows', () => {
  const even = (latencies: number[]) => samplesOf(latencies.map((ns) => [ns, 0]));

  test('hold each sample of a complete window once, and their throughputs are those of the whole', () => {
    fc.assert(
      fc.property(runs(), fc.integer({ min: 1_000_000, max: 2e9 }), (samples, windowNs) => {
        const windows = windowsOf(samples, 3, windowNs);
        const complete = Math.floor((samples.endNs.at(-1) as number) / windowNs) * windowNs;
        const held = samples.endNs.filter((ns) => ns < complete).length;
        expect(windows.reduce((sum, w) => sum + w.count, 0)).toBe(held);
        const elapsedNs = windows.reduce((sum, w) => sum + (1e9 * 3 * w.count) / w.itemsPerSecond, 0);
        expect(elapsedNs).toBeCloseTo(samples.endNs[held - 1] ?? 0, 0);
      }),
      { numRuns: 50 },
    );
  });

  test('of a steady speed are all alike, though an inference does not fit a whole number of times', () => {
    const windows = windowsOf(even(Array.from({ length: 40 }, () => 270)), 1, 1000);
    expect(windows.map((w) => Math.round(w.itemsPerSecond))).toEqual(windows.map(() => Math.round(1e9 / 270)));
    expect(stabilityOf(windows)).toMatchObject({ windows: 10, p95Spread: 0 });
    expect(stabilityOf(windows).throughputSpread).toBeLessThan(1e-9);
  });

  test('in which nothing ended are left out', () => {
    expect(windowsOf(even([100, 5000, 100, 100, 5000]), 1, 1000).map((w) => w.count)).toEqual([1, 3]);
  });

  test('are judged by the last five, and fewer are too few', () => {
    const window = (itemsPerSecond: number, p95Ns: number) => ({ count: 1, itemsPerSecond, p95Ns });
    const calm = [window(100, 10), window(102, 10), window(98, 10), window(100, 11), window(100, 10)];
    expect(stabilityOf(calm)).toEqual({ windows: 5, throughputSpread: 0.04, p95Spread: 0.1, drift: 0 });
    expect(stabilityOf([window(1, 99), ...calm])).toMatchObject({ windows: 6, throughputSpread: 0.04, p95Spread: 0.1 });
    expect(stabilityOf(calm.slice(1))).toEqual({ windows: 4, throughputSpread: null, p95Spread: null, drift: null });
  });

  test('show a drift that each pair of neighbours hides', () => {
    const windows = Array.from({ length: 20 }, (_, i) => ({ count: 1, itemsPerSecond: 100 - i, p95Ns: 1 }));
    expect(stabilityOf(windows).drift).toBeCloseTo(19 / 90.5, 12);
  });
});

test('Theil–Sen finds the slope of a line, with two of twelve values wrong', () => {
  fc.assert(
    fc.property(fc.integer({ min: -50, max: 50 }), fc.integer({ min: -50, max: 50 }), fc.nat(2), (slope, start, first) => {
      const line = Array.from({ length: 12 }, (_, x) => start + slope * x);
      expect(theilSen(line)).toBe(slope);
      line[first] = 1e6;
      line[first + 5] = -1e6;
      expect(theilSen(line)).toBeCloseTo(slope, 6);
    }),
  );
  expect(theilSen([7])).toBe(0);
});

test('median and spread', () => {
  expect([median([3, 1, 2]), median([4, 1, 2, 3]), spread([95, 100, 105])]).toEqual([2, 2.5, 0.1]);
});

test('a samples file gives back what was written, and refuses what is not whole', () => {
  fc.assert(
    fc.property(runs(0, 100), (samples) => {
      expect(decodeSamples(encodeSamples(samples))).toEqual(samples);
    }),
  );
  expect(() => decodeSamples(new Uint8Array(25))).toThrow('not whole');
});
