/**
 * A server under everything at once for half an hour: after the first third nothing that it holds grows any more. `SOAK_MINUTES=3` shortens
 * it. What the jobs, uploads and deployments make is deleted again by the clients: what is left are the lines of history.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { Agent } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { median } from '../bench/load.ts';
import { by, deployed, health, hostPid, item } from './support/deployments.ts';
import { digitFolders } from './support/images.ts';
import { inferJson, makeInferenceModels } from './support/inference.ts';
import { withServerProcess } from './support/process.ts';
import { client, type TestServer } from './support/server.ts';
import { withConnection } from './support/socket.ts';
import { bytesOf, post, sizeOf, tus } from './support/storage.ts';
import { type Api, ask, datasetVersionOf, modelVersionOf, mutate, succeeded, trained } from './support/training.ts';

const minutes = Number(process.env.SOAK_MINUTES ?? 30);
const sampleMs = 3000;
const swapMs = 20_000;
const inferenceClients = 8;
const subscribers = 20;
/** Not what is tested. */
const deadlineMs = 60_000;

const folder = mkdtempSync(join(tmpdir(), 'whetstone-soak-'));
const dataDir = join(folder, 'data');
beforeAll(() => makeInferenceModels(folder, ['identity']));
afterAll(() => rmSync(folder, { recursive: true }));

/** The memory of a process without the files that it has mapped, in bytes. */
const memoryOf = (pid: number) => 1024 * Number(/^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
const descriptorsOf = (pid: number) => readdirSync(`/proc/${pid}/fd`).length;
const filesOf = (path: string) =>
  readdirSync(path, { recursive: true, withFileTypes: true }).reduce(
    (sum, e) => sum + (e.isFile() ? sizeOf(join(e.parentPath, e.name)) : 0),
    0,
  );

/** What is read, and by how much it may be more at the end than after the first third: a share of itself, or so many. */
const readings = {
  'memory of the server': { read: (server: number) => memoryOf(server), share: 0.1 },
  'memory of the inference host': { read: (_: number, host: number) => memoryOf(host), share: 0.1 },
  'descriptors of the server': { read: (server: number) => descriptorsOf(server), more: 3 },
  'descriptors of the inference host': { read: (_: number, host: number) => descriptorsOf(host), more: 3 },
  'write-ahead log': { read: () => sizeOf(join(dataDir, 'whetstone.db-wal')), more: 1e6 },
  // History: what was done, when and by whom.
  'data folder': { read: () => filesOf(dataDir), more: 5e6 },
} satisfies Record<string, { read: (server: number, host: number) => number; share?: number; more?: number }>;

/** Bytes in MB, numbers of descriptors as they are. */
const shortOf = (value: number) => (value < 100_000 ? `${value}` : `${(value / 1e6).toFixed(1)} MB`);

/** By how much the values rise from the first to the last: the median slope of all pairs, which single high or low ones do not move. */
function rise(values: number[]): number {
  const slopes = values.flatMap((late, j) => values.slice(0, j).map((early, i) => (late - early) / (j - i)));
  return median(slopes) * (values.length - 1);
}

test(`for ${minutes} minutes jobs, uploads, swaps, clients and subscribers leave nothing behind`, () =>
  withServerProcess({ WHETSTONE_DATA_DIR: dataDir }, async (server) => {
    const scopes = ['DELETE', 'DEPLOY', 'INFER', 'READ', 'RUN_JOBS', 'UPLOAD'];
    const admin = { url: server.url, token: await client({ url: server.url } as TestServer, dataDir).admin() };
    const { secret } = await mutate(admin, 'createApiKey', { name: 'soak', scopes }, 'secret');
    const api: Api = { url: server.url, token: secret };

    const identity = await modelVersionOf(api, 'identity', join(folder, 'identity.onnx'));
    await deployed(api, 'echo', identity, { deadlineMs });
    const { url: inferenceUrl } = await health(api);
    const agent = new Agent({ keepAlive: true, maxSockets: inferenceClients });

    const endAt = performance.now() + minutes * 60_000;
    const done: Record<string, number> = {};
    /** Again and again until the time is over. */
    const repeated = async (what: string, work: (n: number) => Promise<unknown>) => {
      for (let n = 0; performance.now() < endAt; n += 1) {
        await work(n);
        done[what] = (done[what] ?? 0) + 1;
      }
    };

    let job = '';
    const images = 12;
    const trainAndDelete = async (n: number) => {
      const datasetVersionId = await datasetVersionOf(api, 'digits', await digitFolders([0, 1], images, { first: images * (n % 50) }));
      const hyperparameters = { imageSize: 32, epochs: 1, batchSize: 8 };
      const input = { modelName: 'digits', datasetVersionId, preset: 'resnet18', hyperparameters };
      job = (await mutate(api, 'startTraining', input, 'job { id }')).job.id;
      await trained(api, job);
      const made = 'model(name: "digits") { id versions { nodes { id } } } dataset(name: "digits") { id }';
      const { data } = await ask(api, `{ ${made} jobs(first: 10, filter: {kinds: [IMPORT_DATASET]}) { nodes { id } } }`);
      const evaluated = { modelVersionId: data.model.versions.nodes[0].id, datasetVersionId };
      const { job: evaluation } = await mutate(api, 'startEvaluation', evaluated, 'job { id }');
      await succeeded(api, evaluation.id);
      const ended = [job, evaluation.id, ...data.jobs.nodes.map(({ id }: { id: string }) => id)];
      // Nobody subscribes to it any more.
      job = '';
      await mutate(api, 'deleteModel', { modelId: data.model.id }, 'model { id }');
      await mutate(api, 'deleteDataset', { datasetId: data.dataset.id }, 'dataset { id }');
      for (const id of ended) await mutate(api, 'deleteJob', { jobId: id }, 'deletedJobId');
    };

    const uploadAndDelete = async (n: number) => {
      const { json } = await post(server.url, secret, 'file.zip', bytesOf(`${n}`, 4_000_000));
      expect(await tus('DELETE', `${server.url}/uploads/${json.uploadId}`, secret)).toMatchObject({ status: 204 });
      await delay(500);
    };

    const swap = async (n: number) => {
      await delay(swapMs);
      // The number of the settings makes it another configuration each time.
      await deployed(api, 'echo', identity, { deadlineMs, batchMax: 1 + (n % 4) });
    };

    const infer = async (n: number) => {
      const { status, json } = await inferJson(inferenceUrl, 'echo', item(n), by(api, { agent }));
      expect([status, json.outputs?.[0].data]).toEqual([200, item(n).inputs[0]?.data]);
      await delay(20);
    };

    const topics = ['jobs { id state }', 'system { cpu { utilizationPercent } }', 'inferenceStats { queuedRequests }'];
    /** Every second one stays, the others come again every 5 s. All of them read the events of the newest training. */
    const subscribe = async (which: number) => {
      const stays = which % 2 === 0;
      await withConnection(server.url, secret, async (socket) => {
        const all = [...topics, ...(job ? [`jobEvents(id: "${job}") { seq }`] : [])];
        for (const [id, topic] of all.entries())
          socket.send({ type: 'subscribe', id: `${id}`, payload: { query: `subscription { ${topic} }` } });
        await socket.message(({ type, id }) => type === 'next' && id === '1');
        do {
          await delay(5000);
          expect([socket.raw.readyState, socket.messages.filter(({ type }) => type === 'error')]).toEqual([WebSocket.OPEN, []]);
          socket.messages.length = 0;
        } while (stays && performance.now() < endAt);
      });
    };

    const host = hostPid(server.pid) as number;
    const taken = Object.fromEntries(Object.keys(readings).map((name) => [name, [] as number[]]));
    const startedAt = performance.now();
    let shown = 0;
    const sample = async () => {
      for (const [name, { read }] of Object.entries(readings)) taken[name]?.push(read(server.pid, host));
      const minute = Math.floor((performance.now() - startedAt) / 60_000);
      if (minute >= shown) {
        const newest = Object.entries(taken).map(([name, values]) => `${name} ${shortOf(values.at(-1) as number)}`);
        console.log(`Minute ${minute}: ${newest.join(', ')}`);
        shown = minute + 1;
      }
      await delay(sampleMs);
    };

    await Promise.all([
      repeated('trainings', trainAndDelete),
      repeated('uploads', uploadAndDelete),
      repeated('swaps', swap),
      ...Array.from({ length: inferenceClients }, (_, n) =>
        // From 1: JSON has no -0. Each number once, and small enough to be exact as FP32.
        repeated('answers', (k) => infer(1 + inferenceClients * k + n)),
      ),
      ...Array.from({ length: subscribers }, (_, n) => repeated('connections', () => subscribe(n))),
      repeated('samples', sample),
    ]);
    agent.destroy();

    console.log(
      `In ${minutes} minutes: ${Object.entries(done)
        .map(([what, count]) => `${count} ${what}`)
        .join(', ')}.`,
    );
    const risen = Object.entries(readings).map(([name, { share = 0, more = 0 }]: [string, { share?: number; more?: number }]) => {
      const values = (taken[name] as number[]).slice(Math.floor((taken[name] as number[]).length / 3));
      const level = median(values);
      return { name, level, rise: Math.round(rise(values)), most: Math.round(level * share + more) };
    });
    console.table(risen);
    // What never came to its end grows nothing.
    const works = ['trainings', 'uploads', 'swaps', 'answers', 'connections'];
    expect(works.filter((what) => !done[what])).toEqual([]);
    expect(risen.filter(({ rise, most }) => rise > most)).toEqual([]);
    expect(await health(api)).toMatchObject({ restarts: 0 });
    server.kill('SIGTERM');
    expect(await server.exit).toEqual({ code: 0, signal: null });
  }));
