import { eq } from 'drizzle-orm';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { endSessions, insertSession } from '../src/accounts/sessions.ts';
import { type User, user as users } from '../src/accounts/tables.ts';
import { insertUser } from '../src/accounts/users.ts';
import { type Bus, createBus } from '../src/bus.ts';
import { openDatabase } from '../src/db.ts';
import { ApiError } from '../src/errors.ts';
import { follow } from '../src/follow.ts';
import { untilAborted, watchAccess } from '../src/graphql/access.ts';
import { nextAnswer, withEvents } from './support/events.ts';
import { eventually } from './support/eventually.ts';
import { adminPassword, type TestServer, withFolder, withServer } from './support/server.ts';
import { ask, type Socket, withConnection } from './support/socket.ts';
import { sources } from './support/ticks.ts';

vi.mock('../src/graphql/schema.ts', async (original) => {
  const { withTicks } = await import('./support/ticks.ts');
  return { schema: withTicks((await original<typeof import('../src/graphql/schema.ts')>()).schema) };
});

beforeEach(() => {
  sources.length = 0;
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** A subscription that has one event at once and then none: it is open and silent. */
const subscription = 'subscription { ticks(first: 1) }';

type Change = (server: TestServer, user: { id: string; session: string; refreshToken: string }) => Promise<unknown>;
const asAdmin = async (server: TestServer, query: string, variables: object) => {
  const { errors } = await server.graphql(query, variables, await server.admin());
  expect(errors).toBeUndefined();
};
const resetPassword = 'mutation ($id: ID!) { resetPassword(input: { userId: $id, password: "another password" }) { userErrors { code } } }';
const refresh = 'mutation ($t: String!) { refresh(input: { refreshToken: $t }) { credentials { refreshToken } } }';

/** Everything that takes access away, and the message that the user gets. */
const changes: Record<string, [Change, RegExp]> = {
  'the role is changed': [
    (server, { id }) => asAdmin(server, 'mutation ($id: ID!) { updateUser(input: { userId: $id, role: VIEWER }) { user { id } } }', { id }),
    /role was changed/,
  ],
  'the user is disabled': [
    (server, { id }) => asAdmin(server, 'mutation ($id: ID!) { disableUser(input: { userId: $id }) { user { id } } }', { id }),
    /session has ended/,
  ],
  'the password is reset': [(server, { id }) => asAdmin(server, resetPassword, { id }), /session has ended/],
  'the session is revoked': [
    (server, { session }) =>
      asAdmin(server, 'mutation ($id: ID!) { revokeSession(input: { sessionId: $id }) { session { id } } }', { id: session }),
    /session has ended/,
  ],
  'the user logs out': [
    (server, { refreshToken }) =>
      server.graphql('mutation ($t: String!) { logout(input: { refreshToken: $t }) { userErrors { code } } }', { t: refreshToken }),
    /session has ended/,
  ],
  'a refresh token is used twice': [
    async (server, { refreshToken }) => {
      await server.graphql(refresh, { t: refreshToken });
      await server.graphql(refresh, { t: refreshToken });
    },
    /session has ended/,
  ],
};

/** An engineer who is logged in. */
async function engineer(server: TestServer) {
  await server.as('ENGINEER');
  const { accessToken, refreshToken } = await server.login('engineer', adminPassword);
  const { data } = await server.graphql('{ viewer { id sessions { id current } } }', {}, accessToken);
  const session = data.viewer.sessions.find((s: { current: boolean }) => s.current).id as string;
  return { id: data.viewer.id as string, session, refreshToken, accessToken };
}

async function subscribed(socket: Socket, id = 'ticks'): Promise<void> {
  expect((await ask(socket, id, subscription)).payload.data).toEqual({ ticks: '1' });
}

test.each(Object.entries(changes))('when %s, the open event stream ends with an error that says so', (_what, [change, message]) =>
  withServer(async (server) => {
    const user = await engineer(server);
    await withEvents(server.url, subscription, user.accessToken, async (items) => {
      expect(await nextAnswer(items)).toEqual({ data: { ticks: '1' } });
      await change(server, user);
      const last = await nextAnswer(items);
      expect(last.errors).toEqual([
        {
          message: expect.stringMatching(message),
          extensions: { code: 'UNAUTHENTICATED', retryable: false, requestId: expect.any(String) },
        },
      ]);
      expect(await nextAnswer(items)).toBeUndefined();
    });
    await eventually(() => expect(sources.map((s) => s.open)).toEqual([false]));
  }),
);

test.each(Object.entries(changes))('when %s, the open socket is closed with 4403 and a reason', (_what, [change, message]) =>
  withServer(async (server) => {
    const user = await engineer(server);
    await withConnection(server.url, user.accessToken, async (socket) => {
      await subscribed(socket);
      await change(server, user);
      expect(await socket.closed).toEqual({ code: 4403, reason: expect.stringMatching(message) });
    });
    await eventually(() => expect(sources.map((s) => s.open)).toEqual([false]));
  }),
);

test('a new role counts from the next request on, with the same token', () =>
  withServer(async (server) => {
    const user = await engineer(server);
    const users = async () => (await server.graphql('{ users { nodes { id } } }', {}, user.accessToken)).status;
    const setRole = (role: string) =>
      asAdmin(server, 'mutation ($i: UpdateUserInput!) { updateUser(input: $i) { user { id } } }', { i: { userId: user.id, role } });
    expect(await users()).toBe(403);
    await setRole('ADMIN');
    expect(await users()).toBe(200);
    await setRole('ENGINEER');
    expect(await users()).toBe(403);
  }));

test('other users and other sessions keep their streams and sockets', () =>
  withServer(async (server) => {
    const one = await engineer(server);
    const other = await server.login('engineer', adminPassword);
    const viewer = await server.as('VIEWER');
    await withConnection(server.url, other.accessToken, (sameUser) =>
      withConnection(server.url, viewer, async (anotherUser) => {
        await subscribed(sameUser);
        await subscribed(anotherUser);
        await changes['the session is revoked']?.[0](server, one);
        for (const socket of [sameUser, anotherUser]) {
          expect((await ask(socket, 'still', '{ viewer { name } }')).payload.data.viewer).not.toBeNull();
        }
        expect(sources.map((s) => s.open)).toEqual([true, true]);
        await changes['the role is changed']?.[0](server, one);
        expect((await sameUser.closed).code).toBe(4403);
        expect((await ask(anotherUser, 'still there', '{ viewer { name } }')).payload.data.viewer).not.toBeNull();
      }),
    );
  }));

test('when the access token expires, streams end and the socket is closed with 4403, whatever its operations do', () =>
  withServer(async (server) => {
    const timers = vi.spyOn(globalThis, 'setTimeout');
    const token = await server.as('VIEWER');
    await withConnection(server.url, token, async (socket) => {
      await subscribed(socket);
      await withEvents(server.url, subscription, token, async (items) => {
        expect(await nextAnswer(items)).toEqual({ data: { ticks: '1' } });
        // The time that passes: the clock is put forward, and the timers of 15 minutes go off.
        const expiries = timers.mock.calls.filter(([, ms]) => Number(ms) > 14 * 60_000);
        expect(expiries).toHaveLength(3);
        vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 15 * 60_000 });
        for (const [expire] of expiries) expire();
        expect((await nextAnswer(items)).errors[0]).toMatchObject({
          message: expect.stringContaining('expired'),
          extensions: { code: 'UNAUTHENTICATED' },
        });
      });
      expect(await socket.closed).toEqual({ code: 4403, reason: expect.stringContaining('expired') });
    });
    expect((await server.graphql('{ viewer { id } }', {}, token)).status).toBe(401);
  }));

test('a request whose body comes after the access was taken away is refused', () =>
  withServer(async (server) => {
    const user = await engineer(server);
    const late = async (query: string, change: Change) => {
      const { readable, writable } = new TransformStream<Uint8Array>();
      const writer = writable.getWriter();
      const body = JSON.stringify({ query });
      const headers = {
        'content-type': 'application/json',
        authorization: `Bearer ${user.accessToken}`,
        accept: 'application/json, text/event-stream',
      };
      const answer = fetch(`${server.url}/graphql`, { method: 'POST', headers, body: readable, duplex: 'half' } as RequestInit);
      await writer.write(new TextEncoder().encode(body.slice(0, 5)));
      // The server has the head of the request when it has answered a later one.
      await fetch(`${server.url}/health`);
      await change(server, user);
      await writer.write(new TextEncoder().encode(body.slice(5)));
      await writer.close();
      return answer;
    };
    const role =
      (role: string): Change =>
      (_server, { id }) =>
        asAdmin(server, 'mutation ($i: UpdateUserInput!) { updateUser(input: $i) { user { id } } }', { i: { userId: id, role } });
    await role('ADMIN')(server, user);
    expect((await late('{ users { nodes { id } } }', role('ENGINEER'))).status).toBe(403);
    const disabled = changes['the user is disabled']?.[0] as Change;
    const answer = await late(subscription, disabled);
    expect(await answer.text()).toContain('UNAUTHENTICATED');
    expect(sources).toEqual([]);
  }));

test('watchAccess: ends when the session has ended, the role has changed or the user is disabled, and at the expiry; not before, and not after its stop', async () => {
  await withFolder(async (folder) => {
    const { db, close } = openDatabase(folder);
    const user = insertUser(db, { name: 'ada', passwordHash: 'x', role: 'VIEWER' });
    const familyId = 'f1';
    insertSession(db, user.id, familyId, { client: null, address: '' });
    insertSession(db, user.id, 'f2', { client: null, address: '' });
    vi.useFakeTimers();
    const reasonAfter = (act: (bus: Bus, stop: () => void) => void) => {
      const bus = createBus();
      const { signal, stop } = watchAccess({ db, bus }, { by: 'SESSION', user, familyId, expiresAt: Date.now() + 60_000 });
      act(bus, stop);
      stop();
      return signal.aborted ? (signal.reason as ApiError).message : undefined;
    };
    const wake = (bus: Bus) => bus.wake('accessChanged', user.id);
    const set = (change: Partial<User>) => db.update(users).set(change).where(eq(users.id, user.id)).run();
    expect(reasonAfter(wake)).toBeUndefined();
    endSessions(db, { familyId: 'f2' });
    expect(reasonAfter(wake), 'another session').toBeUndefined();
    set({ role: 'ADMIN' });
    expect(reasonAfter((bus) => bus.wake('accessChanged', 'somebody'))).toBeUndefined();
    expect(reasonAfter(wake)).toContain('role');
    set({ role: 'VIEWER', disabledAt: 1 });
    expect(reasonAfter(wake)).toContain('session has ended');
    set({ disabledAt: null });
    expect(reasonAfter(() => vi.advanceTimersByTime(59_999))).toBeUndefined();
    expect(reasonAfter(() => vi.advanceTimersByTime(60_000))).toContain('expired');
    endSessions(db, { familyId });
    expect(reasonAfter(wake)).toContain('session has ended');
    const afterStop = reasonAfter((bus, stop) => {
      stop();
      wake(bus);
      vi.advanceTimersByTime(60_000);
    });
    expect(afterStop).toBeUndefined();
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
    close();
  });
});

/** untilAborted over a queue, with what it did. */
function underWatch() {
  const controller = new AbortController();
  const pushed: number[] = [];
  let wake = () => {};
  const close = vi.fn();
  const source = follow<number>(
    (w) => {
      wake = w;
      return () => {};
    },
    function* () {
      while (pushed.length > 0) yield pushed.shift() as number;
      return false;
    },
  );
  const push = (n: number) => {
    pushed.push(n);
    wake();
  };
  const stream = untilAborted(source, controller.signal, (reason) => reason as number, close);
  return { controller, stream, close, source, push };
}

test('untilAborted: a reader who waits gets the reason as the last item, then the end', async () => {
  const { controller, stream, close, push } = underWatch();
  push(1);
  expect(await stream.next()).toEqual({ done: false, value: 1 });
  const waiting = stream.next();
  controller.abort(99);
  expect(await waiting).toEqual({ done: false, value: 99 });
  expect(await stream.next()).toEqual({ done: true, value: undefined });
  expect(close).toHaveBeenCalledTimes(1);
});

test('untilAborted: after the abort no queued event is given out any more', async () => {
  const { controller, stream, push } = underWatch();
  push(1);
  push(2);
  controller.abort(99);
  expect(await stream.next()).toEqual({ done: false, value: 99 });
  expect(await stream.next()).toEqual({ done: true, value: undefined });
});

test('untilAborted: an abort before the first read counts too', async () => {
  const { controller, source } = underWatch();
  controller.abort(99);
  const stream = untilAborted(
    source,
    controller.signal,
    (reason) => reason as number,
    () => {},
  );
  expect(await stream.next()).toEqual({ done: false, value: 99 });
});

test('untilAborted: a return while a read waits ends both, and closes once', async () => {
  const { stream, close } = underWatch();
  const waiting = stream.next();
  expect(await stream.return?.()).toEqual({ done: true, value: undefined });
  expect(await waiting).toEqual({ done: true, value: undefined });
  await stream.return?.();
  expect(close).toHaveBeenCalledTimes(1);
});

test('untilAborted: the end of the source is the end; its failure is passed on and closes', async () => {
  const ending = underWatch();
  const waiting = ending.stream.next();
  await ending.source.return();
  expect(await waiting).toEqual({ done: true, value: undefined });
  expect(ending.close).toHaveBeenCalledTimes(1);

  const close = vi.fn();
  const failing = { next: () => Promise.reject(new ApiError('UNAVAILABLE', 'gone')) };
  const stream = untilAborted(failing, new AbortController().signal, () => 0, close);
  await expect(stream.next()).rejects.toThrow('gone');
  expect(await stream.next()).toEqual({ done: true, value: undefined });
  expect(close).toHaveBeenCalledTimes(1);
});
