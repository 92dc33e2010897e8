/** A training whose server is killed again and again. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import Sqlite from 'better-sqlite3';
import { expect } from 'vitest';
import { nextAnswer, withEvents } from './events.ts';
import { withServerProcess } from './process.ts';
import { adminName, adminPassword, postGraphql, withFolder } from './server.ts';
import { type Api, digitsVersion, jobWhen, mutate, succeeded } from './training.ts';

export interface TrainingJob {
  state: string;
  attempts: { number: number; state: string; charged: boolean; resumed: { epoch: number; batch: number } | null }[];
  events: { __typename: string; seq: number; attempt: number; phase?: string }[];
}

/**
 * When the server is killed: in the newest attempt of the training or of its conversion, the job has come this far; or so many
 * milliseconds after the server's start.
 */
export type Moment = number | { in: 'TRAIN' | 'CONVERT'; at: (events: TrainingJob['events']) => boolean };

async function login(url: string): Promise<string> {
  const mutation = 'mutation ($i: LoginInput!) { login(input: $i) { credentials { accessToken } } }';
  const { data } = await postGraphql(url, mutation, { i: { name: adminName, password: adminPassword } });
  return data.login.credentials.accessToken;
}

async function bootstrap(url: string, dataDir: string): Promise<void> {
  const token = readFileSync(join(dataDir, 'bootstrap-token'), 'utf8').trim();
  const mutation = 'mutation ($i: BootstrapInput!) { bootstrap(input: $i) { userErrors { message } } }';
  await postGraphql(url, mutation, { i: { token, name: adminName, password: adminPassword } });
}

/** Processes of this machine whose command line or environment names the folder. */
function processesOf(folder: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && Number(pid) !== process.pid && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(folder);
    } catch {
      return false;
    }
  });
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await setTimeout(50);
}

/** The training, or its conversion once it has succeeded. */
async function liveJob(api: Api, trainingId: string): Promise<{ id: string; kind: 'TRAIN' | 'CONVERT' }> {
  const query = 'query ($id: ID!) { job(id: $id) { children { id } } }';
  const { data } = await postGraphql(api.url, query, { id: trainingId }, api.token);
  const [child] = data.job.children;
  return child ? { id: child.id, kind: 'CONVERT' } : { id: trainingId, kind: 'TRAIN' };
}

/**
 * Trains two classes of digits, kills the server with SIGKILL at each of the moments, and starts it again. The training and its conversion
 * end once, their attempts are LOST, one file of each kind is registered. No process and no slot is left, and a
 * subscriber that resumes where it was misses no event. Gives the training and the conversion.
 */
export const outlives = (moments: Moment[]): Promise<[TrainingJob, TrainingJob]> =>
  withFolder(async (dataDir) => {
    const env = { WHETSTONE_DATA_DIR: dataDir, WHETSTONE_LOG_LEVEL: 'info' };
    let trainingId = '';
    /** After a random moment a job may end before the next one is seen. */
    const mayBeLate = moments.some((moment) => typeof moment === 'number');
    /** The last seq of each job that was seen. */
    const seen = new Map<string, number>();
    for (const moment of moments) {
      await withServerProcess(env, async (server) => {
        if (trainingId === '') await bootstrap(server.url, dataDir);
        const api: Api = { url: server.url, token: await login(server.url) };
        if (trainingId === '') {
          const datasetVersionId = await digitsVersion(api, [0, 1], 20);
          const hyperparameters = { imageSize: 32, epochs: 2, batchSize: 8, flip: 0 };
          const input = { modelName: 'digits', datasetVersionId, preset: 'resnet18', hyperparameters };
          trainingId = (await mutate(api, 'startTraining', input, 'job { id }')).job.id;
        }
        if (typeof moment === 'number') await setTimeout(moment);
        else if (moment.in === 'CONVERT') await succeeded(api, trainingId);
        const { id, kind } = await liveJob(api, trainingId);
        if (typeof moment !== 'number') expect(kind).toBe(moment.in);
        const job: TrainingJob = await jobWhen(
          api,
          id,
          // It backs off after a second death of the server in a row.
          ({ state, events, attempts }: TrainingJob) =>
            typeof moment === 'number' ||
            (mayBeLate && state === 'SUCCEEDED') ||
            (state === 'RUNNING' && moment.at(events.filter((e) => e.attempt === attempts.length))),
        );
        if (!mayBeLate) expect(job.state).not.toBe('SUCCEEDED');
        seen.set(id, Math.max(...job.events.map((e) => e.seq)));
        server.kill('SIGKILL');
        await server.exit;
      });
      // The trainer ends itself when its stdin closes.
      await until(() => processesOf(dataDir).length === 0);
    }
    const ended = await withServerProcess(env, async (server): Promise<[TrainingJob, TrainingJob]> => {
      const api: Api = { url: server.url, token: await login(server.url) };
      const training: TrainingJob = await ends(api, trainingId, seen.get(trainingId) ?? 0);
      const { id } = await liveJob(api, trainingId);
      const conversion: TrainingJob = await ends(api, id, seen.get(id) ?? 0);
      const lost = [training, conversion].flatMap(({ attempts }) => attempts.slice(0, -1));
      if (!mayBeLate) expect(lost).toHaveLength(moments.length);
      for (const one of lost) expect(one.state).toBe('LOST');
      server.kill('SIGTERM');
      expect((await server.exit).code).toBe(0);
      return [training, conversion];
    });
    const db = new Sqlite(join(dataDir, 'whetstone.db'), { readonly: true });
    const all = (sql: string) => db.prepare(sql).raw().all();
    expect(db.pragma('integrity_check')).toEqual([{ integrity_check: 'ok' }]);
    expect(all('SELECT n FROM slot WHERE jobId IS NOT NULL')).toEqual([]);
    expect(all('SELECT format, number FROM model_version ORDER BY number')).toEqual([
      ['CHECKPOINT', 1],
      ['ONNX', 2],
    ]);
    const ofVersions = "FROM artifact JOIN model_version v ON v.id = ownerId WHERE ownerType = 'MODEL_VERSION'";
    expect(all(`SELECT number, kind ${ofVersions} ORDER BY number, kind`)).toEqual([
      [1, 'CHECKPOINT'],
      [1, 'EVALUATION'],
      [1, 'WEIGHTS'],
      [2, 'EVALUATION'],
      [2, 'ONNX'],
      [2, 'PROBE'],
    ]);
    expect(all('SELECT count(*) FROM evaluation')).toEqual([[2]]);
    db.close();
    return ended;
  });

/** The job when it has succeeded; a subscriber that has its events up to `after` gets each of the others once. */
async function ends(api: Api, id: string, after: number): Promise<TrainingJob> {
  const told: number[] = [];
  await withEvents(
    api.url,
    'subscription ($id: ID!, $after: SafeInt!) { jobEvents(id: $id, after: $after) { seq } }',
    api.token,
    async (items) => {
      for (let answer = await nextAnswer(items); answer; answer = await nextAnswer(items)) told.push(answer.data.jobEvents.seq);
    },
    { id, after },
  );
  const job: TrainingJob = await succeeded(api, id);
  expect(told).toEqual(Array.from({ length: job.events.length - after }, (_, i) => after + 1 + i));
  expect(job.events.map((e) => e.seq)).toEqual(job.events.map((_, i) => i + 1));
  expect(job.attempts.at(-1)).toMatchObject({ state: 'SUCCEEDED', charged: false });
  return job;
}
