/** Bodies of `infer`: where they lie when they have arrived. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { expect, test, vi } from 'vitest';
import { readBody } from '../src/inference/body.ts';
import { Memory } from '../src/inference/memory.ts';
import { stagedInPlace } from '../src/inference/staging.ts';
import { parseInfer } from '../src/inference/v2.ts';
import { binaryBody, call } from './support/inference.ts';

const bytesMax = 2 ** 24;
const ports = (...counts: number[]) => counts.map((count, i) => ({ name: `x${i}`, datatype: 'FP32' as const, shape: [count] }));
const model = (counts: number[]) => ({ signature: { inputs: ports(...counts), outputs: [] }, batched: false, config: { batchMax: 1 } });

/** The feeds of a request whose inputs have so many numbers, as they are for a run, and the memory of the body. */
async function received(counts: number[], pack: (body: Buffer) => Buffer = (body) => body) {
  const tensors = counts.map((count, i) => new Uint8Array(Float32Array.from({ length: count }, (_, n) => n + i / 8).buffer));
  const inputs = ports(...counts).map((port, i) => ({ ...port, parameters: { binary_data_size: tensors[i]?.length } }));
  const { body, headers } = binaryBody({ inputs }, ...tensors);
  const jsonLength = Number(headers['inference-header-content-length']);
  const packed = pack(body);
  const holding = new Memory(8 * bytesMax).open('model');
  const taken = vi.spyOn(holding, 'take');
  const server = createServer(async (req, res) => {
    const read = await readBody(req, bytesMax, holding, { bytes: jsonLength, arrived: () => {} });
    const { feeds } = parseInfer(model(counts), read, jsonLength);
    res.end();
    server.emit('feeds', feeds, read);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const encoding: Record<string, string> = packed === body ? {} : { 'content-encoding': 'gzip' };
  const [[feeds, read]] = await Promise.all([
    once(server, 'feeds'),
    call(`http://127.0.0.1:${port}`, { method: 'POST', body: packed, headers: encoding }),
  ]);
  server.close();
  expect(read.equals(body)).toBe(true);
  // Each but the last was copied into the next.
  const copiedBytes = taken.mock.calls.slice(0, -1).reduce((sum, [bytes]) => sum + bytes, 0);
  return { staged: stagedInPlace(feeds, new ArrayBuffer(0)), read, copiedBytes };
}

test.each([
  ['602 KB', [3 * 224 * 224], undefined],
  ['602 KB that are compressed', [3 * 224 * 224], gzipSync],
  ['8 MB, for which memory grows as they arrive', [2 ** 21], undefined],
  ['two inputs, both aligned', [64, 7], undefined],
])('a run reads a binary tensor in the memory in which it arrived: %s', async (_, counts, pack) => {
  const { staged, read } = await received(counts, pack as typeof gzipSync);
  expect(staged?.copiedBytes).toBe(0);
  for (const { bytes } of staged?.feeds ?? []) {
    expect(bytes.buffer).toBe(read.buffer);
    expect(bytes.byteOffset % 64).toBe(0);
  }
});

test('of an image of 640 × 640 no more than the first MiB is copied while it arrives', async () => {
  const { copiedBytes } = await received([3 * 640 * 640]);
  expect(copiedBytes).toBeLessThan(1.01 * 2 ** 20);
});

test('a second input that is not aligned has to be copied', async () => {
  expect((await received([7, 64])).staged).toBeNull();
});
