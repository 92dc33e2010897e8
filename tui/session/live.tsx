/** React's side of the connection. */
import type { AnyVariables, TypedDocumentNode } from '@urql/core';
import { createContext, useCallback, useContext, useEffect, useReducer, useRef, useState } from 'react';
import { type CombinedError, useClient, useQuery } from 'urql';
import type { Connection, LinkState } from './connection.ts';

export const ConnectionContext = createContext<Connection | null>(null);

export function useConnection(): Connection {
  const connection = useContext(ConnectionContext);
  if (!connection) throw new Error('There is no connection around this component.');
  return connection;
}

/** The state of the connection; renders again when it changes. */
export function useLink(): LinkState {
  const connection = useConnection();
  const [, changed] = useReducer((n: number) => n + 1, 0);
  useEffect(() => connection.onLink(changed), [connection]);
  return connection.link();
}

/** Items that arrive faster than this are handed on together: a screen need not be drawn more often. */
const flushMs = 100;

/** Hands on what a subscription brings, for as long as the component is there, and its end. Null instead of variables: nothing. */
export function useLive<Data, Variables extends AnyVariables>(
  document: TypedDocumentNode<Data, Variables>,
  variables: Variables | null,
  take: (items: Data[]) => void,
  end?: () => void,
): void {
  const client = useClient();
  const latest = useRef({ take, end });
  latest.current = { take, end };
  const key = JSON.stringify(variables);
  useEffect(() => {
    const wanted = JSON.parse(key) as Variables | null;
    if (wanted === null) return;
    let waiting: Data[] = [];
    let timer: NodeJS.Timeout | undefined;
    const flush = () => {
      timer = undefined;
      const items = waiting;
      waiting = [];
      latest.current.take(items);
    };
    const { unsubscribe } = client.subscription(document, wanted).subscribe(({ data, hasNext }) => {
      // At its end urql repeats the last item.
      if (!hasNext) return latest.current.end?.();
      if (!data) return;
      waiting.push(data);
      timer ??= setTimeout(flush, flushMs);
    });
    return () => {
      clearTimeout(timer);
      unsubscribe();
    };
  }, [client, document, key]);
}

/** A query's newest answer; read again when the connection comes back, when `again` is called, and every `everyMs`. */
export function useData<Data, Variables extends AnyVariables>(
  query: TypedDocumentNode<Data, Variables>,
  variables: Variables,
  everyMs?: number,
): { data: Data | undefined; error: CombinedError | undefined; again(): void } {
  const [{ data, error }, execute] = useQuery({ query, variables } as Parameters<typeof useQuery<Data, Variables>>[0]);
  const { state } = useLink();
  const again = useRef(() => {});
  again.current = () => execute({ requestPolicy: 'network-only' });
  const before = useRef(state);
  useEffect(() => {
    if (state === 'CONNECTED' && before.current === 'LOST') again.current();
    before.current = state;
  }, [state]);
  // Without a connection the last answer stays on the screen.
  const last = useRef(data);
  last.current = data ?? last.current;
  const isLost = state === 'LOST';
  useEffect(() => {
    if (everyMs === undefined || isLost) return;
    const timer = setInterval(() => again.current(), everyMs);
    return () => clearInterval(timer);
  }, [everyMs, isLost]);
  return { data: last.current, error, again: () => again.current() };
}

interface Page<Row> {
  nodes: readonly Row[];
  pageInfo: { hasNextPage: boolean; endCursor: string | null };
}

interface Paged<Data, Row> {
  pageOf(data: Data): Page<Row>;
  keyOf(row: Row): string | number;
  /** Which of two comes first, as for `sort`. */
  compare(a: Row, b: Row): number;
  everyMs?: number;
}

/** Rows with those that have changed in their places, in order. */
export function merged<Row>(
  before: readonly Row[],
  changed: readonly Row[],
  { keyOf, compare }: Pick<Paged<unknown, Row>, 'keyOf' | 'compare'>,
): Row[] {
  const byKey = new Map([...before, ...changed].map((row) => [keyOf(row), row]));
  return [...byKey.values()].sort(compare);
}

/** Rows of a query with pages: the first is read as `useData` does, `more` reads the next one, `take` puts rows in that came otherwise. */
export function usePages<Data, Row>(
  query: TypedDocumentNode<Data, { after?: string | null }>,
  { pageOf, everyMs, ...order }: Paged<Data, Row>,
): { rows: Row[]; isRead: boolean; again(): void; more(): void; take(rows: readonly Row[]): void } {
  const client = useClient();
  const [rows, setRows] = useState<Row[]>([]);
  const { data, again } = useData(query, { after: null }, everyMs);
  /** Undefined before the first page, null behind the last. */
  const next = useRef<string | null | undefined>(undefined);
  const busy = useRef(false);
  const functions = useRef({ pageOf, ...order });
  const take = useCallback((changed: readonly Row[]) => setRows((before) => merged(before, changed, functions.current)), []);
  useEffect(() => {
    if (!data) return;
    const { nodes, pageInfo } = functions.current.pageOf(data);
    take(nodes);
    if (next.current === undefined) next.current = pageInfo.hasNextPage ? pageInfo.endCursor : null;
  }, [data, take]);
  const more = useCallback(async () => {
    if (busy.current || !next.current) return;
    busy.current = true;
    const answer = await client.query(query, { after: next.current }).toPromise();
    busy.current = false;
    if (!answer.data) return;
    const { nodes, pageInfo } = functions.current.pageOf(answer.data);
    next.current = pageInfo.hasNextPage ? pageInfo.endCursor : null;
    // What came of these rows in the meantime is newer than the page.
    setRows((before) => merged(nodes, before, functions.current));
  }, [client, query]);
  return { rows, isRead: data !== undefined, again, more, take };
}
