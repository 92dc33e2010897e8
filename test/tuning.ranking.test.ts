import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { nextStop, rungsOf, survivorsOf, workOfGeneration } from '../src/tuning/halving.ts';
import { type Direction, dominates, nonDominated, type Ranked, rank } from '../src/tuning/ranking.ts';

const directions: Direction[] = ['MAXIMIZE', 'MINIMIZE'];
const value = fc.integer({ min: 0, max: 5 });
const trials = fc
  .array(fc.option(fc.tuple(value, value), { freq: 5 }), { maxLength: 30 })
  .map((all): Ranked[] => all.map((values, number) => ({ number, values })));

describe('the Pareto front', () => {
  test('is exactly the trials that no other one beats', () => {
    fc.assert(
      fc.property(trials, (all) => {
        const front = nonDominated(all, directions);
        for (const one of all) {
          const isBeaten = all.some((other) => {
            if (one.values === null || other.values === null) return one.values === null;
            const [a, b] = [other.values, one.values] as [number[], number[]];
            const isNowhereWorse = (a[0] as number) >= (b[0] as number) && (a[1] as number) <= (b[1] as number);
            return isNowhereWorse && (a[0] !== b[0] || a[1] !== b[1]);
          });
          expect(front.includes(one)).toBe(!isBeaten && one.values !== null);
        }
      }),
    );
  });

  test('of one objective is the best and its equals', () => {
    const all = [3, 7, 7, 1].map((top, number) => ({ number, values: [top] }));
    expect(nonDominated(all, ['MAXIMIZE']).map(({ number }) => number)).toEqual([1, 2]);
    expect(nonDominated(all, ['MINIMIZE']).map(({ number }) => number)).toEqual([3]);
  });
});

describe('the order of trials', () => {
  test('has all of them once, none behind one that it beats, and those without values last', () => {
    fc.assert(
      fc.property(trials, (all) => {
        const ranked = rank(all, directions);
        expect([...ranked].sort((a, b) => a.number - b.number)).toEqual(all);
        for (const [place, one] of ranked.entries()) {
          for (const later of ranked.slice(place + 1)) expect(dominates(later, one, directions)).toBe(false);
        }
      }),
    );
  });

  test('of one objective is that of its values, then of the numbers', () => {
    const all = [0.5, 0.9, 0.5, 0.7].map((top, number) => ({ number, values: [top] }));
    expect(rank(all, ['MAXIMIZE']).map(({ number }) => number)).toEqual([1, 3, 0, 2]);
  });

  test('does not depend on the order in which trials have ended', () => {
    const shuffled = trials.chain((all) => fc.tuple(fc.constant(all), fc.shuffledSubarray(all, { minLength: all.length })));
    fc.assert(
      fc.property(shuffled, ([all, other]) => {
        expect(rank(other, directions)).toEqual(rank(all, directions));
      }),
    );
  });
});

describe('halving', () => {
  test('compares after the first epoch times powers of the reduction, before the last epoch', () => {
    expect(rungsOf({ firstEpoch: 1, reduction: 3 }, 10)).toEqual([1, 3, 9]);
    expect(rungsOf({ firstEpoch: 2, reduction: 2 }, 8)).toEqual([2, 4]);
    expect(rungsOf({ firstEpoch: 9, reduction: 3 }, 9)).toEqual([]);
    expect(rungsOf(null, 9)).toEqual([]);
    expect([0, 1, 3, 9].map((done) => nextStop({ firstEpoch: 1, reduction: 3 }, 10, done))).toEqual([1, 3, 9, null]);
  });

  test('keeps at least one, and never one that another one of the rung beats and that is left out', () => {
    fc.assert(
      fc.property(trials, fc.integer({ min: 2, max: 5 }), (all, reduction) => {
        fc.pre(all.length > 0);
        const survivors = survivorsOf(all, { firstEpoch: 1, reduction }, directions);
        expect(survivors.length).toBe(Math.max(1, Math.floor(all.length / reduction)));
        const losers = all.filter((one) => !survivors.includes(one));
        for (const loser of losers) for (const survivor of survivors) expect(dominates(loser, survivor, directions)).toBe(false);
      }),
    );
  });

  test('saves most of the epochs', () => {
    expect(workOfGeneration(null, 9, 9)).toEqual({ epochs: 81, trainings: 9 });
    expect(workOfGeneration({ firstEpoch: 1, reduction: 3 }, 9, 9)).toEqual({ epochs: 9 + 3 * 2 + 6, trainings: 9 + 3 + 1 });
    expect(workOfGeneration(null, 9, 0)).toEqual({ epochs: 0, trainings: 0 });
  });
});
