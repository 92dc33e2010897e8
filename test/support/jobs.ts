import { existsSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { eq } from 'drizzle-orm';
import { expect, vi } from 'vitest';
import type { Actor } from '../../src/accounts/audit.ts';
import { createBus } from '../../src/bus.ts';
import { type Config, readConfig } from '../../src/config.ts';
import { type Db, inTransaction, openDatabase } from '../../src/db.ts';
import { type AttemptLimits, announceMove, attemptLimits } from '../../src/jobs/attempt.ts';
import { enqueue, type NewJob } from '../../src/jobs/enqueue.ts';
import { readEvents } from '../../src/jobs/events.ts';
import { identify } from '../../src/jobs/executor/local.ts';
import { requireJob } from '../../src/jobs/jobs.ts';
import type { JobKind, JobKinds, JobServices } from '../../src/jobs/kinds.ts';
import { readLog } from '../../src/jobs/logs.ts';
import { cancelJob } from '../../src/jobs/moves.ts';
import { type Scheduler, startScheduler } from '../../src/jobs/scheduler.ts';
import { isFinal } from '../../src/jobs/states.ts';
import { type Attempt, attempt, type Job, type JobEvent, type JobState, job } from '../../src/jobs/tables.ts';
import { watchEvents } from '../../src/jobs/watch.ts';
import { createLog, type Log } from '../../src/log.ts';
import { watchGpus } from '../../src/system/gpus.ts';
import type { Tracing } from '../../src/tracing.ts';
import type { Script } from './child.ts';
import { kindsOf, scripted } from './kinds.ts';
import { withListening } from './process.ts';
import { withFolder } from './server.ts';

export const nobody: Actor = { actorId: null, requestId: null };

export type Submitted = Partial<NewJob> & Partial<Script> & { slots?: number; actor?: Actor };

/** Puts a job into the queue that needs `slots` (one) and whose child does `steps`. */
export function submit(
  db: Db,
  { slots = 1, actor = nobody, steps = ['hello', 'ok'], ignores, folder, finishWaits, ...rest }: Submitted = {},
): Job {
  return inTransaction(db, (tx) => {
    const { id } = enqueue(tx, actor, { kind: 'IMPORT_MODEL', spec: { steps, ignores, folder, finishWaits } satisfies Script, ...rest });
    tx.update(job).set({ slotsNeeded: slots }).where(eq(job.id, id)).run();
    return requireJob(tx, id);
  });
}

/** Whether the process of an attempt is there; a later one with its pid is another. */
export const isAlive = ({ pid, pidStart }: Attempt): boolean => pid !== null && pidStart !== null && identify(pid)?.pidStart === pidStart;

/** The processes that work in a folder or below it: those of jobs, known to the database or not. */
export function processesIn(folder: string): number[] {
  const pids = readdirSync('/proc').map(Number).filter(Boolean);
  return pids.filter((pid) => {
    try {
      return readlinkSync(`/proc/${pid}/cwd`).startsWith(folder);
    } catch {
      return false;
    }
  });
}

/** The children of a server that are no attempts. */
export const recordedChildren = (dataDir: string): number[] =>
  existsSync(join(dataDir, 'children')) ? readdirSync(join(dataDir, 'children')).map(Number) : [];

/** The first one, when it is there. */
export async function recordedChild(dataDir: string): Promise<number> {
  await until(() => recordedChildren(dataDir).length > 0);
  return recordedChildren(dataDir)[0] as number;
}

/** Waits for a condition that nothing tells of. */
export const until = (condition: () => unknown): Promise<unknown> => vi.waitUntil(condition, { timeout: 30_000, interval: 10 });

export const isType = (type: JobEvent['type']) => (event: JobEvent) => event.type === type;
export const isState = (state: JobState) => (event: JobEvent) => event.type === 'STATE' && event.payloadJson.state === state;

/** States of a job's attempts, with whether they are charged. */
export const endings = (jobs: Jobs, id: string): string[] => jobs.attempts(id).map((a) => `${a.state}${a.charged ? ' charged' : ''}`);

export async function logOf({ folder }: Jobs, id: string): Promise<string[]> {
  const texts: string[] = [];
  for await (const line of readLog(folder, id, 0)) texts.push(line.text);
  return texts;
}

/** As the mutation does; the scheduler has seen it. */
export async function cancel(jobs: Jobs, id: string): Promise<void> {
  const move = cancelJob(jobs.db, jobs.kinds, nobody, id);
  if (move) announceMove(jobs, move);
  await look(jobs);
}

/** Lets the scheduler look now. */
export async function look({ bus }: Jobs): Promise<void> {
  bus.wake('queueChanged', '');
  await setImmediate();
}

/** Lets a child continue that waits for `name`. */
export const touch = ({ folder }: Jobs, name: string): void => writeFileSync(join(folder, name), '');

export interface Jobs extends JobServices {
  folder: string;
  kinds: JobKinds;
  /** Starts the scheduler, which logs nothing unless there is a log; it is stopped at the end. */
  start(log?: Log): Promise<Scheduler>;
  submit(submitted?: Submitted): Job;
  job(id: string): Job;
  attempts(id: string): Attempt[];
  events(id: string): JobEvent[];
  /** The job when it has ended. */
  ended(id: string): Promise<Job>;
  /** The first event of the job, told already or later, that `matches`. */
  event(id: string, matches: (event: JobEvent) => boolean): Promise<JobEvent>;
}

interface Options {
  slots?: number;
  kind?: JobKind;
  /** Kinds that are another. */
  kinds?: Partial<JobKinds>;
  ladderMs?: Partial<AttemptLimits['ladderMs']>;
  lastLinesMs?: number;
  /** None, unless told otherwise. */
  backoffMs?: AttemptLimits['backoffMs'];
  /** Further variables, made of the data folder. */
  env?: (folder: string) => Record<string, string>;
  folder?: string;
  tracing?: Tracing;
}

/** Runs `use` with the jobs of a new data folder, without a server. Fails when a process of a job is left at the end. */
export async function withJobs<T>(use: (jobs: Jobs) => Promise<T>, options: Options = {}): Promise<T> {
  return withFolder(async (made) => {
    const folder = options.folder ?? made;
    const config: Config = readConfig({
      WHETSTONE_DATA_DIR: folder,
      WHETSTONE_SLOTS: String(options.slots ?? 2),
      WHETSTONE_LOG_LEVEL: 'silent',
      PATH: process.env.PATH,
      ...options.env?.(folder),
    });
    const { db, close } = openDatabase(folder);
    const services: JobServices = {
      config,
      db,
      bus: createBus(),
      progress: new Map(),
      metrics: { moved() {} },
      tracing: options.tracing ?? null,
    };
    const kinds = { ...kindsOf(options.kind ?? scripted), ...options.kinds };
    const schedulers: Scheduler[] = [];
    const limits = {
      ...attemptLimits,
      ladderMs: { ...attemptLimits.ladderMs, ...options.ladderMs },
      lastLinesMs: options.lastLinesMs,
      backoffMs: options.backoffMs ?? (() => 0),
    };
    const attempts = (id: string) => db.select().from(attempt).where(eq(attempt.jobId, id)).orderBy(attempt.number).all();
    const event: Jobs['event'] = async (id, matches) => {
      for await (const one of watchEvents(services, id, 0)) if (matches(one)) return one;
      throw new Error(`Job ${id} ended without the event that was waited for.`);
    };
    const jobs: Jobs = {
      ...services,
      folder,
      kinds,
      async start(log = createLog(config)) {
        const gpus = await watchGpus(config.childEnv.PATH ?? '', log);
        const scheduler = startScheduler(services, kinds, log, gpus, limits);
        schedulers.push({ stop: () => scheduler.stop().finally(() => gpus.stop()) });
        return scheduler;
      },
      submit: (submitted) => {
        const made = submit(db, { folder, ...submitted });
        services.bus.wake('queueChanged', '');
        return made;
      },
      job: (id) => requireJob(db, id),
      attempts,
      events: (id) => readEvents(db, id, 0, 1_000_000),
      async ended(id) {
        await event(id, ({ type, payloadJson }) => type === 'STATE' && isFinal(payloadJson.state as Job['state']));
        return requireJob(db, id);
      },
      event,
    };
    try {
      const result = await use(jobs);
      for (const scheduler of schedulers) await scheduler.stop();
      expect(processesIn(folder), 'processes left').toEqual([]);
      return result;
    } finally {
      for (const scheduler of schedulers) await scheduler.stop();
      close();
    }
  });
}

/** A server process whose jobs are scripted, on this folder and port (a free one). */
export const withJobServer = <T>(
  folder: string,
  use: (server: { url: string; pid: number; kill(): Promise<unknown> }) => Promise<T>,
  port = '0',
): Promise<T> =>
  withListening(
    ['test/support/jobServer.ts'],
    { WHETSTONE_DATA_DIR: folder, WHETSTONE_PORT: port },
    'whetstone is ready',
    async ({ url, pid, exit, kill }) => {
      const killed = () => {
        kill('SIGKILL');
        return exit;
      };
      return use({ url, pid, kill: killed });
    },
  );
