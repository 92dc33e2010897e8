/**
 * The session of a user at a server. Tokens are refreshed before they expire. A refresh token works once, and using it twice ends the session: so
 * terminal UIs of the same user take turns, and each looks first whether another one has refreshed already.
 */
import { stringifyDocument, type TypedDocumentNode } from '@urql/core';
import { graphql } from '../graphql.ts';
import type { Credentials, Store } from './store.ts';

const LoginMutation = graphql(`
  mutation TuiLogin($input: LoginInput!) {
    login(input: $input) {
      credentials { accessToken accessTokenExpiresAt refreshToken }
      userErrors { code field message }
    }
  }
`);
const RefreshMutation = graphql(`
  mutation TuiRefresh($input: RefreshInput!) {
    refresh(input: $input) {
      credentials { accessToken accessTokenExpiresAt refreshToken }
      userErrors { code field message }
    }
  }
`);
const BootstrapMutation = graphql(`
  mutation TuiBootstrap($input: BootstrapInput!) {
    bootstrap(input: $input) { userErrors { code field message } }
  }
`);
const LogoutMutation = graphql(`
  mutation TuiLogout($input: LogoutInput!) {
    logout(input: $input) { userErrors { message } }
  }
`);

/** The server refused, and says why; `code` is of the enum ErrorCode, `field` the path inside the input. */
export class Refusal extends Error {
  readonly code: string;
  readonly field: readonly string[] | null;
  constructor(message: string, code: string, field: readonly string[] | null = null) {
    super(message);
    this.code = code;
    this.field = field;
  }
}

function refusalOf([first]: readonly { code: string; field: readonly string[] | null; message: string }[]): Refusal {
  return new Refusal(first?.message ?? 'The server gave no reason.', first?.code ?? 'INTERNAL', first?.field ?? null);
}

/** There is no server, or no connection to it. */
export class Unreachable extends Error {}

export interface Session {
  /** Address of the server, without a slash at its end. */
  url: string;
  loggedIn(): boolean;
  /** Whether the access token is valid for a while. */
  isFresh(): boolean;
  login(name: string, password: string): Promise<void>;
  /** A token that is valid for a while; throws a Refusal when the session has ended. */
  accessToken(): Promise<string>;
  /** The server does not take the access token any more, whatever its time says. */
  distrust(): void;
  logout(): Promise<void>;
  /** Calls back when the session has ended; returns what stops that. */
  onEnd(callback: () => void): () => void;
}

/** An access token is exchanged this long before it expires. */
const renewBeforeMs = 60_000;

export function openSession(url: string, store: Store): Session {
  let credentials = store.credentials(url);
  let refreshing: Promise<void> | undefined;
  const ended = new Set<() => void>();

  const keep = (next: Credentials | undefined) => {
    credentials = next;
    store.remember(url, next);
  };
  const end = () => {
    if (!credentials) return;
    keep(undefined);
    for (const callback of ended) callback();
  };
  const isFresh = (c: Credentials | undefined) => c !== undefined && Date.parse(c.accessTokenExpiresAt) - Date.now() > renewBeforeMs;

  async function refresh(): Promise<void> {
    await store.exclusively(async () => {
      const stored = store.credentials(url);
      if (stored && stored.refreshToken !== credentials?.refreshToken && isFresh(stored)) {
        credentials = stored;
        return;
      }
      const refreshToken = (stored ?? credentials)?.refreshToken;
      if (refreshToken === undefined) throw new Refusal('Log in first.', 'UNAUTHENTICATED');
      const { refresh: answer } = await post(url, RefreshMutation, { input: { refreshToken } });
      if (!answer.credentials) throw refusalOf(answer.userErrors);
      keep(answer.credentials);
    });
  }

  return {
    url,
    loggedIn: () => credentials !== undefined,
    isFresh: () => isFresh(credentials),
    async login(name, password) {
      const { login } = await post(url, LoginMutation, { input: { name, password } });
      if (!login.credentials) throw refusalOf(login.userErrors);
      keep(login.credentials);
    },
    async accessToken() {
      if (!isFresh(credentials)) {
        refreshing ??= refresh()
          .catch((error: unknown) => {
            if (error instanceof Refusal && error.code === 'UNAUTHENTICATED') end();
            throw error;
          })
          .finally(() => {
            refreshing = undefined;
          });
        await refreshing;
      }
      return (credentials as Credentials).accessToken;
    },
    distrust() {
      if (credentials) credentials = { ...credentials, accessTokenExpiresAt: new Date(0).toISOString() };
    },
    async logout() {
      const refreshToken = credentials?.refreshToken;
      end();
      if (refreshToken) await post(url, LogoutMutation, { input: { refreshToken } }).catch(() => {});
    },
    onEnd(callback) {
      ended.add(callback);
      return () => ended.delete(callback);
    },
  };
}

export type ServerState = 'NONE' | 'NEW' | 'READY';

/** NONE: nobody answers there. NEW: the server has no user yet. */
export async function readServerState(url: string): Promise<ServerState> {
  try {
    // The server names its reason before it looks at the token. There is no query for it, because there is no user who could ask.
    const { bootstrap } = await post(url, BootstrapMutation, { input: { token: '', name: 'nobody', password: 'not a password' } });
    return bootstrap.userErrors.some(({ code }) => code === 'BOOTSTRAP_TOKEN') ? 'NEW' : 'READY';
  } catch (error) {
    if (error instanceof Unreachable) return 'NONE';
    throw error;
  }
}

/** Makes the first administrator. */
export async function bootstrap(url: string, input: { token: string; name: string; password: string }): Promise<void> {
  const answer = await post(url, BootstrapMutation, { input });
  if (answer.bootstrap.userErrors.length > 0) throw refusalOf(answer.bootstrap.userErrors);
}

async function post<Data, Variables extends object>(
  url: string,
  document: TypedDocumentNode<Data, Variables>,
  variables: Variables,
): Promise<Data> {
  const response = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query: stringifyDocument(document), variables }),
    signal: AbortSignal.timeout(30_000),
  }).catch(() => {
    throw new Unreachable(`There is no server at ${url}.`);
  });
  const answer = await response.json().catch(() => {
    throw new Unreachable(`${url} answers, but not as a Whetstone server does (HTTP ${response.status}).`);
  });
  const [error] = answer.errors ?? [];
  if (error) throw new Refusal(error.message, error.extensions?.code ?? 'INTERNAL');
  return answer.data;
}
