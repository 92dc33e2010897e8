/** Whoever opens more connections than the server, or an inference host, takes and says nothing on them keeps nobody out. */
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { eventually } from './support/eventually.ts';
import { withHost } from './support/inference.ts';
import type { TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';

let server: TestServer;
withSharedServer((running) => {
  server = running;
});
let hostUrl = '';
withHost({ models: [] }, ({ url }) => {
  hostUrl = url;
});

/** Those that had to go. Others hear that their time is over, where a slow machine takes that long to connect them all. */
const closedForOthers = (sockets: Socket[]) => sockets.filter(({ closed, bytesRead }) => closed && bytesRead === 0).length;

async function statusFor(localAddress: string, address: string): Promise<number | undefined> {
  const [answer] = (await once(get(address, { localAddress, agent: false }), 'response')) as [IncomingMessage];
  answer.resume();
  return answer.statusCode;
}

test.each([
  ['the server', 2000, () => `${server.url}/health`],
  ['a host', 4000, () => `${hostUrl}/v2/health/live`],
])('%s, with %i that are silent, answers others, and new ones of the same address', async (_, max, address) => {
  const sockets: Socket[] = [];
  try {
    // As many as the queue of a port holds: beyond that the kernel makes connections that nobody takes.
    while (sockets.length < max) {
      const more = Array.from({ length: 250 }, () => connect(Number(new URL(address()).port), '127.0.0.1').resume());
      sockets.push(...more);
      await Promise.all(more.map((socket) => once(socket, 'connect')));
    }
    expect(await statusFor('127.0.0.2', address())).toBe(200);
    // One of the silent ones went for it. It closes its own again, which leaves a place.
    await eventually(() => expect(sockets.some((socket) => socket.closed)).toBe(true));
    expect(await statusFor('127.0.0.1', address())).toBe(200);
    expect(closedForOthers(sockets)).toBeLessThanOrEqual(1);
  } finally {
    for (const socket of sockets) socket.destroy();
  }
});
