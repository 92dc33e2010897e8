/**
 * The way to the server: queries and mutations over HTTP, subscriptions over one WebSocket. Invariant: a subscription that a user looks at lives
 * until it completes. A lost connection, a stopped server and an expired token all mean: subscribe again, behind the last item that came.
 */
import { Client, type CombinedError, cacheExchange, fetchExchange, type SubscriptionForwarder, subscriptionExchange } from '@urql/core';
import { authExchange } from '@urql/exchange-auth';
import { createClient, type Client as WebSocketClient } from 'graphql-ws';
import type { Session } from './session.ts';

export type LinkState = { state: 'CONNECTING' } | { state: 'CONNECTED' } | { state: 'LOST'; retryAt: number };

export interface Traffic {
  /** Items of subscriptions since the start. */
  received: number;
  /** How often the connection was made again. */
  reconnects: number;
  /** Subscriptions that are open. */
  open: Map<string, { received: number; lastAt: number }>;
}

export interface Connection {
  session: Session;
  client: Client;
  traffic: Traffic;
  link(): LinkState;
  /** Calls back whenever `link()` has changed; returns what stops that. */
  onLink(callback: () => void): () => void;
  /** Does not wait any longer to connect again. */
  retryNow(): void;
  close(): void;
}

const retryMs = (retries: number): number => Math.min(1000 * 2 ** retries, 15_000);
/** A subscription that the server has ended, such as at its own end, is made again after this long. */
const resubscribeMs = 1000;

const isAuthError = ({ graphQLErrors, response }: CombinedError): boolean =>
  response?.status === 401 || graphQLErrors.some(({ extensions }) => extensions?.code === 'UNAUTHENTICATED');

export function connect(session: Session): Connection {
  let link: LinkState = { state: 'CONNECTING' };
  let stopWaiting = () => {};
  let closed = false;
  const watchers = new Set<() => void>();
  const traffic: Traffic = { received: 0, reconnects: 0, open: new Map() };
  const setLink = (next: LinkState) => {
    link = next;
    for (const watcher of watchers) watcher();
  };
  const wait = (ms: number) =>
    new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      stopWaiting = () => {
        clearTimeout(timer);
        resolve();
      };
    });

  const sockets = createClient({
    url: `${session.url.replace(/^http/, 'ws')}/graphql`,
    connectionParams: async () => ({ authorization: `Bearer ${await session.accessToken()}` }),
    retryAttempts: Number.POSITIVE_INFINITY,
    shouldRetry: () => true,
    // A server that is switched off closes nothing: it is missed when it does not answer.
    keepAlive: 10_000,
    connectionAckWaitTimeout: 10_000,
    retryWait: async (retries) => {
      setLink({ state: 'LOST', retryAt: Date.now() + retryMs(retries) });
      await wait(retryMs(retries));
    },
    on: {
      connected(_socket, _payload, wasRetry) {
        if (wasRetry) traffic.reconnects += 1;
        setLink({ state: 'CONNECTED' });
      },
      closed() {
        if (!closed && link.state === 'CONNECTED') setLink({ state: 'LOST', retryAt: Date.now() + resubscribeMs });
      },
    },
  });
  dropSilentSockets(sockets);

  const forwardSubscription: SubscriptionForwarder = ({ query, variables: given }) => ({
    subscribe(sink) {
      const variables: Record<string, unknown> = { ...given };
      const name = /subscription\s+(\w+)/.exec(query ?? '')?.[1] ?? '';
      const counts = { received: 0, lastAt: 0 };
      traffic.open.set(name, counts);
      let stop = () => {};
      let timer: NodeJS.Timeout | undefined;
      const subscribe = () => {
        stop = sockets.subscribe(
          // The variables are read whenever the socket is opened again: they say where to continue.
          { query: query ?? '', variables },
          {
            next(result) {
              traffic.received += 1;
              counts.received += 1;
              counts.lastAt = Date.now();
              const item = Object.values(result.data ?? {})[0] as { seq?: number; n?: number } | undefined;
              if ('after' in variables) variables.after = item?.seq ?? item?.n ?? variables.after;
              sink.next(result as never);
            },
            error(error) {
              // GraphQL's errors come as a list, the end of the connection as what closed it.
              const errors: { extensions?: Record<string, unknown> }[] = Array.isArray(error) ? error : [];
              const codes = errors.map(({ extensions }) => extensions?.code);
              if (errors.length > 0 && !errors.some(isTemporary)) return sink.error(error);
              if (codes.includes('UNAUTHENTICATED')) session.distrust();
              if (session.loggedIn() && !closed) timer = setTimeout(subscribe, resubscribeMs);
            },
            complete: () => sink.complete(),
          },
        );
      };
      subscribe();
      return {
        unsubscribe() {
          clearTimeout(timer);
          traffic.open.delete(name);
          stop();
        },
      };
    },
  });

  const client = new Client({
    url: `${session.url}/graphql`,
    preferGetMethod: false,
    requestPolicy: 'cache-and-network',
    exchanges: [
      cacheExchange,
      authExchange(async ({ appendHeaders }) => {
        let token = session.loggedIn() ? await session.accessToken().catch(() => '') : '';
        return {
          addAuthToOperation: (operation) => appendHeaders(operation, { Authorization: `Bearer ${token}` }),
          willAuthError: () => !session.isFresh(),
          didAuthError(error) {
            if (isAuthError(error)) session.distrust();
            return isAuthError(error);
          },
          async refreshAuth() {
            // The operation itself reports a missing answer, and `onEnd` the end of the session.
            token = await session.accessToken().catch(() => token);
          },
        };
      }),
      fetchExchange,
      subscriptionExchange({ forwardSubscription }),
    ],
  });

  return {
    session,
    client,
    traffic,
    link: () => link,
    onLink(callback) {
      watchers.add(callback);
      return () => watchers.delete(callback);
    },
    retryNow: () => stopWaiting(),
    close() {
      closed = true;
      stopWaiting();
      void sockets.dispose();
    },
  };
}

const isTemporary = ({ extensions }: { extensions?: Record<string, unknown> }): boolean =>
  extensions?.retryable === true || extensions?.code === 'UNAUTHENTICATED';

/** Closes a socket whose server has not answered a ping for ten seconds, so that it is made again. */
function dropSilentSockets(sockets: WebSocketClient): void {
  let timer: NodeJS.Timeout | undefined;
  sockets.on('ping', (received) => {
    if (!received) timer = setTimeout(() => sockets.terminate(), 10_000);
  });
  sockets.on('pong', (received) => {
    if (received) clearTimeout(timer);
  });
  sockets.on('closed', () => clearTimeout(timer));
}
