/** What requests make exist is counted, whatever their clients do, and goes back: measured on a host process. */
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { presetPreprocess } from '../src/vision/spec.ts';
import { eventually } from './support/eventually.ts';
import { call, inferJson, metric, spinJson, withModelFiles } from './support/inference.ts';
import { withHostProcess } from './support/process.ts';

const mebibyte = 2 ** 20;
const queueBytesMax = 256 * mebibyte;
const answerFloats = 3 * mebibyte;
const swollen = `swollen-${answerFloats}`;
let url = '';
let done = (): void => {};
let ended: Promise<void>;

beforeAll(async () => {
  const { folder, settings } = await withModelFiles({
    queueBytesMax,
    models: [
      { name: 'spin', deadlineMs: 60_000 },
      { name: 'identity', deadlineMs: 60_000 },
      { name: 'types', batchMax: 256, deadlineMs: 60_000 },
      { name: 'brightness', preprocess: { ...presetPreprocess(32), mode: 'STRETCH' }, deadlineMs: 60_000 },
      { name: swollen, deadlineMs: 60_000 },
    ],
  });
  const config = join(folder, 'models.json');
  writeFileSync(config, JSON.stringify(settings));
  const { promise, resolve } = Promise.withResolvers<void>();
  await new Promise<void>((listening, reject) => {
    ended = withHostProcess(config, async (host) => {
      url = host.url;
      listening();
      await promise;
    }).finally(() => rmSync(folder, { recursive: true }));
    ended.catch(reject);
  });
  done = resolve;
});
afterAll(async () => {
  done();
  await ended;
});

const held = () => metric(url, 'whetstone_inference_body_bytes');
const resident = () => metric(url, 'process_resident_memory_bytes');
const item = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }] };
const nothingHeld = () => eventually(async () => expect(await held()).toBe(0));

/** Sends `count` requests at once, and gives how they were answered and by how much the host's memory grew at most. */
async function flood(count: number, path: string, body: Uint8Array, headers = {}) {
  const before = await resident();
  let most = 0;
  let open = true;
  const watching = (async () => {
    while (open) {
      most = Math.max(most, (await resident()) - before);
      expect(await held()).toBeLessThanOrEqual(queueBytesMax);
    }
  })();
  const agent = new Agent({ maxSockets: count });
  const asked = Array.from({ length: count }, () => call(`${url}${path}`, { method: 'POST', body, headers, agent }));
  const answers = (await Promise.all(asked)).map(({ status, json }) => `${status} ${json?.error ?? ''}`);
  open = false;
  await watching;
  agent.destroy();
  return { answers, grownMebibytes: Math.round(most / mebibyte) };
}

describe('many requests that are small as long as they are packed', () => {
  test('30 bodies of 65 KB that become 64 MiB: 413 or 429, and the memory stays within the budget', async () => {
    const bomb = gzipSync(Buffer.alloc(63 * mebibyte));
    const { answers, grownMebibytes } = await flood(30, '/v2/models/identity/infer', bomb, { 'content-encoding': 'gzip' });
    expect(answers.filter((answer) => !/^4(13|29) /.test(answer))).toEqual([]);
    expect(grownMebibytes).toBeLessThan(400);
    await nothingHeld();
  });

  test('24 PNGs of 75 KB that become 75 MB wait for their turn or are 429, and the memory stays within the budget', async () => {
    const png = await sharp({ create: { width: 5000, height: 5000, channels: 3, background: '#123456' } })
      .png({ compressionLevel: 9 })
      .toBuffer();
    expect(png.length).toBeLessThan(100_000);
    const { answers, grownMebibytes } = await flood(24, '/v2/models/brightness/predict', png);
    expect(answers.filter((answer) => !/^(200|429) /.test(answer))).toEqual([]);
    expect(answers).toContain('200 ');
    expect(grownMebibytes).toBeLessThan(600);
    await nothingHeld();
  });
});

test('an image that can never be decoded within the budget is 413', async () => {
  const webp = await sharp({ create: { width: 5000, height: 5000, channels: 3, background: '#123456' } })
    .webp({ effort: 0 })
    .toBuffer();
  const got = await call(`${url}/v2/models/brightness/predict`, { method: 'POST', body: webp });
  expect([got.status, got.json.error]).toEqual([413, expect.stringContaining('queueBytesMax')]);
});

/** A client that has sent this. */
async function client(text: string | Buffer): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {});
  await once(socket, 'connect');
  socket.pause();
  socket.write(text);
  return socket;
}

const head = (model: string, length: number, headers = '') =>
  `POST /v2/models/${model}/infer HTTP/1.1\r\nhost: x\r\n${headers}content-length: ${length}\r\n\r\n`;
const whole = (model: string, json: unknown, headers = '') => {
  const body = JSON.stringify(json);
  return head(model, body.length, headers) + body;
};
const large = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1], data: [0] }], parameters: { binary_data_output: true } };
const endedAs = (model: string, outcome: string) =>
  metric(url, `whetstone_inference_requests_total{model="${model}",version="1",outcome="${outcome}"}`);
const dispatched = () => metric(url, 'whetstone_inference_dispatched_runs');
const waiting = () => metric(url, 'whetstone_inference_queue_requests');
const rounds = 20_000;

describe('a client that leaves gives everything back', () => {
  const grows = () => eventually(async () => expect(await held()).toBeGreaterThan(0));
  const busy = async () => {
    const socket = await client(whole('spin', spinJson(rounds)));
    await eventually(async () => expect(await dispatched()).toBeGreaterThan(0));
    return socket;
  };
  test.each<[where: string, come: () => Promise<Socket[]>]>([
    ['after its head', async () => [await client(head('identity', 1_000_000))]],
    [
      'in the middle of its body',
      async () => {
        const socket = await client(head('identity', 1_000_000) + 'x'.repeat(50_000));
        await grows();
        return [socket];
      },
    ],
    [
      'in the middle of a packed body',
      async () => {
        const packed = gzipSync(Buffer.alloc(20 * mebibyte));
        const start = Buffer.from(head('identity', packed.length, 'content-encoding: gzip\r\n'));
        const socket = await client(Buffer.concat([start, packed.subarray(0, packed.length / 2)]));
        await grows();
        return [socket];
      },
    ],
    [
      'while it waits in the queue, is staged, and runs',
      async () => {
        const sockets = [await busy()];
        for (let n = 0; n < 10; n += 1) sockets.push(await client(whole('spin', spinJson(rounds))));
        await eventually(async () => expect(await waiting()).toBeGreaterThan(5));
        return sockets;
      },
    ],
    [
      'with twenty requests behind each other on one connection',
      async () => {
        const socket = await client(whole('spin', spinJson(rounds)).repeat(20));
        await eventually(async () => expect(await waiting()).toBeGreaterThan(15));
        return [socket];
      },
    ],
    [
      'while its answer is being compressed',
      async () => {
        const before = await endedAs(swollen, 'ok');
        const sockets = await Promise.all(Array.from({ length: 10 }, () => client(whole(swollen, large, 'accept-encoding: gzip\r\n'))));
        // The first has been answered: others are being compressed.
        await eventually(async () => expect(await endedAs(swollen, 'ok')).toBeGreaterThan(before));
        return sockets;
      },
    ],
    [
      'while its answer is being written as JSON',
      async () => {
        const socket = await client(whole(swollen, { ...large, parameters: {} }));
        await eventually(async () => expect(await held()).toBeGreaterThan(4 * answerFloats - 1));
        return [socket];
      },
    ],
    [
      'in the middle of its answer',
      async () => {
        const socket = await client(whole(swollen, large));
        await eventually(async () => expect(await held()).toBeGreaterThanOrEqual(4 * answerFloats));
        return [socket];
      },
    ],
  ])('%s', async (_, come) => {
    await nothingHeld();
    for (const socket of await come()) socket.destroy();
    await eventually(async () => expect([await waiting(), await dispatched()]).toEqual([0, 0]));
    // Runs that the others left behind have ended before these: they take their turns in the same threads.
    for (const parameters of [{}, large.parameters, large.parameters]) {
      const got = await inferJson(url, swollen, { ...large, parameters }, { headers: { 'accept-encoding': 'gzip' } });
      expect(got.status).toBe(200);
    }
    await nothingHeld();
    expect((await inferJson(url, 'identity', item)).status).toBe(200);
  });
});

describe('14 MiB of JSON', () => {
  /** How often the host answers something else, one after the other, while this runs. */
  async function answersDuring(work: Promise<unknown>): Promise<number> {
    let open = true;
    void work.finally(() => {
      open = false;
    });
    let answers = 0;
    const agent = new Agent({ keepAlive: true });
    while (open) {
      expect((await call(`${url}/v2/health/live`, { agent })).status).toBe(200);
      answers += 1;
    }
    agent.destroy();
    return answers;
  }

  test('in a request does not keep others waiting', async () => {
    const body = `{"inputs":[{"name":"in_FP64","datatype":"FP64","shape":[256],"data":[${new Array(7 * mebibyte).fill(1)}]}]}`;
    const asked = inferJson(url, 'types', null, { body });
    const answers = await answersDuring(asked);
    expect((await asked).status).toBe(400);
    expect(answers).toBeGreaterThan(100);
  });

  test('in an answer does not keep others waiting', async () => {
    const asked = call(`${url}/v2/models/${swollen}/infer`, { method: 'POST', body: JSON.stringify({ ...large, parameters: {} }) });
    const answers = await answersDuring(asked);
    expect((await asked).json.outputs[0].shape).toEqual([answerFloats]);
    expect(answers).toBeGreaterThan(20);
  });
});
