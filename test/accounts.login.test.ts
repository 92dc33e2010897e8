import { setTimeout } from 'node:timers/promises';
import argon2 from 'argon2';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { countDenied } from '../src/accounts/audit.ts';
import { countTry } from '../src/accounts/throttle.ts';
import { openDatabase } from '../src/db.ts';
import { eventually } from './support/eventually.ts';
import { type Answer, adminName, adminPassword, postGraphql, type TestServer, withFolder, withServer } from './support/server.ts';
import { withRows } from './support/storage.ts';

const mutation = `mutation ($i: LoginInput!) {
  login(input: $i) { credentials { accessToken accessTokenExpiresAt refreshToken user { name } } userErrors { code field } }
}`;
const wrong = 'not the password';

/** Lets a test say from which address a request comes. */
const behindProxy = { WHETSTONE_TRUSTED_PROXIES: '127.0.0.1' };
const elsewhere = '203.0.113.7';

const tryLogin = ({ url }: Pick<TestServer, 'url'>, name: string, password = wrong, address?: string): Promise<Answer> =>
  postGraphql(url, mutation, { i: { name, password } }, undefined, address ? { 'x-forwarded-for': address } : {});
const codeOf = (answer: Answer): string => answer.errors?.[0].extensions.code ?? 'OK';

/** The codes of `count` wrong logins, one after the other. */
async function codesOf(server: Pick<TestServer, 'url'>, name: string, count: number): Promise<string[]> {
  const codes: string[] = [];
  for (let i = 0; i < count; i++) codes.push(codeOf(await tryLogin(server, name)));
  return codes;
}
const repeat = (count: number, code: string) => Array.from({ length: count }, () => code);
const later = (ms: number) => vi.setSystemTime(Date.now() + ms);

/** A held try is answered half a second after it came. Nobody waits for that here. */
vi.mock(import('node:timers/promises'), async (original) => {
  const real = await original();
  const setTimeout = ((ms: number, ...rest: []) => real.setTimeout(ms > 300 && ms <= 500 ? 0 : ms, ...rest)) as typeof real.setTimeout;
  return { ...real, default: { ...real, setTimeout }, setTimeout };
});

const realVerify = argon2.verify;
const verify = vi.spyOn(argon2, 'verify');
const hash = vi.spyOn(argon2, 'hash');

let letGo = () => {};

/** Makes each password check from now on wait until the returned function is called, or the test ends. */
function holdHashes(): () => void {
  verify.mockClear();
  const { promise, resolve } = Promise.withResolvers<void>();
  letGo = resolve;
  verify.mockImplementation(async (...args) => {
    await promise;
    return realVerify(...args);
  });
  return resolve;
}

// The clock stands still unless a test moves it, so that no delay runs out by itself.
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'] });
});
afterEach(() => {
  letGo();
  vi.useRealTimers();
  verify.mockReset();
  hash.mockReset();
});

test('a login gives tokens to the name in any case, and the access token works', () =>
  withServer(async (server) => {
    await server.admin();
    const { data, status } = await tryLogin(server, adminName.toUpperCase(), adminPassword);
    expect(status).toBe(200);
    expect(data.login).toEqual({
      credentials: {
        accessToken: expect.any(String),
        accessTokenExpiresAt: new Date(Date.now() + 15 * 60_000).toISOString(),
        refreshToken: expect.stringMatching(/^[\w-]{43}$/),
        user: { name: adminName },
      },
      userErrors: [],
    });
    const seen = await server.graphql('{ viewer { name role } }', {}, data.login.credentials.accessToken);
    expect(seen.data.viewer).toEqual({ name: adminName, role: 'ADMIN' });
  }));

test('a wrong password, an unknown name and a disabled user get the same answer after exactly one hash each', () =>
  withServer(async (server) => {
    await server.as('VIEWER');
    await server.as('ENGINEER');
    const users = await server.graphql('{ users { nodes { id name } } }', {}, await server.admin());
    const { id } = users.data.users.nodes.find((u: { name: string }) => u.name === 'viewer');
    await server.graphql('mutation ($id: ID!) { disableUser(input: { userId: $id }) { user { id } } }', { id }, await server.admin());

    const answers: unknown[] = [];
    for (const [name, password] of [
      ['engineer', wrong],
      ['nobody', wrong],
      ['viewer', adminPassword],
      ["' OR 1=1 --", wrong],
      ['', ''],
    ] as const) {
      verify.mockClear();
      hash.mockClear();
      // A slow machine must not tell one name from another either.
      if (name === 'nobody') verify.mockImplementationOnce((...args) => setTimeout(20).then(() => realVerify(...args)));
      const { status, headers, data, errors } = await tryLogin(server, name, password);
      expect([verify.mock.calls.length, hash.mock.calls.length], name).toEqual([1, 0]);
      const { requestId, ...extensions } = errors?.[0].extensions ?? {};
      answers.push({
        status,
        data,
        message: errors?.[0].message,
        extensions,
        requestIdLength: requestId.length,
        names: [...headers.keys()],
      });
    }
    expect(new Set(answers.map((a) => JSON.stringify(a))).size).toBe(1);
    expect(answers[0]).toMatchObject({
      status: 401,
      message: 'The name or the password is wrong.',
      extensions: { code: 'UNAUTHENTICATED' },
    });
  }));

test.each(['engineer', 'nobody'])('four failures of %s are free, the fifth costs a delay that doubles up to 15 minutes', (name) =>
  withServer(async (server) => {
    await server.as('ENGINEER');
    expect(await codesOf(server, name, 5)).toEqual(repeat(5, 'UNAUTHENTICATED'));
    const seconds: number[] = [];
    for (let i = 0; i < 12; i++) {
      const { status, headers, errors } = await tryLogin(server, name);
      expect([status, codeOf({ errors } as Answer)]).toEqual([429, 'RATE_LIMITED']);
      const { retryAfterMs, retryable } = errors?.[0].extensions ?? {};
      expect(retryable).toBe(true);
      expect(headers.get('retry-after')).toBe(String(retryAfterMs / 1000));
      seconds.push(retryAfterMs / 1000);
      later(retryAfterMs - 1);
      expect(await codesOf(server, name, 1)).toEqual(['RATE_LIMITED']);
      later(1);
      expect(await codesOf(server, name, 1)).toEqual(['UNAUTHENTICATED']);
    }
    expect(seconds).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
  }),
);

test('during the delay no hash is computed, the right password is refused too, and other names are not affected', () =>
  withServer(async (server) => {
    await server.as('ENGINEER');
    await server.as('VIEWER');
    await codesOf(server, 'engineer', 5);
    verify.mockClear();
    expect(codeOf(await tryLogin(server, 'ENGINEER', adminPassword, elsewhere))).toBe('RATE_LIMITED');
    expect(verify).not.toHaveBeenCalled();
    expect(codeOf(await tryLogin(server, 'viewer', adminPassword, elsewhere))).toBe('OK');
    later(1000);
    expect(codeOf(await tryLogin(server, 'engineer', adminPassword, elsewhere))).toBe('OK');
  }, behindProxy));

test('a right password forgets the failures', () =>
  withServer(async (server) => {
    await server.as('ENGINEER');
    for (let i = 0; i < 3; i++) {
      expect(await codesOf(server, 'engineer', 4)).toEqual(repeat(4, 'UNAUTHENTICATED'));
      expect(codeOf(await tryLogin(server, 'engineer', adminPassword))).toBe('OK');
    }
  }));

test('the delay survives a restart', () =>
  withFolder(async (WHETSTONE_DATA_DIR) => {
    const env = { WHETSTONE_DATA_DIR };
    await withServer((server) => codesOf(server, 'nobody', 5), env);
    await withServer(async (server) => expect(await codesOf(server, 'nobody', 1)).toEqual(['RATE_LIMITED']), env);
  }));

test('a clock that is set back makes no delay longer than 15 minutes', () =>
  withServer(async (server) => {
    await codesOf(server, 'nobody', 5);
    later(-3_600_000);
    const { errors } = await tryLogin(server, 'nobody');
    expect(errors?.[0].extensions.retryAfterMs).toBe(15 * 60_000);
  }));

test('a thousand wrong passwords cost five hashes', () =>
  withServer(async (server) => {
    const codes = await codesOf(server, 'nobody', 1000);
    expect(codes).toEqual([...repeat(5, 'UNAUTHENTICATED'), ...repeat(995, 'RATE_LIMITED')]);
    expect(verify).toHaveBeenCalledTimes(5);
  }));

test('of 100 logins at once two are hashed at a time, the others wait, and the health check answers meanwhile', () =>
  withServer(async (server) => {
    await server.as('ENGINEER');
    const open = holdHashes();
    const logins = Array.from({ length: 100 }, () => tryLogin(server, 'engineer', adminPassword).then(codeOf));
    await eventually(() => expect(verify).toHaveBeenCalledTimes(2));
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    expect(verify).toHaveBeenCalledTimes(2);
    open();
    expect(await Promise.all(logins)).toEqual(repeat(100, 'OK'));
  }));

test.each([
  ['disabled', 'mutation ($id: ID!) { disableUser(input: { userId: $id }) { userErrors { code } } }'],
  [
    'given another password',
    'mutation ($id: ID!) { resetPassword(input: { userId: $id, password: "another password" }) { userErrors { code } } }',
  ],
])('a user who is %s while the password is checked does not get in', (_what, change) =>
  withServer(async (server) => {
    const { data } = await server.graphql('{ viewer { id } }', {}, await server.as('ENGINEER'));
    const admin = await server.admin();
    const open = holdHashes();
    const login = tryLogin(server, 'engineer', adminPassword);
    await eventually(() => expect(verify).toHaveBeenCalledTimes(1));
    const changed = await server.graphql(change, { id: data.viewer.id }, admin);
    expect(changed.errors).toBeUndefined();
    open();
    expect(codeOf(await login)).toBe('UNAUTHENTICATED');
  }),
);

test('each login is in the audit log, denied ones too, and never with a password', () =>
  withServer(async (server) => {
    await server.as('ENGINEER');
    await tryLogin(server, 'engineer');
    await tryLogin(server, 'nobody');
    await tryLogin(server, 'engineer', adminPassword);
    const query =
      '{ auditLog(first: 3, filter: { action: "login" }) { nodes { outcome actor { name } targetType targetId detail requestId count } } }';
    const { data } = await server.graphql(query, {}, await server.admin());
    const known = { targetType: 'User', targetId: expect.any(String), detail: null, requestId: expect.any(String), count: 1 };
    expect(data.auditLog.nodes).toEqual([
      { outcome: 'OK', actor: { name: 'engineer' }, ...known },
      { outcome: 'DENIED', actor: null, ...known, targetType: null, targetId: null },
      { outcome: 'DENIED', actor: null, ...known },
    ]);
  }));

test('denied logins do not fill the disk: they are counted for each name and hour, and many names share a line', () =>
  withServer(async (server) => {
    await server.as('ENGINEER');
    const denied = async () => {
      const query = '{ auditLog(first: 100, filter: { outcome: DENIED }) { nodes { count at targetType } pageInfo { hasNextPage } } }';
      const { nodes, pageInfo } = (await server.graphql(query, {}, (await server.login(adminName, adminPassword)).accessToken)).data
        .auditLog;
      return { nodes, more: pageInfo.hasNextPage as boolean };
    };
    for (let i = 0; i < 3; i++) await tryLogin(server, 'engineer');
    for (let i = 0; i < 2; i++) await tryLogin(server, 'Nobody');
    const at = new Date().toISOString();
    expect((await denied()).nodes).toEqual([
      { count: 2, at, targetType: null },
      { count: 3, at, targetType: 'User' },
    ]);
    later(3600_000);
    await tryLogin(server, 'engineer');
    expect((await denied()).nodes.map((n: { count: number }) => n.count)).toEqual([1, 2, 3]);
    await withRows(server.dataDir, (db) => {
      for (let i = 0; i < 150; i++) countDenied(db, { actorId: null, requestId: null }, `random ${i}`, undefined);
    });
    const { nodes, more } = await denied();
    expect([nodes[0].count, nodes[1].count, more]).toEqual([50, 1, true]);
  }));

test('a user has at most 50 sessions: a further login ends the oldest', () =>
  withServer(async (server) => {
    await server.admin();
    const first = await server.login(adminName, adminPassword);
    const second = await server.login(adminName, adminPassword);
    for (let i = 0; i < 49; i++) await server.login(adminName, adminPassword);
    const sessions = await server.graphql('{ viewer { sessions { current } } }', {}, second.accessToken);
    expect(sessions.data.viewer.sessions).toHaveLength(50);
    expect((await server.graphql('{ viewer { id } }', {}, first.accessToken)).status).toBe(401);
  }));

test('the table of failures holds at most 100,000 names and forgets those whose delay ended first', () =>
  withFolder(async (folder) => {
    const { db, close } = openDatabase(folder);
    try {
      db.$client.exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
        INSERT INTO login_throttle SELECT printf('%064d', i), 9, i FROM n`);
      countTry(db, 'one more');
      const { n, oldest } = db.$client.prepare('SELECT count(*) AS n, min(notBefore) AS oldest FROM login_throttle').get() as Record<
        string,
        number
      >;
      expect([n, oldest]).toEqual([90_001, 10_001]);
    } finally {
      close();
    }
  }));
