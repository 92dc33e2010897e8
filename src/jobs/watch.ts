/** The streams of jobs: each reads behind its own cursor when it is woken. */
import { asc, inArray } from 'drizzle-orm';
import type { Bus } from '../bus.ts';
import { type Db, prepared } from '../db.ts';
import { follow } from '../follow.ts';
import { readEvents } from './events.ts';
import { findJob, requireJob } from './jobs.ts';
import type { JobServices } from './kinds.ts';
import { logReader } from './logs.ts';
import type { LogLine, Progress } from './progress.ts';
import { isFinal } from './states.ts';
import { type Job, type JobEvent, type JobState, job } from './tables.ts';

/** Events and lines that are read at a time. */
const pageRows = 200;
/** Changed jobs that a reader of all jobs may be behind before its stream ends. */
const changedMax = 10_000;

const endsJob = ({ type, payloadJson }: JobEvent): boolean => type === 'STATE' && isFinal(payloadJson.state as JobState);

const isEnded = (db: Db, jobId: string): boolean => {
  const row = findJob(db, jobId);
  return !row || isFinal(row.state);
};

/** Wakes for one of the topics of a job, and at its end. */
const wakesOf = (bus: Bus, topic: 'jobLog' | 'jobProgress', jobId: string) => (wake: () => void) => {
  const offs = [bus.on(topic, jobId, wake), bus.on('jobEvent', jobId, wake)];
  return () => {
    for (const off of offs) off();
  };
};

const recentPages = new WeakMap<Db, Map<string, JobEvent[]>>();

/**
 * The next events behind a seq. Those who follow a job mostly stand at the same place: in the same turn of the event loop they share the
 * rows. That there are none is not shared, since there may be some a moment later.
 */
function nextEvents(db: Db, jobId: string, after: number): JobEvent[] {
  let pages = recentPages.get(db);
  if (!pages) {
    pages = new Map();
    recentPages.set(db, pages);
    setImmediate(() => recentPages.delete(db));
  }
  const key = `${jobId} ${after}`;
  const rows = pages.get(key) ?? readEvents(db, jobId, after, pageRows);
  if (rows.length > 0) pages.set(key, rows);
  return rows;
}

/**
 * The durable events of a job with a seq greater than `after`, without a gap, up to the one that ends it. NOT_FOUND without such a job.
 */
export function watchEvents({ db, bus }: Pick<JobServices, 'db' | 'bus'>, jobId: string, after: number) {
  requireJob(db, jobId);
  let seq = after;
  return follow<JobEvent>(
    (wake) => bus.on('jobEvent', jobId, wake),
    function* () {
      for (let rows = nextEvents(db, jobId, seq); rows.length > 0; rows = nextEvents(db, jobId, seq)) {
        for (const row of rows) {
          yield row;
          seq = row.seq;
          if (endsJob(row)) return true;
        }
      }
      // `after` at or behind the end: nothing will come.
      return seq === after && isEnded(db, jobId);
    },
  );
}

/** Ticks of a running job from now on: the latest only, until the job ends. */
export function watchProgress({ db, bus, progress }: Pick<JobServices, 'db' | 'bus' | 'progress'>, jobId: string) {
  requireJob(db, jobId);
  let seen = progress.get(jobId);
  return follow<Progress>(wakesOf(bus, 'jobProgress', jobId), function* () {
    const latest = progress.get(jobId);
    if (latest && latest !== seen) {
      seen = latest;
      yield latest;
    }
    return isEnded(db, jobId);
  });
}

/** The lines of a job's log behind line `after`, until the job ends. */
export function watchLogs({ db, bus, config }: Pick<JobServices, 'db' | 'bus' | 'config'>, jobId: string, after: number) {
  requireJob(db, jobId);
  const next = logReader(config.dataDir, jobId, after);
  return follow<LogLine>(wakesOf(bus, 'jobLog', jobId), async function* () {
    // Asked before the file is read: a job may end meanwhile, with lines behind the end that was read.
    const ended = isEnded(db, jobId);
    for (let lines = await next(pageRows); lines.length > 0; lines = await next(pageRows)) yield* lines;
    return ended;
  });
}

const liveJobsQuery = prepared((db) =>
  db
    .select()
    .from(job)
    .where(inArray(job.state, ['QUEUED', 'RUNNING', 'CANCELLING']))
    .orderBy(asc(job.createdAt), asc(job.id))
    .prepare(),
);

/**
 * The jobs that have not ended, oldest first, then each job when it has changed. Changes of one job that a slow reader has not seen yet are
 * one: it gets the latest state, so never misses a last one. A reader that is too far behind is disconnected.
 */
export function watchJobs({ db, bus }: Pick<JobServices, 'db' | 'bus'>, matches: (job: Job) => boolean) {
  let changed: Set<string> | undefined;
  let isTooFar = false;
  return follow<Job>(
    (wake) =>
      bus.on('jobChanged', null, (jobId) => {
        changed?.add(jobId);
        if (changed && changed.size > changedMax) {
          isTooFar = true;
          changed.clear();
        }
        wake();
      }),
    function* () {
      if (!changed) {
        changed = new Set();
        yield* liveJobsQuery(db).all().filter(matches);
      }
      for (const jobId of changed) {
        changed.delete(jobId);
        const row = findJob(db, jobId);
        if (row && matches(row)) yield row;
      }
      return isTooFar;
    },
  );
}
