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

test('a silent upload is cut after a minute; one that sends a byte now and then may take longer than Node’s 300 s', () =>
  withServer(async ({ url, admin }) => {
    const token = await admin();
    const silent = await create(url, token, 10);
    const slow = await create(url, token, 14);
    const startedAt = performance.now();
    const silence = await begin(url, silent.address, token, 10);
    silence.on('error', () => {});
    const cut = once(silence, 'close').then(() => performance.now() - startedAt);

    const socket = await begin(url, slow.address, token, 14);
    const answer = once(socket, 'data').then(([chunk]) => String(chunk));
    for (let sent = 0; sent < 14; sent += 1) {
      socket.write('x');
      await new Promise((resolve) => setTimeout(resolve, 25_000));
    }
    expect(performance.now() - startedAt).toBeGreaterThan(300_000);
    expect(await answer).toMatch(/^HTTP\/1\.1 204 /);
    socket.destroy();
    const cutMs = await cut;
    expect(cutMs).toBeGreaterThan(59_000);
    expect(cutMs).toBeLessThan(90_000);
    expect((await tus('HEAD', silent.address, token)).headers['upload-offset']).toBe('0');
  }));
