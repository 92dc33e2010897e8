import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nowMs } from '../src/inference/clock.ts';
import { LoadTestSpec } from '../src/jobs/specs.ts';
import { arrivalsOf } from '../src/loadTest/arrivals.ts';
import { closedLoop, type Driven, openLoop, RequestRefused, type Target } from '../src/loadTest/drive.ts';
import { highestRateOf, isClientLate, isInDeadline, summarizeRate } from '../src/loadTest/rates.ts';
import { requestsOf } from '../src/loadTest/run.ts';
import { withModelFiles } from './support/inference.ts';
import { type Listening, withHostProcess } from './support/process.ts';

/** Largest distance between the distribution of the gaps and the exponential one of this rate (Kolmogorov and Smirnov). */
function distanceOf(timesMs: Float64Array, perSecond: number): number {
  const gaps = timesMs.map((at, n) => at - (timesMs[n - 1] ?? 0)).sort();
  const distances = gaps.map((gap, n) => {
    const expected = 1 - Math.exp((-perSecond * gap) / 1000);
    return Math.max((n + 1) / gaps.length - expected, expected - n / gaps.length);
  });
  return Math.max(...distances);
}
/** Of a distance that one of 1,000 samples of the distribution exceeds. */
const critical = (count: number): number => 1.95 / Math.sqrt(count);

describe('the times at which requests are due', () => {
  test.each([
    [5, 60, 1],
    [200, 30, 2],
    [3000, 10, 3],
  ])('have the exponential gaps of %i requests a second', (rate, seconds, seed) => {
    const times = arrivalsOf(rate, seconds, seed);
    expect(Math.abs(times.length - rate * seconds)).toBeLessThan(4 * Math.sqrt(rate * seconds));
    expect(distanceOf(times, rate)).toBeLessThan(critical(times.length));
    // The test would see another rate.
    expect(distanceOf(times, 1.5 * rate)).toBeGreaterThan(critical(times.length));
  });

  test('are the same for the same rate and seed, and a longer window begins with those of a shorter one', () => {
    const times = arrivalsOf(50, 10, 7);
    expect(arrivalsOf(50, 10, 7)).toEqual(times);
    expect(arrivalsOf(50, 20, 7).slice(0, times.length)).toEqual(times);
    expect(arrivalsOf(50, 10, 8)).not.toEqual(times);
  });
});

describe('what a rate is worth', () => {
  const driven = (status: number[], latencyMs: number[], lateMs = 0): Driven => {
    const dueMs = Float64Array.from(status, (_, n) => 10 * n);
    return {
      startMs: 0,
      dueMs,
      sentMs: dueMs.map((ms) => ms + lateMs),
      latencyMs: Float64Array.from(latencyMs),
      status: Int16Array.from(status),
    };
  };
  const beside = { clientCores: 0, otherRequests: 0 };
  const window = { rate: 100, seconds: 1, deadlineMs: 50 };
  const many = <T>(count: number, value: T): T[] => new Array<T>(count).fill(value);

  test('counts what was refused as late, whatever the latency of the others', () => {
    const borne = summarizeRate(driven(many(100, 200), many(100, 5)), window, beside);
    expect(borne).toMatchObject({ arrivals: 100, answered: 100, inDeadline: 100 });
    const refused = summarizeRate(driven([...many(98, 200), 429, 504], [...many(98, 5), 1, 50]), { ...window, rate: 200 }, beside);
    expect(refused).toMatchObject({ arrivals: 100, answered: 98, overloaded: 1, expired: 1, failed: 0, inDeadline: 98 });
    expect([isInDeadline(borne), isInDeadline(refused)]).toEqual([true, false]);
    expect(highestRateOf([borne, refused])).toBe(100);
    expect(highestRateOf([refused])).toBeNull();
  });

  test('tells each other end apart, and none of them is an answer', () => {
    const result = summarizeRate(driven([200, 500, 0, 503, -1], [5, 5, Number.NaN, 5, Number.NaN]), window, beside);
    expect(result).toMatchObject({ answered: 1, failed: 2, unavailable: 1, notSent: 1 });
  });

  test('counts an answer after the end of the window by its latency, but not as throughput', () => {
    const result = summarizeRate(driven(many(100, 200), [...many(99, 5), 1000]), window, beside);
    expect(result).toMatchObject({ answered: 100, answeredPerSecond: 99, inDeadline: 99 });
  });

  test('says when the load generator was late', () => {
    const late = (ms: number) => isClientLate(summarizeRate(driven(many(1000, 200), many(1000, 20), ms), window, beside));
    expect([late(0.5), late(1.9), late(2.1)]).toEqual([false, false, true]);
  });
});

describe('requests to an inference host', () => {
  let host: Listening;
  let target: Target;
  let wrongTarget: Target;
  let capacity = 0;
  const deadlineMs = 300;
  const ended = Promise.withResolvers<void>();
  let hosted: Promise<void>;
  let folder = '';

  const requests = (url: string, deadline: number, revision = 1): Target => ({
    url,
    requests: requestsOf(
      LoadTestSpec.parse({
        kind: 'LOAD_TEST',
        specVersion: 1,
        codeVersion: 'test',
        cpuThreads: 1,
        url,
        token: 'none',
        name: 'chain-30',
        revision,
        inputs: [{ name: 'image', datatype: 'FP32', shape: [1, 3, 224, 224] }],
        probe: null,
        rates: null,
        deadlineMs: deadline,
        secondsPerRate: 5,
        seed: 0,
        connections: 4,
        resumeFrom: null,
      }),
    ),
    stopping: () => false,
  });

  beforeAll(async () => {
    const made = await withModelFiles({ models: [{ name: 'chain-30' }] });
    folder = made.folder;
    const config = join(folder, 'models.json');
    writeFileSync(config, JSON.stringify(made.settings));
    const listening = Promise.withResolvers<Listening>();
    hosted = withHostProcess(config, async (running) => {
      listening.resolve(running);
      await ended.promise;
    });
    host = await Promise.race([listening.promise, hosted.then(() => Promise.reject(new Error('The host ended.')))]);
    target = requests(host.url, deadlineMs);
    wrongTarget = requests(host.url, deadlineMs, 2);
    capacity = await closedLoop(requests(host.url, 60_000), { count: 4, warmupMs: 500, ms: 2000 });
    expect(capacity).toBeGreaterThan(0);
  }, 120_000);
  afterAll(async () => {
    ended.resolve();
    await hosted;
    rmSync(folder, { recursive: true, force: true });
  });

  test('are sent at exponential gaps at half of the capacity', async () => {
    // So slowly that a machine which computes other tests keeps up.
    const rate = Math.min(10, capacity / 2);
    const { sentMs, status } = await openLoop(target, arrivalsOf(rate, 60 / rate, 0), 10_000);
    expect(status.filter((one) => one === 200).length).toBeGreaterThan(0);
    expect(distanceOf(sentMs, rate)).toBeLessThan(critical(sentMs.length));
  });

  test('that are due while the host stands still count from when they were due', async () => {
    const stallMs = 1000;
    const rate = Math.min(50, capacity / 2);
    let [stoppedMs, continuedMs] = [0, 0];
    const told = (answered: number) => {
      if (stoppedMs === 0 && answered > 0) {
        host.kill('SIGSTOP');
        stoppedMs = nowMs();
      } else if (continuedMs === 0 && stoppedMs > 0 && nowMs() >= stoppedMs + stallMs) {
        continuedMs = nowMs();
        host.kill('SIGCONT');
      }
    };
    const { startMs, dueMs, latencyMs, status } = await openLoop(
      requests(host.url, 60_000),
      arrivalsOf(rate, 100 / rate + 3, 0),
      30_000,
      told,
    );
    expect(continuedMs).toBeGreaterThan(0);
    const inStall = [...dueMs.keys()].filter(
      (n) => startMs + (dueMs[n] as number) > stoppedMs + 100 && startMs + (dueMs[n] as number) < continuedMs,
    );
    expect(inStall.length).toBeGreaterThan(0);
    for (const n of inStall) {
      expect(status[n]).toBe(200);
      expect(latencyMs[n]).toBeGreaterThanOrEqual(continuedMs - startMs - (dueMs[n] as number));
    }
  });

  test('are refused beyond the capacity, and each is counted', async () => {
    const beside = { clientCores: 0, otherRequests: null };
    // The host may do more than when its capacity was measured, beside other tests.
    for (let [rate, isRefused] = [2 * capacity, false]; !isRefused; rate *= 2) {
      const driven = await openLoop(target, arrivalsOf(rate, 5, 0), 10_000);
      const { arrivals, answered, overloaded, expired, unavailable, failed, notSent } = summarizeRate(
        driven,
        { rate, seconds: 5, deadlineMs },
        beside,
      );
      expect(answered).toBeGreaterThan(0);
      expect(answered + overloaded + expired).toBe(arrivals);
      expect([unavailable, failed, notSent]).toEqual([0, 0, 0]);
      isRefused = overloaded > 0;
    }
  });

  test('that the host finds wrong end the test at once, with its reason', async () => {
    await expect(openLoop(wrongTarget, arrivalsOf(10, 60, 0), 10_000)).rejects.toThrow(/404: .*has no version 2/);
    await expect(closedLoop(wrongTarget, { count: 2, warmupMs: 0, ms: 60_000 })).rejects.toThrow(RequestRefused);
  });
});
