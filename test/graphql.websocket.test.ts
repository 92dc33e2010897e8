import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { connect, type Socket as TcpSocket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { eventually } from './support/eventually.ts';
import { adminName, adminPassword, withServer } from './support/server.ts';
import { ask, type Socket, withConnection, withSocket } from './support/socket.ts';
import { sources } from './support/ticks.ts';

vi.mock('../src/graphql/schema.ts', async (original) => {
  const { withTicks } = await import('./support/ticks.ts');
  return { schema: withTicks((await original<typeof import('../src/graphql/schema.ts')>()).schema) };
});

beforeEach(() => {
  sources.length = 0;
});
afterEach(() => {
  vi.useRealTimers();
});

const init = { type: 'connection_init' };
const ticks = 'subscription { ticks(first: 1) }';
const typename = { data: { __typename: 'Query' } };
const open = () => sources.filter((s) => s.open).length;

/** Subscribes, and waits for the first event. */
async function follow(socket: Socket, id: string): Promise<void> {
  expect((await ask(socket, id, ticks)).payload.data).toEqual({ ticks: '1' });
}

describe('an upgrade', () => {
  test.each(['http://evil.example', 'https://localhost', 'null', 'file://'])('from the foreign origin %s is 403', (origin) =>
    withServer(async ({ url }) => {
      await expect(withSocket(url, async () => {}, { origin })).rejects.toThrow('refused with 403');
    }),
  );

  test('from an own or a configured origin, or from a program without one, is accepted', () =>
    withServer(
      async ({ url }) => {
        for (const origin of [url, url.replace('127.0.0.1', 'localhost'), 'https://lab.example', undefined]) {
          await withSocket(
            url,
            async (socket) => {
              socket.send(init);
              expect((await socket.message(() => true)).type).toBe('connection_ack');
            },
            { origin },
          );
        }
      },
      { WHETSTONE_ALLOWED_ORIGINS: 'https://lab.example' },
    ));

  test.each(['/', '/graphql/x', '/health', '//', '//graphql', '/%', 'http://[', '*'])(
    'at the path %s is refused, and the server goes on',
    (path) =>
      withServer(async ({ url }) => {
        const socket = await upgrade(url, path);
        const [head] = (await once(socket, 'data')) as [Buffer];
        expect(String(head)).toMatch(/^HTTP\/1\.1 4\d\d /);
        socket.destroy();
        expect((await fetch(`${url}/health`)).status).toBe(200);
      }),
  );

  test('with another subprotocol is closed with 4406', () =>
    withServer(async ({ url }) => {
      for (const protocol of ['graphql-ws', 'mqtt']) {
        await withSocket(url, async (socket) => expect((await socket.closed).code).toBe(4406), { protocol }).catch((error: Error) =>
          expect(error.message).toMatch(/subprotocol/),
        );
      }
    }));

  test('that is refused leaves no connection, though its client never ends its own', () =>
    withServer(async (server) => {
      /** The server's ends, by the ports of the clients'. */
      const taken = new Map<number, TcpSocket>();
      const take = (message: unknown) => {
        const { socket } = message as { socket: TcpSocket };
        taken.set(Number(socket.remotePort), socket);
      };
      subscribe('net.server.socket', take);
      const refused = async (status: string, path: string, ...headers: string[]) => {
        const socket = await upgrade(server.url, path, { headers, allowHalfOpen: true });
        expect(String((await once(socket, 'data'))[0])).toMatch(`HTTP/1.1 ${status}\r\n`);
        await eventually(() => expect([status, taken.get(Number(socket.localPort))?.destroyed]).toEqual([status, true]));
        expect(socket.writableEnded).toBe(false);
        socket.destroy();
      };
      const members: TcpSocket[] = [];
      try {
        await refused('403 Forbidden', '/graphql', 'Origin: http://evil.example');
        await refused('404 Not Found', '/nothing');
        await refused('400 Bad Request', '/graphql', 'Sec-WebSocket-Version: 13');
        // All places are taken by users.
        const authorization = `Bearer ${await server.as('VIEWER')}`;
        members.push(...(await Promise.all(Array.from({ length: 1000 }, () => acknowledged(server.url, { authorization })))));
        await refused('503 Service Unavailable', '/graphql');
      } finally {
        unsubscribe('net.server.socket', take);
        for (const socket of members) socket.destroy();
      }
    }));
});

/** A TCP connection that has sent the head of an upgrade. */
async function upgrade(url: string, path: string, { headers = [] as string[], allowHalfOpen = false } = {}): Promise<TcpSocket> {
  const socket = connect({ port: Number(new URL(url).port), host: '127.0.0.1', allowHalfOpen });
  await once(socket, 'connect');
  const lines = [
    'Host: localhost',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  ];
  socket.write(`GET ${path} HTTP/1.1\r\n${[...lines, 'Sec-WebSocket-Protocol: graphql-transport-ws', ...headers].join('\r\n')}\r\n\r\n`);
  return socket;
}

/**
 * A WebSocket whose connection_init was acknowledged. It is sent at once: of a thousand that all wait for the last of them the first would
 * be closed for their silence.
 */
async function acknowledged(url: string, payload?: object): Promise<TcpSocket> {
  const socket = await upgrade(url, '/graphql');
  socket.write(textFrame({ ...init, payload }));
  let received = '';
  await new Promise<void>((resolve, reject) => {
    socket.on('data', (piece) => {
      received += piece;
      if (received.includes('connection_ack')) resolve();
    });
    socket.once('close', () => reject(new Error(`The connection was closed: ${received}`)));
  });
  return socket;
}

/** A message in one text frame with a mask of zeros. */
function textFrame(message: object): Buffer {
  const text = Buffer.from(JSON.stringify(message));
  const length = text.length < 126 ? [0x80 | text.length] : [0x80 | 126, text.length >> 8, text.length & 0xff];
  return Buffer.concat([Buffer.from([0x81, ...length, 0, 0, 0, 0]), text]);
}

describe('the protocol', () => {
  const violations: Record<string, [code: number, messages: (object | string)[]]> = {
    'something that is no JSON': [4400, ['x']],
    'a message without a type': [4400, [{}]],
    'an unknown type': [4400, [{ type: 'stop' }]],
    'a subscription without a query': [4400, [init, { type: 'subscribe', id: '1', payload: {} }]],
    'a subscription before its init': [4401, [{ type: 'subscribe', id: '1', payload: { query: '{ __typename }' } }]],
    'a second init': [4429, [init, init]],
    'a token that is none': [4403, [{ ...init, payload: { authorization: 'Bearer x' } }]],
    'another kind of credentials': [4403, [{ ...init, payload: { authorization: 'Basic YTpi' } }]],
    'credentials that are no string': [4400, [{ ...init, payload: { authorization: { Bearer: 'x' } } }]],
    'credentials that cannot be made a string': [4400, [{ ...init, payload: { authorization: { toString: 1, valueOf: null } } }]],
    'credentials that are nothing': [4400, [{ ...init, payload: { Authorization: null } }]],
    'a payload that is text': [4400, [{ ...init, payload: 'x' }]],
  };
  test.each(Object.entries(violations))('%s closes the socket', (_what, [code, messages]) =>
    withServer(({ url }) =>
      withSocket(url, async (socket) => {
        for (const message of messages) socket.raw.send(typeof message === 'string' ? message : JSON.stringify(message));
        expect((await socket.closed).code).toBe(code);
      }),
    ),
  );

  test('an id that is in use closes the socket with 4409', () =>
    withServer(({ url }) =>
      withConnection(url, undefined, async (socket) => {
        await follow(socket, 'a');
        socket.send({ type: 'subscribe', id: 'a', payload: { query: ticks } });
        expect((await socket.closed).code).toBe(4409);
      }),
    ));

  test('a socket that says nothing is closed with 4408 after 3 seconds, also one that only pings', () =>
    withServer(async ({ url }) => {
      const startedAt = performance.now();
      const codes = await Promise.all([
        withSocket(url, async (socket) => (await socket.closed).code),
        withSocket(url, async (socket) => {
          socket.send({ type: 'ping' });
          return (await socket.closed).code;
        }),
      ]);
      expect(codes).toEqual([4408, 4408]);
      expect(performance.now() - startedAt, 'and not before').toBeGreaterThan(2900);
    }));

  test('a connection_init of 20 MB closes the socket with 1009, and the server goes on', () =>
    withServer(({ url }) =>
      withSocket(url, async (socket) => {
        socket.send({ ...init, payload: { padding: 'x'.repeat(20_000_000) } });
        expect((await socket.closed).code).toBe(1009);
        await withConnection(url, undefined, async (another) =>
          expect((await ask(another, '1', '{ __typename }')).payload).toEqual(typename),
        );
      }),
    ));

  test('a ping is answered by a pong with its payload', () =>
    withServer(({ url }) =>
      withConnection(url, undefined, async (socket) => {
        socket.send({ type: 'ping', payload: { n: 1 } });
        expect(await socket.message((m) => m.type === 'pong')).toEqual({ type: 'pong', payload: { n: 1 } });
      }),
    ));
});

test('queries and mutations work over the socket like over HTTP, each with a request id of its own', () =>
  withServer(async (server) => {
    const token = await server.admin();
    await withConnection(server.url, token, async (socket) => {
      expect((await ask(socket, 'q', '{ viewer { name } }')).payload).toEqual({ data: { viewer: { name: adminName } } });
      const login = 'mutation ($i: LoginInput!) { login(input: $i) { credentials { accessToken } userErrors { code } } }';
      const answer = await ask(socket, 'm', login, { i: { name: adminName, password: adminPassword } });
      expect(answer.payload.data.login).toEqual({ credentials: { accessToken: expect.any(String) }, userErrors: [] });
      const bad = [
        await ask(socket, 'b1', '{ node(id: "x") { id } viewer { name } }'),
        await ask(socket, 'b2', '{ node(id: "x") { id } }'),
      ];
      for (const { payload } of bad) {
        expect(payload.errors).toEqual([
          {
            message: 'This is not an id that this server gave out.',
            path: ['node'],
            locations: expect.any(Array),
            extensions: { code: 'NOT_FOUND', retryable: false, requestId: expect.any(String) },
          },
        ]);
      }
      expect(bad[0]?.payload.data).toEqual({ node: null, viewer: { name: adminName } });
      expect(new Set(bad.map(({ payload }) => payload.errors[0].extensions.requestId)).size).toBe(2);
      await socket.message((m) => m.type === 'complete' && m.id === 'b2');
      expect(socket.messages.filter((m) => m.type === 'complete').map((m) => m.id)).toEqual(['q', 'm', 'b1', 'b2']);
    });
  }));

test('an anonymous socket may ask what is public and nothing else', () =>
  withServer(async (server) => {
    await server.admin();
    await withConnection(server.url, undefined, async (socket) => {
      expect((await ask(socket, 'public', '{ viewer { id } }')).payload).toEqual({ data: { viewer: null } });
      const denied = await ask(socket, 'users', '{ users { nodes { id } } }');
      expect(denied.payload.errors[0].extensions.code).toBe('UNAUTHENTICATED');
    });
  }));

test('a bad document beside a live subscription answers for itself, and the live one goes on', () =>
  withServer(({ url }) =>
    withConnection(url, undefined, async (socket) => {
      await follow(socket, 'live');
      const bad = [
        '{',
        '{ nothing }',
        `{ ${'a{'.repeat(3000)}`,
        'subscription { nothing }',
        'query a { __typename } query b { __typename }',
        '',
      ];
      for (const [n, document] of bad.entries()) {
        const { type, payload } = await ask(socket, `bad ${n}`, document);
        expect([type, payload[0].extensions.code]).toEqual(['error', expect.stringMatching(/^(INVALID_DOCUMENT|LIMIT)$/)]);
      }
      sources[0]?.push(2);
      expect((await socket.message((m) => m.id === 'live' && m.payload?.data?.ticks === '2')).type).toBe('next');
      expect(open()).toBe(1);
    }),
  ));

test('a stream that fails ends with an error that shows nothing internal, and the others go on', () =>
  withServer(({ url }) =>
    withConnection(url, undefined, async (socket) => {
      await follow(socket, 'live');
      socket.send({ type: 'subscribe', id: 'failing', payload: { query: 'subscription { ticks(first: -1) }' } });
      const { type, payload } = await socket.message((m) => m.id === 'failing');
      const error = type === 'error' ? payload[0] : payload.errors[0];
      expect(error.extensions).toEqual({ code: 'INTERNAL', retryable: false, requestId: expect.any(String) });
      expect(JSON.stringify(error)).not.toContain('secret');
      sources[0]?.push(2);
      await socket.message((m) => m.id === 'live' && m.payload?.data?.ticks === '2');
    }),
  ));

test('completing an operation, or leaving, ends what it read from', () =>
  withServer(({ url }) =>
    withConnection(url, undefined, async (socket) => {
      for (const id of ['a', 'b', 'c']) await follow(socket, id);
      expect(open()).toBe(3);
      socket.send({ type: 'complete', id: 'a' });
      await eventually(() => expect(open()).toBe(2));
      socket.raw.close();
      await eventually(() => expect(open()).toBe(0));
    }),
  ));

test('a socket carries 100 operations; the next is refused and the others go on', () =>
  withServer(({ url }) =>
    withConnection(url, undefined, async (socket) => {
      for (let i = 0; i < 100; i++) await follow(socket, `${i}`);
      const { type, payload } = await ask(socket, 'one more', ticks);
      expect([type, payload[0].extensions.code]).toEqual(['error', 'LIMIT']);
      expect(open()).toBe(100);
      socket.send({ type: 'complete', id: '0' });
      await eventually(() => expect(open()).toBe(99));
      await follow(socket, 'again');
    }),
  ));

test('a client that asks and never reads is cut off, and the others go on', () =>
  withServer(({ url }) =>
    withConnection(url, undefined, (other) =>
      withConnection(url, undefined, async (socket) => {
        socket.raw.pause();
        const payload = { padding: 'x'.repeat(500_000) };
        // Reads nothing: the answers pile up on the server, which must not keep more of them than its limit.
        let sentMegabytes = 0;
        while (socket.raw.readyState === socket.raw.OPEN) {
          await new Promise((resolve) => socket.raw.send(JSON.stringify({ type: 'ping', payload }), resolve));
          sentMegabytes += 0.5;
          if (sentMegabytes > 100) throw new Error('The server kept 100 MB for a client that does not read.');
        }
        socket.raw.resume();
        expect((await socket.closed).code).toBe(1006);
        expect((await ask(other, '1', '{ __typename }')).payload).toEqual(typename);
      }),
    ),
  ));

test('a socket without a token that asks nothing between two pings is closed with 4408', () =>
  withServer(async ({ url }) => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await withConnection(url, undefined, async (socket) => {
      const pinged = once(socket.raw, 'ping');
      vi.advanceTimersByTime(12_000);
      await pinged;
      await ask(socket, 'pong has come', '{ __typename }');
      const again = once(socket.raw, 'ping');
      vi.advanceTimersByTime(12_000);
      await again;
      // What comes before this answer was a pong.
      socket.send({ type: 'ping' });
      await socket.message((m) => m.type === 'pong');
      vi.advanceTimersByTime(12_000);
      expect((await socket.closed).code).toBe(4408);
    });
  }));

test('a client that does not answer two pings is cut off, one that does stays', () =>
  withServer(async ({ url, admin }) => {
    const token = await admin();
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    await withConnection(url, token, (living) =>
      withSocket(
        url,
        async (dead) => {
          dead.send(init);
          await dead.message((m) => m.type === 'connection_ack');
          const pinged = once(dead.raw, 'ping');
          vi.advanceTimersByTime(12_000);
          await pinged;
          // With the first answer the living one has seen the ping; what it asks then comes after its pong.
          await ask(living, 'seen', '{ __typename }');
          await ask(living, 'answered', '{ __typename }');
          vi.advanceTimersByTime(12_000);
          expect((await dead.closed).code).toBe(1006);
          expect((await ask(living, 'still there', '{ __typename }')).payload).toEqual(typename);
        },
        { autoPong: false },
      ),
    );
  }));

test('2,000 events to 20 sockets and one that does not read: the 20 get all, and the memory is bounded', () =>
  withServer(async ({ url }) => {
    const events = 2000;
    // 400 MB if all were kept for the one that does not read.
    const [paddingBytes, ofLaggard] = [2000, 200_000];
    const received: number[] = Array(20).fill(0);
    const follow = async (n: number): Promise<void> => {
      if (n > 20) return laggard();
      return withConnection(url, undefined, async (socket) => {
        socket.raw.on('message', () => {
          received[n - 1] = (received[n - 1] ?? 0) + 1;
          socket.messages.length = 0;
        });
        socket.send({ type: 'subscribe', id: 'a', payload: { query: `subscription { ticks(padding: ${paddingBytes}) }` } });
        await follow(n + 1);
      });
    };
    const laggard = () =>
      withConnection(url, undefined, async (socket) => {
        socket.raw.pause();
        socket.send({ type: 'subscribe', id: 'a', payload: { query: `subscription { ticks(padding: ${ofLaggard}) }` } });
        await eventually(() => expect(sources).toHaveLength(21));
        const { rss } = process.memoryUsage();
        // In waves that the followers' queues of 100 hold.
        for (let n = 0; n < events; n++) {
          for (const { push } of sources) push(n);
          if (n % 50 === 49) await eventually(() => expect(Math.min(...received)).toBe(n + 1));
        }
        expect((process.memoryUsage().rss - rss) / 1024 / 1024, 'MiB').toBeLessThan(200);
        socket.raw.resume();
        // What the queue still held comes now, the latest event last.
        await socket.message((m) => m.payload?.data?.ticks.trim() === String(events - 1));
        expect(socket.messages.length).toBeLessThan(events);
      });
    await follow(1);
    expect(received).toEqual(Array(20).fill(events));
  }));

test('1,000 sockets without a token keep nobody out: the oldest of them makes place', () =>
  withServer(async ({ url }) => {
    const sockets = await Promise.all(Array.from({ length: 1000 }, () => acknowledged(url)));
    const closed = once(sockets[0] as TcpSocket, 'close');
    await withConnection(url, undefined, async (socket) => expect((await ask(socket, '1', '{ __typename }')).payload).toEqual(typename));
    await closed;
    expect(sockets.filter((socket) => socket.closed)).toHaveLength(1);
    for (const socket of sockets) socket.destroy();
  }));

test('a user has at most 100 subscriptions open, over all sockets; one that ends makes room', () =>
  withServer(async (server) => {
    const token = await server.as('VIEWER');
    const query = 'subscription { system(intervalMs: 60000) { queuedJobs } }';
    await withConnection(server.url, token, (first) =>
      withConnection(server.url, token, async (second) => {
        const follow = async (socket: Socket, id: string) => {
          const { type, payload } = await ask(socket, id, query);
          return (type === 'error' ? payload : payload.errors)?.[0].extensions.code ?? 'followed';
        };
        for (let i = 0; i < 60; i += 1) expect(await follow(first, `${i}`)).toBe('followed');
        for (let i = 0; i < 40; i += 1) expect(await follow(second, `${i}`)).toBe('followed');
        expect(await follow(second, 'one more')).toBe('LIMIT');
        await withConnection(server.url, await server.admin(), async (other) => expect(await follow(other, '0')).toBe('followed'));
        first.send({ type: 'complete', id: '7' });
        let n = 0;
        await eventually(async () => {
          n += 1;
          expect(await follow(second, `again ${n}`)).toBe('followed');
        });
      }),
    );
  }));
