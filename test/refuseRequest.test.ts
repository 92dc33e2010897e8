import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { refuseRequest } from '../src/refuseRequest.ts';

const bodyBytes = 1024 * 1024;

/** A request that is refused at once; it sends `bytes` of its body when it has read all of the answer. */
async function refused(bytes: number) {
  const http = createServer((_req, res) => refuseRequest(res, 413, { 'X-Reason': 'size' }, 'too large')).listen(0, '127.0.0.1');
  await once(http, 'listening');
  const socket = connect((http.address() as AddressInfo).port, '127.0.0.1');
  try {
    socket.write(`POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${bodyBytes}\r\n\r\n`);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    for (let sent = 0; sent < bytes; sent += 65_536) await new Promise((done) => socket.write(Buffer.alloc(65_536), done));
    return { answer: answer.toString(), behind: await text(socket) };
  } finally {
    socket.destroy();
    http.close();
  }
}

test('a refusal is whole before the body has arrived, and the connection closes without a reset when it has', async () => {
  const { answer, behind } = await refused(bodyBytes);
  expect(answer).toMatch(/^HTTP\/1\.1 413 .*X-Reason: size.*Content-Length: 9.*\r\n\r\ntoo large$/s);
  expect(behind).toBe('');
});

test('who never sends the rest is cut off', async () => {
  const { answer, behind } = await refused(0);
  expect([answer.endsWith('too large'), behind]).toEqual([true, '']);
});
