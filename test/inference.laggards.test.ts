import { once } from 'node:events';
import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { eventually } from './support/eventually.ts';
import { inferJson, metric, withHost } from './support/inference.ts';

const mebibyte = 2 ** 20;
const queueBytesMax = 64 * mebibyte;
const answerBytes = 12 * mebibyte;
const model = `swollen-${answerBytes / 4}`;
let url = '';
withHost(
  {
    queueBytesMax,
    models: [
      { name: model, deadlineMs: 60_000 },
      { name: 'identity', deadlineMs: 60_000 },
    ],
  },
  (host) => {
    url = host.url;
  },
);

const asked = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1], data: [0] }], parameters: { binary_data_output: true } };
const ask = (padding = '') => inferJson(url, model, { ...asked, id: padding });

/** A client that reads nothing of its answer. */
async function laggard() {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  await once(socket, 'connect');
  socket.pause();
  const body = JSON.stringify(asked);
  socket.write(`POST /v2/models/${model}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
  return socket;
}

test('answers that nobody reads count as memory of the host: others are refused, and served when the laggards have gone; other models at once', async () => {
  const held = () => metric(url, 'whetstone_inference_body_bytes');
  expect((await ask()).status).toBe(200);
  const sockets = [];
  for (let n = 1; n <= 3; n += 1) {
    sockets.push(await laggard());
    await eventually(async () => expect(await held()).toBeGreaterThanOrEqual(n * answerBytes));
  }
  // Of three quarters of the memory, which one model can have, less than this is left.
  const refused = await ask('x'.repeat(13 * mebibyte));
  expect([refused.status, refused.json.error]).toEqual([429, 'The host holds as many bytes of requests and answers as it may.']);
  const other = { id: 'x'.repeat(900), inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }] };
  expect((await inferJson(url, 'identity', other)).status).toBe(200);
  for (const socket of sockets) socket.destroy();
  await eventually(async () => expect(await held()).toBe(0));
  expect((await ask()).status).toBe(200);
});
