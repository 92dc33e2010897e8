import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { crc32, deflateSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { writeZip, type ZipFile } from '../src/storage/zip.ts';
import { withServerProcess } from './support/process.ts';
import { adminPassword, client, withFolder } from './support/server.ts';
import { append, create } from './support/storage.ts';
import { type Api, ask, jobWhen, mutate } from './support/training.ts';

const count = Number(process.env.LARGE_IMAGES ?? 200_000);
const classes = 10;
const serverBytesMax = 400e6;
const say = (text: string) => process.stdout.write(`${text}\n`);
const megabytes = (bytes: number) => `${Math.round(bytes / 1e6)} MB`;

/** A grey PNG of 8 × 8 pixels that no other number has: a bar where its class is, and the number as pixels. */
function tinyPng(n: number): Buffer {
  const rows = Buffer.alloc(8 * 9);
  for (let y = 0; y < 8; y += 1) {
    for (let x = 0; x < 8; x += 1) rows[9 * y + 1 + x] = y === n % 8 || x === Math.floor((n % classes) / 2) ? 255 : 0;
  }
  for (let bit = 0; bit < 20; bit += 1)
    rows[9 * (bit >> 3) + 1 + (bit & 7)] = (rows[9 * (bit >> 3) + 1 + (bit & 7)] ?? 0) ^ ((n >> bit) & 1);
  const chunk = (type: string, data: Buffer) => {
    const part = Buffer.concat([Buffer.from(type), data]);
    const ends = Buffer.alloc(8);
    ends.writeUInt32BE(data.length, 0);
    ends.writeUInt32BE(crc32(part), 4);
    return Buffer.concat([ends.subarray(0, 4), part, ends.subarray(4)]);
  };
  const header = Buffer.from([0, 0, 0, 8, 0, 0, 0, 8, 8, 0, 0, 0, 0]);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk('IHDR', header), chunk('IDAT', deflateSync(rows, { level: 1 })), chunk('IEND', Buffer.alloc(0))]);
}

function* images(): Generator<ZipFile> {
  for (let n = 0; n < count; n += 1) {
    const name = `${n % 10 === 9 ? 'val' : 'train'}/${Math.floor(n / 10) % classes}/${n}.png`;
    yield { name, content: () => [tinyPng(n)] };
  }
}

/** The most memory that a process has had. */
function peakBytes(pid: number): number {
  try {
    return 1024 * Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** Of the children that work in the folder, by what they are. */
function childrenIn(folder: string): [string, number][] {
  return readdirSync('/proc').flatMap((pid): [string, number][] => {
    try {
      if (!readlinkSync(`/proc/${pid}/cwd`).startsWith(folder)) return [];
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      return [[command.includes('whetstone_trainer') ? 'trainer' : 'other child', peakBytes(Number(pid))]];
    } catch {
      return [];
    }
  });
}

/** The longest that a small request took, asked again and again until it is stopped. */
function watchAnswers(url: string): () => Promise<number> {
  let slowest = 0;
  let stopped = false;
  const asking = (async () => {
    while (!stopped) {
      const from = performance.now();
      await (await fetch(`${url}/health`)).arrayBuffer();
      slowest = Math.max(slowest, performance.now() - from);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  })();
  return async () => {
    stopped = true;
    await asking;
    return slowest;
  };
}

test(`${count} tiny images are imported, trained on and converted; the server stays small`, { timeout: 3_600_000 }, () =>
  withFolder((folder) => {
    const dataDir = join(folder, 'data');
    return withServerProcess({ WHETSTONE_DATA_DIR: dataDir, WHETSTONE_LOG_LEVEL: 'info' }, async (process) => {
      const server = client({ url: process.url } as Parameters<typeof client>[0], dataDir);
      const token = async () => (await server.login('engineer', adminPassword)).accessToken;
      await server.as('ENGINEER');
      const api: Api = { url: server.url, token: await token() };
      const peaks = new Map<string, number>();
      const look = setInterval(() => {
        for (const [what, bytes] of childrenIn(dataDir)) peaks.set(what, Math.max(peaks.get(what) ?? 0, bytes));
      }, 200);
      const timed = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
        const from = performance.now();
        const slowest = watchAnswers(server.url);
        const made = await work();
        const seconds = Math.round((performance.now() - from) / 1000);
        const children = [...peaks].map(([name, bytes]) => `${name} ${megabytes(bytes)}`).join(', ');
        say(
          `${what}: ${seconds} s; slowest answer ${Math.round(await slowest())} ms; server ${megabytes(peakBytes(process.pid))}; ${children}`,
        );
        peaks.clear();
        api.token = await token();
        return made;
      };
      const ended = (id: string) => jobWhen(api, id, ({ state }) => state === 'SUCCEEDED');

      const zip = join(folder, 'large.zip');
      await pipeline(Readable.from(writeZip(images())), createWriteStream(zip));
      const hash = createHash('sha256');
      for await (const chunk of createReadStream(zip)) hash.update(chunk);
      const { address, id: uploadId } = await create(server.url, api.token, statSync(zip).size, 'large.zip');
      await append(address, api.token, 0, [readFileSync(zip)], statSync(zip).size);

      const input = { name: 'large', task: 'CLASSIFICATION', uploadId, sha256: hash.digest('hex') };
      const { datasetVersion } = await mutate(api, 'createDataset', input, 'datasetVersion { id job { id } }');
      await timed('import', () => ended(datasetVersion.job.id));
      const { data } = await ask(api, '{ dataset(name: "large") { version { counts { total train val } } } }');
      expect(data.dataset.version.counts).toEqual({ total: count, train: 0.9 * count, val: 0.1 * count });

      const hyperparameters = { imageSize: 32, epochs: 1, batchSize: 256, flip: 0, cropScale: 1 };
      const training = { modelName: 'large', datasetVersionId: datasetVersion.id, preset: 'mobilenet_v3_small', hyperparameters };
      const { job } = await mutate(api, 'startTraining', training, 'job { id }');
      const trained = await timed('training', () => ended(job.id));
      expect(trained.attempts).toHaveLength(1);
      await timed('conversion', () => ended(trained.result.conversionJobId));
      clearInterval(look);
      expect(peakBytes(process.pid)).toBeLessThan(serverBytesMax);
    });
  }),
);
