import { generateKeyPairSync } from 'node:crypto';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Statement } from 'better-sqlite3';
import { afterEach, expect, test, vi } from 'vitest';
import { decode, type Forge, forgeOf, forgeries } from './support/forgedTokens.ts';
import { adminName, adminPassword, type TestServer, withFolder, withServer } from './support/server.ts';

const viewer = '{ viewer { name } }';
const refreshMutation =
  'mutation ($t: String!) { refresh(input: { refreshToken: $t }) { credentials { accessToken refreshToken } userErrors { code } } }';

const refresh = async (server: TestServer, token: string) => {
  const answer = await server.graphql(refreshMutation, { t: token });
  return { status: answer.status, code: answer.errors?.[0].extensions.code, ...answer.data?.refresh?.credentials };
};
const statusOf = async (server: TestServer, token: string) => (await server.graphql(viewer, {}, token)).status;
const later = (ms: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + ms });

afterEach(() => {
  vi.useRealTimers();
});

/** What only the database tells apart. */
const strangers: Record<string, (forge: Forge) => Promise<string>> = {
  "another user's session": ({ payload, sign }) => sign({ ...payload, sub: '0197a0c0-0000-7000-8000-000000000000' }),
  'a session that never was': ({ payload, sign }) => sign({ ...payload, sid: '0197a0c0-0000-7000-8000-000000000000' }),
};

test.each(Object.entries({ ...forgeries, ...strangers }))('a token with %s is 401, also where no login is needed', (_what, attack) =>
  withServer(async (server) => {
    const token = await server.admin();
    const forge = forgeOf(token, server.dataDir);
    expect(await statusOf(server, await forge.sign(forge.payload)), 'a token forged without a change is valid').toBe(200);
    const response = await fetch(`${server.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${await attack(forge)}` },
      body: JSON.stringify({ query: viewer }),
    });
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toBe('Bearer');
    const { errors, data } = (await response.json()) as { errors: { extensions: object }[]; data?: unknown };
    expect(data).toBeUndefined();
    expect(errors[0]?.extensions).toMatchObject({ code: 'UNAUTHENTICATED', retryable: false, requestId: expect.any(String) });
    expect(await statusOf(server, token), 'the valid token stays valid').toBe(200);
  }),
);

test.each(['Basic YWRhOnNlY3JldA==', 'Bearer', 'Token x'])('the Authorization header `%s` is 401', (authorization) =>
  withServer(async ({ url }) => {
    expect((await fetch(`${url}/graphql?query={__typename}`, { headers: { authorization } })).status).toBe(401);
  }),
);

test('an access token says whose it is and of which session, and nothing of the role', () =>
  withServer(async (server) => {
    const [header, payload] = (await server.admin()).split('.');
    expect(decode(header)).toEqual({ alg: 'EdDSA', typ: 'at+jwt', kid: expect.any(String) });
    const { iat, exp, ...claims } = decode(payload);
    expect(exp - iat).toBe(900);
    expect(claims).toEqual({
      iss: 'whetstone',
      aud: 'whetstone-api',
      sub: expect.any(String),
      sid: expect.any(String),
      jti: expect.any(String),
    });
  }));

test('an access token ends after 15 minutes, used before or not', () =>
  withServer(async (server) => {
    const used = await server.admin();
    const unused = (await server.login(adminName, adminPassword)).accessToken;
    expect(await statusOf(server, used)).toBe(200);
    later(14 * 60_000);
    expect(await statusOf(server, used)).toBe(200);
    later(2 * 60_000);
    expect([await statusOf(server, used), await statusOf(server, unused)]).toEqual([401, 401]);
  }));

test('an access token ends with its session', () =>
  withServer(async (server) => {
    await server.admin();
    const { accessToken, refreshToken } = await server.login(adminName, adminPassword);
    expect(await statusOf(server, accessToken)).toBe(200);
    await server.graphql('mutation ($t: String!) { logout(input: { refreshToken: $t }) { userErrors { code } } }', { t: refreshToken });
    expect(await statusOf(server, accessToken)).toBe(401);
    expect((await refresh(server, refreshToken)).status).toBe(401);
    expect(await statusOf(server, await server.admin()), 'the other session goes on').toBe(200);
  }));

test('a logout with a token that is none, or twice, is no error', () =>
  withServer(async (server) => {
    await server.admin();
    const { refreshToken } = await server.login(adminName, adminPassword);
    for (const t of ['x', refreshToken, refreshToken]) {
      const answer = await server.graphql('mutation ($t: String!) { logout(input: { refreshToken: $t }) { userErrors { code } } }', { t });
      expect(answer).toMatchObject({ status: 200, data: { logout: { userErrors: [] } }, errors: undefined });
    }
    const { data } = await server.graphql('{ auditLog { nodes { action } } }', {}, await server.admin());
    const actions = data.auditLog.nodes.map((n: { action: string }) => n.action);
    expect(actions.filter((a: string) => a === 'revokeSession')).toHaveLength(1);
  }));

test('a refresh gives new tokens of the same session; the former access token goes on until it expires', () =>
  withServer(async (server) => {
    await server.admin();
    const first = await server.login(adminName, adminPassword);
    const second = await refresh(server, first.refreshToken);
    const third = await refresh(server, second.refreshToken);
    expect(new Set([first, second, third].map((c) => c.refreshToken)).size).toBe(3);
    const sids = [first, second, third].map((c) => decode(c.accessToken.split('.')[1]).sid);
    expect(new Set(sids).size).toBe(1);
    for (const { accessToken } of [first, second, third]) expect(await statusOf(server, accessToken)).toBe(200);
  }));

test('a refresh token that is used twice ends its whole family and no other, and leaves one line in the audit log', () =>
  withServer(async (server) => {
    const other = await server.admin();
    const stolen = await server.login(adminName, adminPassword);
    const thief = await refresh(server, stolen.refreshToken);
    const thiefs = await refresh(server, thief.refreshToken);

    expect(await refresh(server, stolen.refreshToken)).toMatchObject({ status: 401, code: 'UNAUTHENTICATED' });
    for (const { accessToken } of [stolen, thief, thiefs]) expect(await statusOf(server, accessToken)).toBe(401);
    for (const { refreshToken } of [stolen, thief, thiefs]) expect((await refresh(server, refreshToken)).status).toBe(401);
    expect(await statusOf(server, other)).toBe(200);

    const query = '{ auditLog(filter: { action: "refreshReplay" }) { nodes { outcome actor { name } targetType } } }';
    const { data } = await server.graphql(query, {}, other);
    expect(data.auditLog.nodes).toEqual([{ outcome: 'DENIED', actor: { name: adminName }, targetType: 'Session' }]);
  }));

test('a request reads its session once, and from an index that does not grow with the age of the session', () =>
  withServer(async (server) => {
    await server.admin();
    let tokens = await server.login(adminName, adminPassword);
    for (let i = 0; i < 20; i++) tokens = await refresh(server, tokens.refreshToken);
    const { $client } = server.services.db;
    const statement = Object.getPrototypeOf($client.prepare('SELECT 1')) as Statement;
    const runs = (['get', 'all'] as const).map((way) => vi.spyOn(statement, way));
    expect(await statusOf(server, tokens.accessToken)).toBe(200);
    const contexts = runs.flatMap(({ mock }) => mock.contexts as Statement[]);
    const read = contexts.map(({ source }) => source).filter((query) => query.includes('from "session"'));
    vi.restoreAllMocks();
    expect(read).toHaveLength(1);
    const plan = $client.prepare(`EXPLAIN QUERY PLAN ${read[0]}`).all(['x']) as { detail: string }[];
    const [, index] = /SEARCH session USING INDEX (\w+)/.exec(plan.map(({ detail }) => detail).join()) ?? [];
    const indexes = $client.pragma('index_list(session)') as { name: string; partial: number }[];
    expect(indexes.find(({ name }) => name === index)?.partial).toBe(1);
  }));

test('of two refreshes with one token at the same time one is a replay', () =>
  withServer(async (server) => {
    await server.admin();
    const { refreshToken } = await server.login(adminName, adminPassword);
    const statuses = await Promise.all([refresh(server, refreshToken), refresh(server, refreshToken)]);
    expect(statuses.map((r) => r.status).sort()).toEqual([200, 401]);
    const winner = statuses.find((r) => r.status === 200);
    expect(await statusOf(server, winner?.accessToken)).toBe(401);
  }));

test('a session that is refreshed without end, and an address with wrong tokens, are held; a held token works later, and others all the time', () =>
  withServer(async (server) => {
    await server.admin();
    const other = await server.login(adminName, adminPassword);
    let tokens = await server.login(adminName, adminPassword);
    for (let i = 0; i < 30; i++) tokens = await refresh(server, tokens.refreshToken);
    // Every refresh stores a row: what is held stores none, and the token still works later.
    const rows = () => server.services.db.$client.prepare('SELECT count(*) FROM session').pluck().get();
    const before = rows();
    expect(await refresh(server, tokens.refreshToken)).toEqual({ status: 429, code: 'RATE_LIMITED' });
    expect(rows()).toBe(before);
    for (let i = 0; i < 30; i++) expect((await refresh(server, 'x')).status).toBe(401);
    expect(await refresh(server, 'x')).toEqual({ status: 429, code: 'RATE_LIMITED' });
    expect((await refresh(server, other.refreshToken)).accessToken).toEqual(expect.any(String));
  }));

test.each(['', 'x', 'A'.repeat(43)])('the refresh token `%s` is 401', (token) =>
  withServer(async (server) => {
    expect(await refresh(server, token)).toEqual({ status: 401, code: 'UNAUTHENTICATED' });
  }),
);

test('a session ends 30 days after its last refresh, and its rows are removed', () =>
  withServer(async (server) => {
    await server.admin();
    const { refreshToken } = await server.login(adminName, adminPassword);
    later(29 * 86_400_000);
    const next = await refresh(server, refreshToken);
    expect(next.status).toBe(200);
    later(31 * 86_400_000);
    expect((await refresh(server, next.refreshToken)).status).toBe(401);
    const { accessToken } = await server.login(adminName, adminPassword);
    const { data } = await server.graphql('{ viewer { sessions { current } } }', {}, accessToken);
    expect(data.viewer.sessions).toEqual([{ current: true }]);
  }));

test('what is on the disk opens no session: neither tokens nor passwords are stored', () =>
  withServer(async (server) => {
    await server.admin();
    const { accessToken, refreshToken } = await server.login(adminName, adminPassword);
    const stored = ['whetstone.db', 'whetstone.db-wal'].map((name) => readFileSync(join(server.dataDir, name), 'latin1')).join();
    expect(stored).toMatch(/\$argon2id\$v=19\$m=/);
    for (const secret of [refreshToken, accessToken, adminPassword]) expect(stored).not.toContain(secret);
  }));

test('tokens outlive a restart, and the key that signs them is readable by its owner only', () =>
  withFolder(async (WHETSTONE_DATA_DIR) => {
    const token = await withServer((server) => server.admin(), { WHETSTONE_DATA_DIR });
    expect(statSync(join(WHETSTONE_DATA_DIR, 'signing-key.pem')).mode & 0o777).toBe(0o600);
    await withServer(async (server) => expect(await statusOf(server, token)).toBe(200), { WHETSTONE_DATA_DIR });
  }));

test("another server's token is 401", () =>
  withServer(async (one) => {
    const token = await one.admin();
    await withServer(async (other) => expect(await statusOf(other, token)).toBe(401));
  }));

test.each([
  ['is missing', undefined],
  ['is empty', ''],
  ['is no key', 'not a key'],
  ['is of another type', generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs8', format: 'pem' })],
])('a configured signing key that %s stops the start with a message that says what is needed', (_what, content) =>
  withFolder(async (folder) => {
    const file = join(folder, 'key.pem');
    if (content !== undefined) writeFileSync(file, content);
    const start = withServer(async () => {}, { WHETSTONE_SIGNING_KEY_FILE: file });
    await expect(start).rejects.toThrow(/WHETSTONE_SIGNING_KEY_FILE.*Ed25519/s);
    await expect(start).rejects.not.toThrow(folder);
  }),
);
