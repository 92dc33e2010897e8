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

/** When the server is killed: in the attempt that is the newest, the job has come this far; or so many milliseconds after the server's start. */
export type Moment = number | ((events: TrainingJob['events']) => boolean);

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

/**
 * Trains two classes of digits, kills the server with SIGKILL at each of the moments, and starts it again: the job ends once, its
 * attempts are LOST, no process and no slot is left, and a subscriber that goes on where it was misses no event.
 */
export const outlives = (moments: Moment[]): Promise<TrainingJob> =>
  withFolder(async (dataDir) => {
    const env = { WHETSTONE_DATA_DIR: dataDir, WHETSTONE_LOG_LEVEL: 'info' };
    let jobId = '';
    let seq = 0;
    for (const moment of moments) {
      await withServerProcess(env, async (server) => {
        if (jobId === '') await bootstrap(server.url, dataDir);
        const api: Api = { url: server.url, token: await login(server.url) };
        if (jobId === '') {
          const datasetVersionId = await digitsVersion(api, [0, 1], 20);
          const hyperparameters = { imageSize: 32, epochs: 2, batchSize: 8, flip: 0 };
          const input = { modelName: 'digits', datasetVersionId, preset: 'resnet50', hyperparameters };
          jobId = (await mutate(api, 'startTraining', input, 'job { id }')).job.id;
        }
        if (typeof moment === 'number') await setTimeout(moment);
        const job: TrainingJob = await jobWhen(
          api,
          jobId,
          ({ events, attempts }: TrainingJob) => typeof moment === 'number' || moment(events.filter((e) => e.attempt === attempts.length)),
        );
        expect(job.state).not.toBe('SUCCEEDED');
        seq = Math.max(seq, ...job.events.map((e) => e.seq));
        server.kill('SIGKILL');
        await server.exit;
      });
      // The trainer ends itself when its stdin closes.
      await until(() => processesOf(dataDir).length === 0);
    }
    const ended = await withServerProcess(env, async (server) => {
      const api: Api = { url: server.url, token: await login(server.url) };
      const resumed: number[] = [];
      await withEvents(
        server.url,
        'subscription ($id: ID!, $after: SafeInt!) { jobEvents(id: $id, after: $after) { seq } }',
        api.token,
        async (items) => {
          for (let answer = await nextAnswer(items); answer; answer = await nextAnswer(items)) resumed.push(answer.data.jobEvents.seq);
        },
        { id: jobId, after: seq },
      );
      const job: TrainingJob = await succeeded(api, jobId);
      expect(resumed).toEqual(Array.from({ length: job.events.length - seq }, (_, i) => seq + 1 + i));
      expect(job.events.map((e) => e.seq)).toEqual(job.events.map((_, i) => i + 1));
      expect(job.attempts.map((a) => a.state)).toEqual([...moments.map(() => 'LOST'), 'SUCCEEDED']);
      const { data } = await postGraphql(
        server.url,
        '{ model(name: "digits") { versions(first: 10) { nodes { number format } } } }',
        {},
        api.token,
      );
      expect(data.model.versions.nodes.map((v: { format: string }) => v.format).sort()).toEqual(['CHECKPOINT', 'ONNX']);
      server.kill('SIGTERM');
      expect((await server.exit).code).toBe(0);
      return job;
    });
    const db = new Sqlite(join(dataDir, 'whetstone.db'), { readonly: true });
    expect(db.pragma('integrity_check')).toEqual([{ integrity_check: 'ok' }]);
    expect(db.prepare('SELECT count(*) AS n FROM slot WHERE jobId IS NOT NULL').get()).toEqual({ n: 0 });
    db.close();
    return ended;
  });
