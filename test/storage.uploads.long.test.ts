import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { withServer } from './support/server.ts';
import { create, tus } from './support/storage.ts';

/** A PATCH that has sent its head and nothing else. */
async function begin(url: string, address: string, token: string, length: number): Promise<Socket> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  await once(socket, 'connect');
  const head = `PATCH ${new URL(address).pathname} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0`;
  socket.write(
    `${head}\r\nContent-Type: application/offset+octet-stream\r\nAuthorization: Bearer ${token}\r\nContent-Length: ${length}\r\n\r\n`,
  );
  return socket;
}

test('a silent upload is cut off; one that comes at 2 KiB a second may take longer than Node’s 300 s', () =>
  withServer(async ({ url, admin }) => {
    const token = await admin();
    const piece = Buffer.alloc(4096, 'x');
    const pieces = 155;
    const silent = await create(url, token, 10);
    const slow = await create(url, token, pieces * piece.length);
    const silence = await begin(url, silent.address, token, 10);
    silence.on('error', () => {});
    const cut = once(silence, 'close');

    const startedAt = performance.now();
    const socket = await begin(url, slow.address, token, pieces * piece.length);
    const closed = once(socket, 'close').then(() => 'closed without an answer');
    const answer = Promise.race([once(socket, 'data').then(([chunk]) => String(chunk)), closed]);
    for (let sent = 0; sent < pieces; sent += 1) {
      socket.write(piece);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
    expect(performance.now() - startedAt).toBeGreaterThan(300_000);
    expect(await answer).toMatch(/^HTTP\/1\.1 204 /);
    socket.destroy();
    await cut;
    expect((await tus('HEAD', silent.address, token)).headers['upload-offset']).toBe('0');
  }));
