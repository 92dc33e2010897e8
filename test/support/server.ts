import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Role } from '../../src/accounts/tables.ts';
import { readConfig } from '../../src/config.ts';
import type { JobKinds } from '../../src/jobs/kinds.ts';
import { createLog } from '../../src/log.ts';
import { type RunningServer, startServer } from '../../src/server.ts';

export const adminName = 'ada';
export const adminPassword = 'correct horse battery staple';

export interface Answer {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: what the server answers has the shape that the test expects.
  data: any;
  // biome-ignore lint/suspicious/noExplicitAny: see above.
  errors: any[] | undefined;
}

/** Runs `use` with a folder that is gone afterwards. */
export async function withFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'whetstone-'));
  try {
    return await use(folder);
  } finally {
    // A process that is ending, such as a terminal, may still write.
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }
}

/** A POST to /graphql. */
export async function postGraphql(
  url: string,
  query: string,
  variables: unknown = {},
  token?: string,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers, ...(token ? { authorization: `Bearer ${token}` } : {}) },
    body: JSON.stringify({ query, variables }),
  });
  return { status: response.status, headers: response.headers, data: undefined, errors: undefined, ...((await response.json()) as object) };
}

export interface TestServer extends RunningServer {
  dataDir: string;
  /** Query or mutation; without a token it is anonymous. */
  graphql(query: string, variables?: unknown, token?: string): Promise<Answer>;
  login(name: string, password: string): Promise<{ accessToken: string; refreshToken: string }>;
  /** An access token of the first administrator, who is created when it is first asked for. */
  admin(): Promise<string>;
  /** An access token of a user with this role, called like the role in lower case. */
  as(role: Role): Promise<string>;
}

/**
 * A server on a new data folder (or on `dataDir`) and a free port; stopped and removed afterwards. `env` adds settings, `kinds` are what
 * its jobs do instead of the product's.
 */
export async function withServer<T>(
  use: (server: TestServer) => Promise<T>,
  env: Record<string, string> = {},
  kinds?: JobKinds,
): Promise<T> {
  return withFolder(async (folder) => {
    const dataDir = env.WHETSTONE_DATA_DIR ?? folder;
    const config = readConfig({
      WHETSTONE_DATA_DIR: dataDir,
      WHETSTONE_PORT: '0',
      WHETSTONE_INFERENCE_PORT: '0',
      WHETSTONE_LOG_LEVEL: 'silent',
      ...env,
    });
    const server = await startServer(config, createLog(config), kinds);
    try {
      return await use(client(server, dataDir));
    } finally {
      await server.stop();
    }
  });
}

/** The session of the administrator, or of the user with this role, as a link is made for it. */
export async function viewerOf(server: TestServer, role?: Role): Promise<{ by: 'SESSION'; familyId: string }> {
  const token = role ? await server.as(role) : await server.admin();
  return { by: 'SESSION', familyId: JSON.parse(Buffer.from(token.split('.')[1] as string, 'base64url').toString()).sid };
}

/** What a test does with a server on `dataDir`, in this process or in another. */
export function client(server: RunningServer, dataDir: string): TestServer {
  const graphql: TestServer['graphql'] = (query, variables, token) => postGraphql(server.url, query, variables, token);
  const login: TestServer['login'] = async (name, password) => {
    const mutation = 'mutation ($i: LoginInput!) { login(input: $i) { credentials { accessToken refreshToken } } }';
    const { data, errors } = await graphql(mutation, { i: { name, password } });
    if (errors) throw new Error(errors[0].message);
    return data.login.credentials;
  };
  const tokens = new Map<string, Promise<string>>();
  const once = (key: string, make: () => Promise<string>): Promise<string> => {
    const made = tokens.get(key) ?? make();
    tokens.set(key, made);
    return made;
  };
  const admin = () =>
    once(adminName, async () => {
      const token = readFileSync(join(dataDir, 'bootstrap-token'), 'utf8').trim();
      const mutation = 'mutation ($i: BootstrapInput!) { bootstrap(input: $i) { userErrors { message } } }';
      await graphql(mutation, { i: { token, name: adminName, password: adminPassword } });
      return (await login(adminName, adminPassword)).accessToken;
    });
  const as = (role: Role) =>
    once(role, async () => {
      const mutation = 'mutation ($i: CreateUserInput!) { createUser(input: $i) { userErrors { message } } }';
      await graphql(mutation, { i: { name: role.toLowerCase(), role, password: adminPassword } }, await admin());
      return (await login(role.toLowerCase(), adminPassword)).accessToken;
    });
  return { ...server, dataDir, graphql, login, admin, as };
}
