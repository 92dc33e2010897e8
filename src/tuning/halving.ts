/**
 * Synchronous successive halving inside a generation (Jamieson and Talwalkar 2016): all trials train to the first rung, the best 1/η of them
 * to the next, and so on. Pure.
 */
import { type Direction, type Ranked, rank } from './ranking.ts';

export interface Halving {
  /** The epoch of the first rung. */
  firstEpoch: number;
  /** η: one trial in so many continues at a rung, and the next rung is so many times further. */
  reduction: number;
}

/** The epochs after which trials are compared: before the last one. */
export function rungsOf(halving: Halving | null, epochs: number): number[] {
  const rungs: number[] = [];
  for (let epoch = halving?.firstEpoch ?? epochs; epoch < epochs; epoch *= halving?.reduction ?? 1) rungs.push(epoch);
  return rungs;
}

/** The epoch after which a trial that has done so many stops next; null at the end of its training. */
export const nextStop = (halving: Halving | null, epochs: number, done: number): number | null =>
  rungsOf(halving, epochs).find((rung) => rung > done) ?? null;

/** Those of the trials of a rung that continue. */
export const survivorsOf = <T extends Ranked>(trials: readonly T[], { reduction }: Halving, directions: readonly Direction[]): T[] =>
  rank(trials, directions).slice(0, Math.max(1, Math.floor(trials.length / reduction)));

export interface GenerationWork {
  epochs: number;
  /** Each begins with a process of its own. */
  trainings: number;
}

/** What a generation of so many trials trains at most. */
export function workOfGeneration(halving: Halving | null, epochs: number, trials: number): GenerationWork {
  const work = { epochs: 0, trainings: 0 };
  let [done, left] = [0, trials];
  if (trials === 0) return work;
  for (const stop of [...rungsOf(halving, epochs), epochs]) {
    work.epochs += left * (stop - done);
    work.trainings += left;
    done = stop;
    left = Math.max(1, Math.floor(left / (halving?.reduction ?? 1)));
  }
  return work;
}
