/** A server in a process of its own that is killed again and again, with its children, and what must be true after each time. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { expect } from 'vitest';
import { collectBlobs } from '../../src/storage/blobs.ts';
import { by, health, item } from './deployments.ts';
import { nextAnswer, withEvents } from './events.ts';
import { eventually } from './eventually.ts';
import { inferJson } from './inference.ts';
import { type Listening, withServerProcess } from './process.ts';
import { adminName, adminPassword, client, type TestServer } from './server.ts';
import { blobOf, blobsOf, until, withRows } from './storage.ts';
import type { Api } from './training.ts';

/** An event of a job, as a subscriber sees it. */
export interface Told {
  seq: number;
  attempt: number;
  type: string;
  phase?: string;
  state?: string;
}

const jobEvents = `subscription ($id: ID!, $after: SafeInt!) {
  jobEvents(id: $id, after: $after) { seq attempt type: __typename ... on JobStateEvent { state } ... on JobPhaseEvent { phase } }
}`;

/** What is killed: the server, the child of the attempt, or a process that is found by what it does. */
export type Victim = 'server' | 'child' | keyof typeof helpers;

const helpers = {
  /** The inference host. */
  host: ({ command }: Running) => command.includes('inference/child.ts'),
  /** Measures a cell of a benchmark. */
  cell: ({ command }: Running) => command.includes('benchmark/cell.ts'),
  /** Loads a model file with the serving engine. */
  check: ({ cwd }: Running) => cwd.endsWith('/load'),
  /** Unpacks a dataset again. */
  index: ({ command }: Running) => command.includes('--index-only'),
};

interface Running {
  pid: number;
  cwd: string;
  command: string;
}

/** The moment of a kill. */
export interface Moment {
  when: string;
  /** Whether it is there; given what the attempts that began after the last kill have told. */
  isNow: (told: Told[]) => unknown;
  /** On a fast machine the job may have ended by then: the server is killed behind it, and any kill after that one may be late as well. */
  mayBeLate?: true;
}

const isEnd = (told: Told | undefined): boolean => ['SUCCEEDED', 'FAILED', 'CANCELLED'].includes(told?.state ?? '');
const rawId = (id: string): string => Buffer.from(id, 'base64url').toString().split(':')[1] as string;

/** What a job of each kind leaves. */
const artifacts: Record<string, string[]> = {
  IMPORT_DATASET: ['DATASET_ZIP', 'IMAGES', 'MANIFEST', 'THUMBNAILS'],
  IMPORT_MODEL: ['ONNX'],
  TRAIN: ['CHECKPOINT', 'EVALUATION', 'WEIGHTS'],
  CONVERT: ['EVALUATION', 'ONNX', 'PROBE'],
  COMPRESS: ['EVALUATION', 'ONNX', 'PROBE'],
  BENCHMARK: ['SAMPLES', 'SAMPLES', 'SAMPLES', 'SAMPLES'],
};

export type Killed = Awaited<ReturnType<typeof startKilled>>;

/** Starts a server on a new data folder, with further settings; `stop` ends it and removes the folder. */
export async function startKilled(settings: Record<string, string> = {}) {
  const dataDir = mkdtempSync(join(tmpdir(), 'whetstone-killed-'));
  let server: Listening;
  /** Pending from the death of a server until the next one is ready. */
  let running: PromiseWithResolvers<Api>;
  let api: Api;

  async function start(): Promise<void> {
    const ready = Promise.withResolvers<Listening>();
    const env = { WHETSTONE_DATA_DIR: dataDir, WHETSTONE_LOG_LEVEL: 'info', ...settings };
    withServerProcess(env, (child) => {
      ready.resolve(child);
      return child.exit;
    }).catch(ready.reject);
    server = await ready.promise;
    await login();
    running.resolve(api);
  }

  async function login(): Promise<void> {
    const at = client({ url: server.url } as TestServer, dataDir);
    const isNew = existsSync(join(dataDir, 'bootstrap-token'));
    api = { url: server.url, token: isNew ? await at.admin() : (await at.login(adminName, adminPassword)).accessToken };
  }

  /** Processes that work in the data folder, or whose command line names it. */
  function processes(): Running[] {
    return readdirSync('/proc')
      .filter((pid) => /^\d+$/.test(pid))
      .flatMap((pid) => {
        try {
          const cwd = readlinkSync(`/proc/${pid}/cwd`);
          const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
          return cwd.startsWith(dataDir) || command.includes(dataDir) ? [{ pid: Number(pid), cwd, command }] : [];
        } catch {
          return [];
        }
      });
  }

  const pidOf = (helper: keyof typeof helpers): number | undefined => processes().find(helpers[helper])?.pid;

  function rows(sql: string, ...values: unknown[]): unknown[][] {
    const db = new Sqlite(join(dataDir, 'whetstone.db'), { readonly: true });
    try {
      return db
        .prepare(sql)
        .raw()
        .all(...values) as unknown[][];
    } finally {
      db.close();
    }
  }

  /** The newest attempt of a job. */
  function attemptOf(id: string): { number: number; state: string; pid: number } {
    const [row] = rows('SELECT number, state, pid FROM attempt WHERE jobId = ? ORDER BY number DESC LIMIT 1', rawId(id));
    const [number, state, pid] = row ?? [0, 'NONE', 0];
    return { number: Number(number), state: String(state), pid: Number(pid) };
  }

  /** Kills the server and starts it again; its children have gone when the next one is ready, or go then. */
  async function killServer(whileDead: () => void = () => {}): Promise<void> {
    running = Promise.withResolvers();
    const left = processes().map(({ pid }) => pid);
    server.kill('SIGKILL');
    await server.exit;
    expect(rows('PRAGMA integrity_check')).toEqual([['ok']]);
    expect(rows('PRAGMA foreign_key_check')).toEqual([]);
    whileDead();
    await start();
    await eventually(() => expect(processes().filter(({ pid }) => left.includes(pid))).toEqual([]));
  }

  /** Every event of a job, by a subscriber that resumes behind the last one when its server has died. */
  function follow(id: string): { seen: Told[]; ended: Promise<void> } {
    const seen: Told[] = [];
    const read = async () => {
      while (!isEnd(seen.at(-1))) {
        const before = running;
        const { url, token } = await before.promise;
        const variables = { id, after: seen.at(-1)?.seq ?? 0 };
        await withEvents(
          url,
          jobEvents,
          token,
          async (items) => {
            for (let answer = await nextAnswer(items); answer; answer = await nextAnswer(items)) {
              if (!answer.data) throw new Error(JSON.stringify(answer));
              seen.push(answer.data.jobEvents);
            }
          },
          variables,
        ).catch((error) => {
          if (running === before) throw error;
        });
      }
    };
    const ended = read();
    ended.catch(() => {});
    return { seen, ended };
  }

  /** Begins a job, kills at each of the moments, and waits until it has succeeded. */
  async function outlives(begin: () => Promise<string>, kills: readonly (readonly [Victim, Moment])[]): Promise<string> {
    const id = await begin();
    const { seen, ended } = follow(id);
    const expected: string[] = [];
    let past = 0;
    for (const [victim, { isNow, mayBeLate }] of kills) {
      await until(() => {
        if (isEnd(seen.at(-1)) && !mayBeLate) throw new Error(`The job ended before it could be killed: ${JSON.stringify(seen)}`);
        return Boolean(isNow(seen.filter(({ attempt }) => attempt > past)));
      });
      if (victim === 'server') {
        await killServer(() => {
          const { number, state } = attemptOf(id);
          past = number;
          if (state === 'STARTING' || state === 'RUNNING') expected.push('LOST');
        });
      } else {
        past = attemptOf(id).number;
        const pid = victim === 'child' ? attemptOf(id).pid : (pidOf(victim) as number);
        process.kill(pid, 'SIGKILL');
        if (victim !== 'cell') expected.push('CRASHED');
      }
    }
    await ended;
    expect(seen.map(({ seq }) => seq)).toEqual(seen.map((_, n) => n + 1));
    expect(rows('SELECT count(*) FROM job_event WHERE jobId = ?', rawId(id))).toEqual([[seen.length]]);
    expect(seen.filter(isEnd).map(({ state }) => state)).toEqual(['SUCCEEDED']);
    expect(rows('SELECT state FROM attempt WHERE jobId = ? ORDER BY number', rawId(id)).flat()).toEqual([...expected, 'SUCCEEDED']);
    const [[kind]] = rows('SELECT kind FROM job WHERE id = ?', rawId(id)) as [[string]];
    const owners = 'SELECT id FROM model_version WHERE jobId = @id UNION SELECT id FROM dataset_version WHERE jobId = @id UNION SELECT @id';
    const made = rows(`SELECT kind FROM artifact WHERE ownerId IN (${owners}) ORDER BY kind`, { id: rawId(id) });
    const crashedCells = kills.filter(([victim]) => victim === 'cell').length;
    expect(made.flat()).toEqual(artifacts[kind]?.slice(crashedCells));
    return id;
  }

  /** Waits until the deployment `steady` answers with the right model. */
  const serves = (name = 'steady', added = 1) =>
    eventually(async () => {
      const { url } = await health(api);
      const { json } = await inferJson(String(url), name, item(10), by(api));
      expect(json?.outputs?.[0].data[0]).toBe(10 + added);
    });

  /** What is true when nothing runs. */
  async function isAtRest(): Promise<void> {
    await serves();
    await eventually(() => {
      expect(processes().filter((one) => !helpers.host(one))).toEqual([]);
      expect(readdirSync(join(dataDir, 'children'))).toEqual([String(pidOf('host'))]);
      expect(readdirSync(join(dataDir, 'work'))).toEqual([]);
      expect(readdirSync(join(dataDir, 'uploads'))).toEqual([]);
    });
    expect(rows('SELECT n FROM slot WHERE jobId IS NOT NULL')).toEqual([]);
    expect(server.lines.filter((line) => line.includes('by a defect'))).toEqual([]);
    await withRows(dataDir, (db) => collectBlobs({ config: { dataDir }, db }, Date.now() + 25 * 3600_000));
    const stored = rows('SELECT sha256, sizeBytes FROM blob ORDER BY sha256');
    expect(stored.map(([sha256]) => [sha256])).toEqual(rows('SELECT DISTINCT sha256 FROM artifact ORDER BY sha256'));
    expect(blobsOf(dataDir).sort()).toEqual(stored.map(([sha256]) => sha256));
    for (const [sha256, sizeBytes] of stored) expect(statSync(blobOf(dataDir, String(sha256))).size).toBe(sizeBytes);
  }

  running = Promise.withResolvers();
  await start();
  return {
    dataDir,
    api: () => api,
    /** For a while: access tokens expire. */
    login,
    pidOf,
    rows,
    killServer,
    outlives,
    serves,
    isAtRest,
    async killHost() {
      const pid = pidOf('host') as number;
      process.kill(pid, 'SIGKILL');
      await eventually(() => expect(processes().map((one) => one.pid)).not.toContain(pid));
    },
    /** How a deployment answers. */
    status: async (name: string) => (await inferJson(String((await health(api)).url), name, item(1), by(api))).status,
    async stop() {
      server.kill('SIGTERM');
      const { code } = await server.exit;
      rmSync(dataDir, { recursive: true, force: true });
      expect(code).toBe(0);
    },
  };
}
