import { countMax } from '../db.ts';
import { ApiError } from '../errors.ts';
import { inPieces } from '../slices.ts';
import { builder } from './builder.ts';

const pageDefault = 20;
const pageMax = 100;

export interface Connection<T> {
  edges: { cursor: string; node: T }[];
  pageInfo: { hasNextPage: boolean; hasPreviousPage: boolean; startCursor: string | null; endCursor: string | null };
}

/** A connection that also tells how long the list is, where somebody asks. */
export type CountedConnection<T> = Connection<T> & { count: () => number | Promise<number> };

/** The field `totalCount` of such a connection. */
export const totalCount = <Shape>(t: PothosSchemaTypes.ObjectFieldBuilder<typeof builder.$inferSchemaTypes, Shape>) => ({
  totalCount: t.int({
    description: `Items of all pages; ${countMax} where there are at least as many.`,
    resolve: (connection) => (connection as CountedConnection<unknown>).count(),
  }),
});

/** The arguments of every list: it is read forwards. */
export const pageArgs = () =>
  builder.args((t) => ({
    first: t.int({ defaultValue: pageDefault, required: true, description: `Items wanted, 1 to ${pageMax}.` }),
    after: t.string({ description: 'Cursor behind which the page starts.' }),
  }));

/** What a cursor is made of: a key of another kind is no cursor of the list. */
export const textKey = (key: unknown): key is string => typeof key === 'string';
export const numberKey = (key: unknown): key is number => Number.isSafeInteger(key);

/**
 * One page of a list. `list` is its name, with the id of what it belongs to and its order: a cursor of another list is refused. `isKey` knows the keys of its rows, by which they are ordered; `read` gets the number of rows wanted and the key
 * behind which they start (null for the beginning); `keyOf` gives a row's key. A cursor is the key, so a page is right however much the
 * list has changed since the last one.
 */
export function page<T, K>(
  list: string,
  { first, after }: { first: number; after?: string | null },
  isKey: (key: unknown) => key is K,
  read: (limit: number, after: K | null) => T[],
  keyOf: (row: T) => K,
): Connection<T> {
  return connectionOf(list, { first, after }, read(...wantedOf(list, { first, after }, isKey)), keyOf);
}

/** The same of rows that are read in turns. */
export async function pageInTurns<T, K>(
  list: string,
  args: { first: number; after?: string | null },
  isKey: (key: unknown) => key is K,
  read: (limit: number, after: K | null) => Promise<T[]>,
  keyOf: (row: T) => K,
): Promise<Connection<T>> {
  return connectionOf(list, args, await read(...wantedOf(list, args, isKey)), keyOf);
}

/** The same of rows with large values, by their numbers, which `read` reads a few at a time. `request` is that of `inTurn`. */
export function pageInPieces<T extends { number: number }>(
  list: string,
  args: { first: number; after?: string | null },
  request: object,
  read: (limit: number, after: number | null) => T[],
): Promise<Connection<T>> {
  const keyOf = (row: T) => row.number;
  return pageInTurns(list, args, numberKey, (limit, after) => inPieces(request, limit, after, read, keyOf), keyOf);
}

/** One row more than wanted tells whether there is a next page. */
function wantedOf<K>(
  list: string,
  { first, after }: { first: number; after?: string | null },
  isKey: (key: unknown) => key is K,
): [limit: number, after: K | null] {
  if (first < 1 || first > pageMax) throw new ApiError('LIMIT', `\`first\` is between 1 and ${pageMax}; it is ${first}.`);
  return [first + 1, after ? parseCursor(list, after, isKey) : null];
}

function connectionOf<T, K>(
  list: string,
  { first, after }: { first: number; after?: string | null },
  rows: T[],
  keyOf: (row: T) => K,
): Connection<T> {
  // Made when it is asked for: most documents ask for the rows alone.
  const edges = rows.slice(0, first).map((node) => ({
    node,
    get cursor() {
      return Buffer.from(JSON.stringify([list, keyOf(node)])).toString('base64url');
    },
  }));
  return {
    edges,
    pageInfo: {
      hasNextPage: rows.length > first,
      hasPreviousPage: Boolean(after) && edges.length > 0,
      get startCursor() {
        return edges[0]?.cursor ?? null;
      },
      get endCursor() {
        return edges.at(-1)?.cursor ?? null;
      },
    },
  };
}

function parseCursor<K>(list: string, cursor: string, isKey: (key: unknown) => key is K): K {
  try {
    const [of, key]: unknown[] = JSON.parse(Buffer.from(cursor, 'base64url').toString());
    if (of === list && isKey(key)) return key;
  } catch {
    // Falls through to the refusal.
  }
  throw new ApiError('NOT_FOUND', '`after` is not a cursor of this list. Take `endCursor` or the `cursor` of an edge, or leave it out.');
}
