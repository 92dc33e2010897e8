/**
 * Lists of many rows with filters are read in slices, each in a turn of its own: a filter that few rows pass would hold the event loop for as
 * long as the table is, however good its index.
 */
import { asc, desc, sql } from 'drizzle-orm';
import { countMax, type Queryable } from './db.ts';
import { inTurn } from './turns.ts';

/** Rows of the order that are looked at in a turn: about 4 ms where each is looked up by the order of a metric. */
export const sliceRows = 250;

/** `request` is that of `inTurn`. */
export interface Reader {
  db: Queryable;
  request: object;
}

/** How rows are ordered, and a slice is cut out: what is behind one place, up to another. */
export const directions = {
  DESCENDING: { behind: sql`<`, upTo: sql`>=`, by: desc },
  ASCENDING: { behind: sql`>`, upTo: sql`<=`, by: asc },
};

/** The arguments of a query that say which slice it reads. */
export type Slice = Record<string, unknown>;
/** Reads a list slice by slice until `read` says that it has enough. */
type Along = (read: (slice: Slice) => boolean) => Promise<void>;

/**
 * Goes along an order in slices. `endOf` gives the key that is `sliceRows` rows behind another; null near the end. `read` reads the rows behind a
 * key up to the end, that included, and says whether it has enough. `request` is that of `inTurn`.
 */
export async function inSlices<K>(
  request: object,
  start: K,
  endOf: (behind: K) => K | null,
  read: (behind: K, end: K | null) => boolean,
): Promise<void> {
  let behind = start;
  for (let isOver = false; !isOver; ) {
    isOver = await inTurn(request, () => {
      const end = endOf(behind);
      if (read(behind, end) || end === null) return true;
      behind = end;
      return false;
    });
  }
}

/** The first rows: `all` gives those of a slice, at most as many as its argument `limit` says. */
export async function firstInSlices<T>(limit: number, along: Along, all: (slice: Slice) => T[]): Promise<T[]> {
  const found: T[] = [];
  await along((slice) => {
    found.push(...all({ ...slice, limit: limit - found.length }));
    return found.length >= limit;
  });
  return found;
}

/** Rows with large values, such as the names of 10,000 classes, that are read at a time: so many take up to 8 ms. */
const largeRowsMax = 2;

/** So many rows with large values behind the key `after`, a few in each turn. `request` is that of `inTurn`. */
export async function inPieces<T, K>(
  request: object,
  limit: number,
  after: K | null,
  read: (limit: number, after: K | null) => T[],
  keyOf: (row: T) => K,
): Promise<T[]> {
  const rows: T[] = [];
  for (let isOver = false; !isOver; ) {
    const wanted = Math.min(largeRowsMax, limit - rows.length);
    const last = rows.at(-1);
    const piece = await inTurn(request, () => read(wanted, last === undefined ? after : keyOf(last)));
    rows.push(...piece);
    isOver = piece.length < wanted || rows.length === limit;
  }
  return rows;
}

/** How many rows there are, at most `countMax`: `countOf` gives those of a slice. */
export async function countInSlices(along: Along, countOf: (slice: Slice) => number): Promise<number> {
  let counted = 0;
  await along((slice) => {
    counted += countOf(slice);
    return counted >= countMax;
  });
  return Math.min(counted, countMax);
}
