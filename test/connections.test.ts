/** What those who open many connections, or are slow on purpose, can take from others: nothing. */
import { once } from 'node:events';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { type Connections, guardedServer, silenceMs } from '../src/connections.ts';
import { answerMsMax } from '../src/deployments/infer.ts';
import { ModelSettings } from '../src/inference/config.ts';
import { eventually } from './support/eventually.ts';

afterEach(() => {
  vi.useRealTimers();
});

interface Guarded {
  connections: Connections;
  /** A connection from this address that has sent this. */
  come(text: string, localAddress?: string): Promise<Socket>;
  /** How many requests have arrived, at most as far as their heads. */
  arrived(): number;
  /** Bytes of bodies. */
  received(): number;
  /** How many listeners its connection had when each request arrived. */
  listeners: number[];
}

/** A server that takes three connections and answers `/` at once, anything else never; `/trusted` is of a user. */
async function withGuard(use: (guarded: Guarded) => Promise<void>, headersMs?: number): Promise<void> {
  let arrived = 0;
  let received = 0;
  const listeners: number[] = [];
  const limits = { max: 3, requestMs: 0, headersMs };
  const { http, connections } = guardedServer(
    limits,
    ({ message }) => JSON.stringify({ message }),
    (req, res) => {
      arrived += 1;
      listeners.push(req.socket.listenerCount('close'));
      req.on('data', ({ length }) => {
        received += length;
      });
      if (req.url === '/trusted') connections.trust(res);
      if (req.url === '/') res.end('here');
    },
  );
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  const { port } = http.address() as AddressInfo;
  try {
    await use({
      connections,
      arrived: () => arrived,
      received: () => received,
      listeners,
      async come(text, localAddress = '127.0.0.1') {
        const socket = connect({ port, host: '127.0.0.1', localAddress });
        socket.on('error', () => {});
        await once(socket, 'connect');
        socket.write(text);
        return socket;
      },
    });
  } finally {
    connections.closeAll();
    http.close();
  }
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;
const halfBody = (path: string) => `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx`;
const answered = async (socket: Socket) => String((await once(socket, 'data'))[0]);

describe('a connection too many is taken, and another is closed', () => {
  test('the one that has waited longest for its client', () =>
    withGuard(async ({ come }) => {
      const [oldest, second, third] = [await come(''), await come(halfBody('/late')), await come('')] as const;
      const closed = once(oldest, 'close');
      expect(await answered(await come(get('/')))).toContain('here');
      await closed;
      expect([second.closed, third.closed]).toEqual([false, false]);
    }));

  test('of the address that has most of them, however long those of others wait', () =>
    withGuard(async ({ come }) => {
      const user = await come('', '127.0.0.2');
      const attacker = [await come(''), await come('')];
      const closed = once(attacker[0] as Socket, 'close');
      expect(await answered(await come(get('/')))).toContain('here');
      await closed;
      expect(user.closed).toBe(false);
    }));

  test('never one whose request is being answered, nor an upload of a user', () =>
    withGuard(async ({ come, arrived }) => {
      const upload = await come(halfBody('/trusted'));
      const asking = await come(get('/late'));
      await eventually(() => expect(arrived()).toBe(2));
      const idle = await come('');
      const closed = once(idle, 'close');
      expect(await answered(await come(get('/')))).toContain('here');
      await closed;
      expect([upload.closed, asking.closed]).toEqual([false, false]);
    }));

  test('the new one, where nobody else waits', () =>
    withGuard(async ({ come, arrived }) => {
      for (let n = 0; n < 3; n += 1) await come(get('/late'));
      await eventually(() => expect(arrived()).toBe(3));
      await once(await come(''), 'close');
    }));

  test('and thousands that say nothing keep nobody out', () =>
    withGuard(async ({ come }) => {
      for (let n = 0; n < 300; n += 1) await come('');
      expect(await answered(await come(get('/')))).toContain('here');
    }));
});

test('a connection that is kept alive holds nothing of the requests before', () =>
  withGuard(async ({ come, listeners }) => {
    const socket = await come('');
    for (let n = 1; n <= 10; n += 1) {
      const answer = answered(socket);
      socket.write(halfBody('/'));
      expect(await answer).toContain('here');
      socket.write('x'.repeat(99_999));
    }
    // The request before may still be ending.
    expect(Math.max(...listeners)).toBeLessThanOrEqual(1 + Math.min(...listeners));
  }));

describe('once its time is over', () => {
  const headersMs = 300;

  test('a head that arrives a byte at a time is answered with 408 and closed, before it is whole', () =>
    withGuard(async ({ come }) => {
      const socket = await come('GET / HTTP/1.1\r\nHost: x\r\nX-Long: ');
      const dripping = setInterval(() => socket.write('x'), 10);
      try {
        const closed = once(socket, 'close');
        expect(await answered(socket)).toMatch(/^HTTP\/1.1 408 .*Send it again/s);
        await closed;
      } finally {
        clearInterval(dripping);
      }
    }, headersMs));

  test('a connection that sends nothing is closed, so that others need not be', () =>
    withGuard(async ({ come }) => {
      const silent = await Promise.all([come(''), come(''), come('')]);
      await Promise.all(silent.map((socket) => once(socket.resume(), 'close')));
    }, headersMs));
});

test('a client gets the answer of the host that misses its deadline, and the word that there is none, before its connection is closed', () => {
  const deadlines = (ms: number) => ModelSettings.shape.deadlineMs.safeParse(ms).success;
  expect([deadlines(60_000), deadlines(60_001)]).toEqual([true, false]);
  expect(answerMsMax).toBeGreaterThan(60_000);
  expect(silenceMs).toBeGreaterThan(answerMsMax);
});

test('a body that drips is cut off after 10 seconds; one that comes slowly arrives', () =>
  withGuard(async ({ come, arrived, received }) => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const dripping = await come(halfBody('/late'));
    const slow = await come(halfBody('/late'));
    await eventually(() => expect(arrived()).toBe(2));
    slow.write('x'.repeat(20_000));
    await eventually(() => expect(received()).toBe(20_002));
    const closed = once(dripping, 'close');
    vi.advanceTimersByTime(10_000);
    await closed;
    expect(slow.closed).toBe(false);
  }));

test('once it stops, a kept connection ends with the answer that it waits for, without a reset', () =>
  withGuard(async ({ connections, come }) => {
    const socket = await come(get('/'));
    expect(await answered(socket)).not.toContain('Connection: close');
    connections.closeAfterAnswers();
    socket.write(get('/'));
    expect(await answered(socket)).toContain('Connection: close');
    await once(socket, 'end');
  }));
