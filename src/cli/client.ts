/** What the commands have in common that talk to a server over its public API. */
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { startOrName } from '../../client/address.ts';
import type { ClientSession } from '../../client/upload.ts';
import type { ClientConfig } from '../config.ts';

interface Credentials {
  accessToken: string;
  accessTokenExpiresAt: string;
  refreshToken: string;
}

const renewBeforeMs = 60_000;

/**
 * Runs `use` with WHETSTONE_TOKEN; or with a session of WHETSTONE_REFRESH_TOKEN, or of a login for which the terminal asks. It refreshes the
 * token of a session a minute before it expires, and ends the session afterwards.
 */
export async function withSession<T>(
  { url: address, token, refreshToken }: Pick<ClientConfig, 'url' | 'token' | 'refreshToken'>,
  use: (session: ClientSession) => Promise<T>,
  ask = askTerminal,
): Promise<T> {
  const url = address.replace(/\/+$/, '');
  if (token !== undefined && refreshToken === undefined) return use({ url, accessToken: async () => token });
  let credentials =
    refreshToken === undefined
      ? await enter(url, 'login', { name: await ask('Name: '), password: await ask('Password: ', true) })
      : await enter(url, 'refresh', { refreshToken });
  const accessToken = async () => {
    if (Date.parse(credentials.accessTokenExpiresAt) - Date.now() < renewBeforeMs) {
      credentials = await enter(url, 'refresh', { refreshToken: credentials.refreshToken });
    }
    return credentials.accessToken;
  };
  try {
    return await use({ url, accessToken });
  } finally {
    const logout = 'mutation ($input: LogoutInput!) { logout(input: $input) { userErrors { message } } }';
    // The server may be gone: the login then ends by itself.
    await graphql(url, logout, { input: { refreshToken: credentials.refreshToken } }).catch(() => {});
  }
}

async function enter(url: string, mutation: 'login' | 'refresh', input: object): Promise<Credentials> {
  const type = mutation === 'login' ? 'LoginInput' : 'RefreshInput';
  const fields = 'credentials { accessToken accessTokenExpiresAt refreshToken } userErrors { message }';
  const data = await graphql(url, `mutation ($input: ${type}!) { ${mutation}(input: $input) { ${fields} } }`, { input });
  const { credentials, userErrors } = data[mutation] as { credentials: Credentials | null; userErrors: { message: string }[] };
  if (!credentials) throw new Error(userErrors.map((e) => e.message).join(' '));
  return credentials;
}

/** The data of the answer to a document. An empty token asks as nobody. */
export const ask = async ({ url, accessToken }: ClientSession, query: string, variables: object): Promise<Record<string, unknown>> =>
  graphql(url, query, variables, await accessToken());

async function graphql(url: string, query: string, variables: object, token = ''): Promise<Record<string, unknown>> {
  const headers = { 'Content-Type': 'application/json', ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const { data } = await call(`${url}/graphql`, { method: 'POST', headers, body: JSON.stringify({ query, variables }) });
  return data as Record<string, unknown>;
}

/** The JSON that the server answers; throws its error messages, or that it cannot be reached. */
async function call(address: string, request: RequestInit): Promise<Record<string, unknown>> {
  const response = await fetch(address, request).catch(() => {
    throw new Error(`There is no server at ${new URL(address).origin}. ${startOrName}`);
  });
  const answer = await response.json().catch(() => ({ errors: [{ message: `${address} answered ${response.status}, but no JSON.` }] }));
  if (answer.errors) throw new Error(answer.errors.map(({ message }: { message: string }) => message).join('\n'));
  return answer;
}

/** Names and messages may come from a file that somebody uploaded: nothing in them steers the terminal. */
export const withoutControls = (text: string): string => text.replace(/[\p{Cc}\p{Cf}]/gu, ' ');

/** A line from the terminal; a secret one is not shown while it is typed. */
async function askTerminal(question: string, secret = false): Promise<string> {
  if (!process.stdin.isTTY) throw new Error('Set WHETSTONE_TOKEN to an API key or an access token, or run this at a terminal to log in.');
  let shown = true;
  const output = new Writable({
    write(chunk, _encoding, done) {
      if (shown) process.stderr.write(chunk);
      done();
    },
  });
  const terminal = createInterface({ input: process.stdin, output, terminal: true });
  try {
    const answer = terminal.question(question);
    shown = !secret;
    return await answer;
  } finally {
    terminal.close();
    if (secret) process.stderr.write('\n');
  }
}
