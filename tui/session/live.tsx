/** React's side of the connection. */
import type { AnyVariables, TypedDocumentNode } from '@urql/core';
import { createContext, useContext, useEffect, useReducer, useRef } from 'react';
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

/** Hands on what a subscription brings, for as long as the component is there. Null instead of variables: nothing. */
export function useLive<Data, Variables extends AnyVariables>(
  document: TypedDocumentNode<Data, Variables>,
  variables: Variables | null,
  take: (items: Data[]) => void,
): void {
  const client = useClient();
  const latest = useRef(take);
  latest.current = take;
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
      latest.current(items);
    };
    const { unsubscribe } = client.subscription(document, wanted).subscribe(({ data, hasNext }) => {
      // At its end urql repeats the last item.
      if (!data || !hasNext) return;
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
