import { ApiError } from '../errors.ts';
import { builder } from './builder.ts';

const pageDefault = 20;
const pageMax = 100;

export interface Connection<T> {
  edges: { cursor: string; node: T }[];
  pageInfo: { hasNextPage: boolean; hasPreviousPage: boolean; startCursor: string | null; endCursor: string | null };
}

/** The arguments of every list: it is read forwards. */
export const pageArgs = () =>
  builder.args((t) => ({
    first: t.int({ defaultValue: pageDefault, required: true, description: `Items wanted, 1 to ${pageMax}.` }),
    after: t.string({ description: 'Cursor behind which the page starts.' }),
  }));

/**
 * One page of a list. `read` gets the number of rows wanted and the key behind which they start (null for the beginning);
 * `keyOf` gives a row's key: JSON values that order the rows. A cursor is the key, so a page is right however much the list
 * has changed since the last one.
 */
export function page<T, K>(
  { first, after }: { first: number; after?: string | null },
  read: (limit: number, after: K | null) => T[],
  keyOf: (row: T) => K,
): Connection<T> {
  if (first < 1 || first > pageMax) throw new ApiError('LIMIT', `\`first\` is between 1 and ${pageMax}.`);
  const rows = read(first + 1, after ? parseCursor<K>(after) : null);
  const edges = rows.slice(0, first).map((node) => ({ cursor: Buffer.from(JSON.stringify(keyOf(node))).toString('base64url'), node }));
  return {
    edges,
    pageInfo: {
      hasNextPage: rows.length > first,
      hasPreviousPage: Boolean(after) && edges.length > 0,
      startCursor: edges[0]?.cursor ?? null,
      endCursor: edges.at(-1)?.cursor ?? null,
    },
  };
}

function parseCursor<K>(cursor: string): K {
  try {
    const key = JSON.parse(Buffer.from(cursor, 'base64url').toString());
    if (typeof key === 'string' || Number.isSafeInteger(key)) return key as K;
  } catch {
    // Falls through to the refusal.
  }
  throw new ApiError('NOT_FOUND', 'This is not a cursor that this server gave out.');
}
