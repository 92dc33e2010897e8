/** Which trials are better, by one objective or several. Pure: values are those of the objectives, null is worse than any. */

export type Direction = 'MAXIMIZE' | 'MINIMIZE';

export interface Ranked {
  number: number;
  values: number[] | null;
}

/** Whether `a` is nowhere worse than `b`, and better in one objective. */
export function dominates(a: Ranked, b: Ranked, directions: readonly Direction[]): boolean {
  if (a.values === null || b.values === null) return a.values !== null && b.values === null;
  return beats(gainsOf(a, directions), gainsOf(b, directions));
}

/** Larger is better. */
const gainOf = ({ values }: Ranked, objective: number, direction: Direction): number => {
  const value = values?.[objective] ?? Number.NaN;
  return direction === 'MAXIMIZE' ? value : -value;
};

const gainsOf = (one: Ranked, directions: readonly Direction[]): number[] => directions.map((direction, n) => gainOf(one, n, direction));

function beats(a: readonly number[], b: readonly number[]): boolean {
  let isBetter = false;
  for (let n = 0; n < a.length; n += 1) {
    const [gain, other] = [a[n] as number, b[n] as number];
    if (gain < other) return false;
    isBetter ||= gain > other;
  }
  return isBetter;
}

/** The trials that no other one dominates, in the order of `trials`; none of those that have no values. */
export function nonDominated<T extends Ranked>(trials: readonly T[], directions: readonly Direction[]): T[] {
  const sorted = trials.filter(({ values }) => values !== null).map((one) => ({ one, gains: gainsOf(one, directions) }));
  sorted.sort((a, b) => firstDifference(b.gains, a.gains));
  // What dominates a trial is better in the first objective in which they differ, so it is among those before it. Of 1,000 trials, none of
  // which dominates another, each pair is compared only once.
  const front: typeof sorted = [];
  for (const next of sorted) if (!front.some(({ gains }) => beats(gains, next.gains))) front.push(next);
  const found = new Set(front.map(({ one }) => one));
  return trials.filter((one) => found.has(one));
}

const firstDifference = (a: readonly number[], b: readonly number[]): number => {
  const n = a.findIndex((gain, i) => gain !== b[i]);
  return n < 0 ? 0 : (a[n] as number) - (b[n] as number);
};

/**
 * Best first: by the fronts of NSGA-II, inside a front those that stand apart (crowding distance), then those with the smaller number. For
 * one objective that is the order of its values.
 */
export function rank<T extends Ranked>(trials: readonly T[], directions: readonly Direction[]): T[] {
  const ranked: T[] = [];
  let rest = [...trials];
  while (rest.length > 0) {
    const front = nonDominated(rest, directions);
    // What is left has no values.
    const next = front.length > 0 ? front : rest;
    ranked.push(...byCrowding(next, directions));
    rest = rest.filter((one) => !next.includes(one));
  }
  return ranked;
}

function byCrowding<T extends Ranked>(front: readonly T[], directions: readonly Direction[]): T[] {
  const distances = new Map(front.map((one) => [one, 0]));
  for (const [n, direction] of directions.entries()) {
    const sorted = [...front].sort((a, b) => gainOf(a, n, direction) - gainOf(b, n, direction) || a.number - b.number);
    const [first, last] = [sorted[0], sorted.at(-1)];
    if (!first || !last) continue;
    const width = gainOf(last, n, direction) - gainOf(first, n, direction);
    if (!(width > 0)) continue;
    for (const [place, one] of sorted.entries()) {
      const [below, above] = [sorted[place - 1], sorted[place + 1]];
      const gap = below && above ? (gainOf(above, n, direction) - gainOf(below, n, direction)) / width : Number.POSITIVE_INFINITY;
      distances.set(one, (distances.get(one) as number) + gap);
    }
  }
  return [...front].sort((a, b) => compare(distances.get(b), distances.get(a)) || a.number - b.number);
}

const compare = (a = 0, b = 0): number => (a === b ? 0 : a - b);
