/** What hostile clients send to a running host: each gets its status, nothing of it stays, and the next client is served. */
import { createHash } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { crc32, deflateSync, gzipSync } from 'node:zlib';
import sharp from 'sharp';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type ModelConfig, parseHostConfig } from '../src/inference/config.ts';
import type { RunningHost } from '../src/inference/host.ts';
import { presetPreprocess } from '../src/vision/spec.ts';
import { eventually } from './support/eventually.ts';
import { photo } from './support/images.ts';
import { call, inferJson, metric, type Sent, type Settings, withHost, withModelFiles } from './support/inference.ts';
import { makeModelFiles } from './support/onnx.ts';

let url = '';
let host: RunningHost;
const stretched = { ...presetPreprocess(32), mode: 'STRETCH' };
withHost(
  {
    models: [
      { name: 'brightness', preprocess: stretched, deadlineMs: 30_000 },
      {
        name: 'rectangle',
        task: 'DETECTION',
        outputLayout: 'BOXES_SCORES',
        preprocess: presetPreprocess(64, 'DETECTION'),
        deadlineMs: 30_000,
      },
      { name: 'identity', deadlineMs: 30_000 },
    ],
  },
  (running) => {
    host = running;
    url = running.url;
  },
);

const models = ['brightness', 'rectangle'];
const predict = (model: string, body: Uint8Array | string) => call(`${url}/v2/models/${model}/predict`, { method: 'POST', body });
const good = await photo(60, 40).jpeg().toBuffer();

afterEach(async () => {
  for (const model of models) expect((await predict(model, good)).status).toBe(200);
  expect((await call(`${url}/v2/health/ready`)).status).toBe(200);
  await eventually(async () => expect(await metric(url, 'whetstone_inference_body_bytes')).toBe(0));
});

const flat = (width: number, height: number) => sharp({ create: { width, height, channels: 3, background: '#123456' } });

/** A PNG with this header, before the compressed bytes of some other image; `more` are chunks between them. */
function png(width: number, height: number, depth = 8, ...more: Buffer[]): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([depth, 2, 0, 0, 0], 8);
  const data = deflateSync(Buffer.alloc(100_000));
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', header), ...more, chunk('IDAT', data), chunk('IEND')]);
}

function chunk(type: string, data = Buffer.alloc(0)): Buffer {
  const named = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32BE(crc32(named));
  return Buffer.concat([length, named, checksum]);
}

/** A text that grows from 100 KB to 100 MB. */
const compressedText = () => chunk('zTXt', Buffer.concat([Buffer.from('bomb\0\0', 'latin1'), deflateSync(Buffer.alloc(100e6))]));
const svg = (inside: string) => `<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">${inside}</svg>`;
const outside = `<!DOCTYPE svg [<!ENTITY file SYSTEM "file:///etc/passwd">]>${svg('<text>&file;</text>')}`;
const half = (bytes: Buffer) => bytes.subarray(0, bytes.length / 2);

describe('images', () => {
  test.each<[what: string, status: number, body: () => Promise<Uint8Array | string> | Uint8Array | string]>([
    ['a bomb: a header that promises 816 MB', 413, () => png(16_000, 17_000)],
    ['the largest header that there is', 400, () => png(2 ** 31 - 1, 2 ** 31 - 1)],
    ['no pixels', 400, () => png(0, 10)],
    ['a million rows of one pixel', 413, () => flat(1, 1_000_000).png().toBuffer()],
    ['fewer rows than its header says', 400, () => png(1000, 1000)],
    ['a JPEG that is cut off', 400, async () => half(await photo(300, 200).jpeg().toBuffer())],
    ['a PNG that is cut off', 400, async () => half(await photo(300, 200).png().toBuffer())],
    ['a WebP that is cut off', 400, async () => half(await photo(300, 200).webp().toBuffer())],
    ['the first bytes of a JPEG alone', 400, () => Buffer.from([0xff, 0xd8, 0xff])],
    ['GIF', 400, () => flat(20, 20).gif().toBuffer()],
    ['a TIFF that is cut off', 400, async () => half(await flat(20, 20).tiff().toBuffer())],
    ['AVIF', 400, () => flat(20, 20).avif().toBuffer()],
    ['SVG', 400, () => svg('<rect width="20" height="20"/>')],
    ['SVG that reads a file', 400, () => outside],
    ['HTML', 400, () => '<html><img src="x"></html>'],
    ['an animation', 400, () => photo(20, 20, 3).webp().toBuffer()],
  ])('%s: %i', async (_, status, body) => {
    const bytes = await body();
    for (const model of models) {
      const got = await predict(model, bytes);
      expect([got.status, got.json]).toEqual([status, { error: expect.any(String) }]);
      expect(got.json.error).not.toMatch(/\/(tmp|etc|root|home|work)\b|vips|libpng/i);
    }
  });

  test.each<[what: string, body: () => Promise<Buffer>]>([
    ['16 bits a channel', () => flat(20, 20).toColourspace('rgb16').png().toBuffer()],
    ['an orientation that does not exist', async () => exif(await flat(20, 20).jpeg().toBuffer(), 77)],
    ['bytes behind its end', async () => Buffer.concat([good, Buffer.alloc(1000, 'x')])],
  ])('%s does no harm', async (_, body) => {
    const bytes = await body();
    for (const model of models) expect((await predict(model, bytes)).status).toBe(200);
  });

  test('text in it that grows when it is unpacked is not unpacked', async () => {
    const bytes = png(100, 100, 8, compressedText());
    const before = process.memoryUsage().rss;
    for (let n = 0; n < 5; n += 1) await predict('brightness', bytes);
    expect(process.memoryUsage().rss - before).toBeLessThan(100e6);
  });
});

/** A JPEG with this EXIF orientation. */
function exif(jpeg: Buffer, orientation: number): Buffer {
  const tag = Buffer.from('4d4d002a00000008000101120003000000010000000000000000', 'hex');
  tag.writeUInt16BE(orientation, 18);
  const segment = Buffer.concat([Buffer.from('ffe10000', 'hex'), Buffer.from('Exif\0\0', 'latin1'), tag]);
  segment.writeUInt16BE(segment.length - 2, 2);
  return Buffer.concat([jpeg.subarray(0, 2), segment, jpeg.subarray(2)]);
}

describe('models that are loaded beside those that serve', () => {
  let folder = '';
  let settings: Settings;
  const files = ['external-up.onnx', 'external-absolute.onnx', 'external-folder.onnx', 'unknown-domain.onnx', 'unknown-operator.onnx'];
  beforeAll(async () => {
    const made = await withModelFiles({ models: ['brightness', 'absurd', 'swollen', 'text'].map((name) => ({ name })) });
    ({ folder, settings } = made);
    await makeModelFiles(folder, files);
    writeFileSync(join(folder, 'secret.bin'), Buffer.alloc(64));
    const whole = readFileSync(join(folder, 'brightness.onnx'));
    writeFileSync(join(folder, 'truncated.onnx'), half(whole));
    writeFileSync(join(folder, 'empty.onnx'), '');
    writeFileSync(join(folder, 'noise.onnx'), Buffer.alloc(1000, 'not a model'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const hostile = (
    file: string,
    sha256 = createHash('sha256')
      .update(readFileSync(join(folder, file)))
      .digest('hex'),
  ) => parseHostConfig({ ...settings, models: [{ name: 'hostile', version: 1, file, sha256 }] }, folder, 8).models[0] as ModelConfig;

  test.each([
    ['weights above its folder', 'external-up.onnx', 'without external data'],
    ['weights at an absolute path', 'external-absolute.onnx', 'without external data'],
    ['weights in a file that lies beside it', 'external-folder.onnx', 'without external data'],
    ['an operator of a domain that nobody knows', 'unknown-domain.onnx', 'org.evil'],
    ['an operator that nobody knows', 'unknown-operator.onnx', 'Steal'],
    ['an input of 2⁶² values', 'absurd.onnx', 'bytes for a batch of 1; 1073741824 are possible'],
    ['an answer of 160 GB', 'swollen.onnx', 'It does not run'],
    ['text for tensors', 'text.onnx', 'cannot be served'],
    ['half of a model', 'truncated.onnx', 'not all of it is there'],
    ['no bytes at all', 'empty.onnx', 'cannot be served'],
    ['something else', 'noise.onnx', 'cannot be served'],
    ['a file that is not there', 'nothing.onnx', 'cannot be served'],
  ])('%s', async (_, file, says) => {
    const model = file === 'nothing.onnx' ? hostile(file, 'a'.repeat(64)) : hostile(file);
    const said = await host.load('hostile/1', model).then(
      () => 'It was loaded.',
      ({ message }: Error) => message,
    );
    expect(said).toContain(says);
    expect(said).not.toMatch(/\/(tmp|etc|root|home|work)\b|whetstone-/);
    expect((await call(`${url}/v2/models/hostile`)).status).toBe(404);
  });

  test('bytes that have another hash', async () => {
    await expect(host.load('hostile/1', hostile('brightness.onnx', 'a'.repeat(64)))).rejects.toThrow('it is not the one that was meant');
    expect((await call(`${url}/v2/models/hostile`)).status).toBe(404);
  });

  test('after all of them a good one is loaded and answers', async () => {
    await host.load('good', { ...hostile('brightness.onnx'), name: 'good', preprocess: presetPreprocess(32), deadlineMs: 30_000 });
    host.serve([...[...models, 'identity'].map((name) => ({ name, ids: [`${name}/1`] })), { name: 'good', ids: ['good'] }]);
    expect((await predict('good', good)).status).toBe(200);
  });
});

describe('requests', () => {
  const x = (change: object) => ({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4], ...change }] });
  const binary = (shape: number[], size: number) => x({ shape, data: undefined, parameters: { binary_data_size: size } });

  test.each<[what: string, status: number, json: unknown, sent?: Sent]>([
    ['2³¹ items of which none is sent', 400, binary([2 ** 31, 4], 2 ** 35)],
    ['2³¹ items in JSON', 400, x({ shape: [2 ** 31, 4] })],
    ['a dimension that is none', 400, x({ shape: [1.5, 4] })],
    ['a dimension beyond every number', 400, x({ shape: [1e308, 4] })],
    ['a thousand dimensions', 400, x({ shape: new Array(1000).fill(1) })],
    ['a number that FP32 has not, and that would become infinite', 400, x({ data: [1, 2, 3, 1e39] })],
    ['a size that is negative', 400, binary([1, 4], -16)],
    [
      'the prototype of everything as an input',
      400,
      JSON.parse('{"inputs": [{"name": "__proto__", "datatype": "FP32", "shape": [1, 4]}]}'),
    ],
    ['an id of a megabyte', 400, { ...x({}), id: 'x'.repeat(1e6) }],
    [
      '100 MB that are 100 KB as long as they are packed',
      413,
      null,
      { body: gzipSync(Buffer.alloc(100e6)), headers: { 'content-encoding': 'gzip' } },
    ],
  ])('%s: %i', async (_, status, json, sent = {}) => {
    const got = await inferJson(url, 'identity', json, sent);
    expect([got.status, got.json]).toEqual([status, { error: expect.any(String) }]);
  });

  test.each(['..%2f..%2fetc%2fpasswd', '%00', '__proto__', 'constructor', '%E0%A4%A', `${'x'.repeat(8000)}`])(
    'a model called %s is not there',
    async (name) => {
      const { status, json } = await call(`${url}/v2/models/${name}/infer`, { method: 'POST', body: '{}' });
      expect([400, 404]).toContain(status);
      expect(json.error.length).toBeLessThan(200);
    },
  );

  test('a client that goes in the middle of its body leaves nothing', async () => {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    socket.write(`POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n${'x'.repeat(50_000)}`);
    await eventually(async () => expect(await metric(url, 'whetstone_inference_body_bytes')).toBeGreaterThan(0));
    socket.destroy();
  });

  test('what is not HTTP gets 400 and no more', async () => {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    const said: Buffer[] = [];
    socket.on('data', (data: Buffer) => said.push(data));
    const closed = new Promise((resolve) => socket.on('close', resolve));
    socket.write('\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03');
    await closed;
    expect(Buffer.concat(said).toString()).toMatch(/^HTTP\/1\.1 400 /);
  });
});
