import argon2 from 'argon2';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { hashInTurn } from '../src/accounts/passwords.ts';
import { eventually } from './support/eventually.ts';
import { type Answer, adminName, adminPassword, postGraphql, type TestServer, withServer } from './support/server.ts';

/** When held tries began to wait for their answer, and for how long. */
const waits: { atMs: number; ms: number }[] = [];

vi.mock(import('node:timers/promises'), async (original) => {
  const real = await original();
  const setTimeout = ((ms: number, ...rest: []) => {
    // On a slow machine the check of the password may have taken all of it.
    const isHeld = ms <= 500;
    if (isHeld) waits.push({ atMs: performance.now(), ms });
    return real.setTimeout(isHeld ? 0 : ms, ...rest);
  }) as typeof real.setTimeout;
  return { ...real, default: { ...real, setTimeout }, setTimeout };
});

const verify = vi.spyOn(argon2, 'verify');

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'] });
  waits.length = 0;
});
afterEach(() => {
  vi.useRealTimers();
  verify.mockReset();
});

/** The test says where a request comes from, as a proxy would. */
const env = { WHETSTONE_TRUSTED_PROXIES: '127.0.0.1, ::1' };
const [home, attacker, abroad] = ['198.51.100.1', '203.0.113.7', '192.0.2.55'] as const;
const wrong = 'not the password';

const mutation = 'mutation ($i: LoginInput!) { login(input: $i) { credentials { accessToken refreshToken } userErrors { code } } }';
const tryLogin = ({ url }: TestServer, address: string, name: string, password = wrong): Promise<Answer> =>
  postGraphql(url, mutation, { i: { name, password } }, undefined, { 'x-forwarded-for': address });
const codeOf = (answer: Answer): string => answer.errors?.[0].extensions.code ?? 'OK';
const later = (ms: number) => vi.setSystemTime(Date.now() + ms);

/** Wrong passwords until the name is delayed by a quarter of an hour. */
async function delay(server: TestServer, name: string): Promise<void> {
  for (let waitMs = 0; waitMs < 900_000; ) {
    waitMs = (await tryLogin(server, attacker, name)).errors?.[0].extensions.retryAfterMs ?? 0;
    if (waitMs < 900_000) later(waitMs);
  }
}

async function addUser(server: TestServer, name: string, role: string): Promise<void> {
  const query = 'mutation ($i: CreateUserInput!) { createUser(input: $i) { userErrors { message } } }';
  expect((await server.graphql(query, { i: { name, role, password: adminPassword } }, await server.admin())).errors).toBeUndefined();
}

test('wrong passwords with random names from one address stop that address only: a right password from any other is in', () =>
  withServer(async (server) => {
    await addUser(server, 'ingrid', 'ENGINEER');
    verify.mockClear();
    const codes = await Promise.all(Array.from({ length: 100 }, async (_, i) => codeOf(await tryLogin(server, attacker, `random ${i}`))));
    expect(codes.filter((code) => code === 'UNAUTHENTICATED')).toHaveLength(30);
    expect(codes.filter((code) => code === 'RATE_LIMITED')).toHaveLength(70);
    expect(verify).toHaveBeenCalledTimes(30);
    expect(codeOf(await tryLogin(server, attacker, 'ingrid', adminPassword)), 'nor is the right one asked there').toBe('RATE_LIMITED');
    expect(codeOf(await tryLogin(server, home, 'ingrid', adminPassword))).toBe('OK');
    later(60_000);
    expect(codeOf(await tryLogin(server, attacker, 'random 101'))).toBe('UNAUTHENTICATED');
  }, env));

test('right passwords cost an address nothing', () =>
  withServer(async (server) => {
    await server.admin();
    for (let i = 0; i < 40; i++) expect(codeOf(await tryLogin(server, home, adminName, adminPassword))).toBe('OK');
  }, env));

test('while a name is delayed, and its address too, the right password gets in from the address of an open session, and from no other', () =>
  withServer(async (server) => {
    await addUser(server, 'ingrid', 'ENGINEER');
    await tryLogin(server, home, 'ingrid', adminPassword);
    await delay(server, 'ingrid');
    for (let i = 0; i < 40; i++) await tryLogin(server, home, `random ${i}`);
    expect(codeOf(await tryLogin(server, abroad, 'ingrid', adminPassword))).toBe('RATE_LIMITED');
    for (let i = 0; i < 3; i++) expect(codeOf(await tryLogin(server, home, 'ingrid', adminPassword)), 'as often as it is right').toBe('OK');
    expect(codeOf(await tryLogin(server, attacker, 'ingrid')), 'the delay stays').toBe('RATE_LIMITED');

    const { accessToken } = (await tryLogin(server, home, 'ingrid', adminPassword)).data.login.credentials;
    const { data: seen } = await server.graphql('{ viewer { sessions { id } } }', {}, accessToken);
    for (const { id } of seen.viewer.sessions.toReversed()) {
      await server.graphql('mutation ($id: ID!) { revokeSession(input: { sessionId: $id }) { userErrors { code } } }', { id }, accessToken);
    }
    expect(codeOf(await tryLogin(server, home, 'ingrid', adminPassword)), 'no session, no exception').toBe('RATE_LIMITED');
  }, env));

test('a held name is checked once in 5 seconds from the address of its session, but a repeated wrong password does not take the turn', () =>
  withServer(async (server) => {
    await addUser(server, 'ingrid', 'ENGINEER');
    await tryLogin(server, home, 'ingrid', adminPassword);
    await delay(server, 'ingrid');
    verify.mockClear();
    for (let i = 0; i < 50; i++) expect(codeOf(await tryLogin(server, home, 'ingrid', `guess ${i}`))).toBe('RATE_LIMITED');
    expect(verify).toHaveBeenCalledTimes(1);
    later(5000);
    // A program with an old password asks again and again.
    for (let i = 0; i < 50; i++) expect(codeOf(await tryLogin(server, home, 'ingrid', 'guess 0'))).toBe('RATE_LIMITED');
    expect(verify).toHaveBeenCalledTimes(1);
    expect(codeOf(await tryLogin(server, home, 'ingrid', adminPassword))).toBe('OK');
  }, env));

test('somebody who polls the name of the last administrator keeps them out nowhere', () =>
  withServer(async (server) => {
    await server.admin();
    await delay(server, adminName);
    for (let i = 0; i < 50; i++) expect(codeOf(await tryLogin(server, attacker, adminName))).toBe('RATE_LIMITED');
    expect(codeOf(await tryLogin(server, abroad, adminName, adminPassword))).toBe('OK');
    // From the attacker's own address too, within 5 seconds.
    later(5000);
    for (let i = 0; i < 50; i++) expect(codeOf(await tryLogin(server, attacker, adminName))).toBe('RATE_LIMITED');
    expect(codeOf(await tryLogin(server, attacker, adminName, adminPassword))).toBe('OK');
  }, env));

test('one of two administrators is delayed like everybody, until the other is delayed too', () =>
  withServer(async (server) => {
    await addUser(server, 'second', 'ADMIN');
    await delay(server, adminName);
    expect(codeOf(await tryLogin(server, abroad, adminName, adminPassword))).toBe('RATE_LIMITED');
    await delay(server, 'second');
    await delay(server, adminName);
    expect(codeOf(await tryLogin(server, abroad, adminName, adminPassword))).toBe('OK');
    expect(codeOf(await tryLogin(server, abroad, 'second', adminPassword))).toBe('OK');
  }, env));

test('the last administrator, a user and an unknown name get the same answers at the same time, before, during and after a delay', () =>
  withServer(async (server) => {
    await addUser(server, 'ingrid', 'ENGINEER');
    await tryLogin(server, attacker, 'ingrid', adminPassword);
    const seen: unknown[] = [];
    for (const [i, name] of [adminName, 'ingrid', 'nobody'].entries()) {
      const answers: unknown[] = [];
      for (let step = 0; step < 14; step++) {
        waits.length = 0;
        const askedAt = performance.now();
        // Each has an address of its own, with nothing on its account.
        const { status, errors } = await tryLogin(server, i === 1 ? attacker : `203.0.113.${100 + i}`, name);
        const { requestId: _, ...extensions } = errors?.[0].extensions ?? {};
        answers.push([status, errors?.[0].message, extensions, waits.length]);
        if (extensions.code === 'RATE_LIMITED') {
          // Half a second after it came: what the check of a password took is a part of that.
          expect(waits).toHaveLength(1);
          const [held] = waits as [{ atMs: number; ms: number }];
          expect(held.ms).toBeLessThan(500);
          expect(held.atMs + held.ms - askedAt).toBeGreaterThanOrEqual(500);
        }
        if (step % 3 === 2) later(extensions.retryAfterMs ?? 0);
        else later(1);
      }
      seen.push(answers);
    }
    expect(seen[0]).toEqual(seen[2]);
    expect(seen[1]).toEqual(seen[2]);
    expect(JSON.stringify(seen[0])).toContain('RATE_LIMITED');
  }, env));

test('hashes are computed in turns of the addresses: one login does not wait for all those of another', async () => {
  const order: string[] = [];
  const gate = Promise.withResolvers<void>();
  const login = (key: string, name: string, known = false) =>
    hashInTurn({ key, known }, async () => {
      order.push(name);
      await gate.promise;
    });
  const all = [
    ...['first', 'second', 'third', 'fourth', 'fifth'].map((name) => login(attacker, name)),
    login(home, 'home'),
    login(abroad, 'abroad'),
    login('a known one', 'known', true),
  ];
  expect(order).toEqual(['first', 'second']);
  gate.resolve();
  await Promise.all(all);
  expect(order).toEqual(['first', 'second', 'known', 'third', 'home', 'abroad', 'fourth', 'fifth']);
});

test('a full line refuses whoever has the most in it', async () => {
  const gate = Promise.withResolvers<void>();
  const login = (key: string) =>
    hashInTurn({ key, known: false }, () => gate.promise)
      .then(() => 'OK')
      .catch((e) => e.code as string);
  const flood = Array.from({ length: 200 }, () => login(attacker));
  const others = [login(home), login(abroad)];
  gate.resolve();
  expect(await Promise.all(others)).toEqual(['OK', 'OK']);
  const codes = await Promise.all(flood);
  expect(codes.filter((code) => code === 'OK')).toHaveLength(128);
  expect(codes.filter((code) => code === 'RATE_LIMITED')).toHaveLength(72);
});

test('a login that found the line full is no failure of its name', () =>
  withServer(async (server) => {
    await addUser(server, 'ingrid', 'ENGINEER');
    const gate = Promise.withResolvers<void>();
    const flood = Array.from({ length: 130 }, (_, i) => hashInTurn({ key: String(i), known: false }, () => gate.promise));
    for (let i = 0; i < 10; i++) {
      expect((await tryLogin(server, home, 'ingrid')).errors?.[0].message).toContain('Too many logins at this moment');
    }
    gate.resolve();
    await Promise.all(flood);
    await eventually(async () => expect(codeOf(await tryLogin(server, home, 'ingrid', adminPassword))).toBe('OK'));
  }, env));
