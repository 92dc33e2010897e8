/** What jobs give to the server's metrics: how long they wait and how long they run. */
import { and, eq, isNull, min } from 'drizzle-orm';
import { Histogram, type Registry } from 'prom-client';
import type { Queryable } from '../db.ts';
import { type JobKindName, jobKindTable } from './specs.ts';
import { finalStates, isFinal } from './states.ts';
import { type Job, type JobEvent, job } from './tables.ts';

export interface JobMetrics {
  /** Takes each committed move of a job. */
  moved(job: Job, event: JobEvent): void;
}

const kinds = Object.keys(jobKindTable) as JobKindName[];

/** Upper bounds in seconds: from an import of some images to a training of a day. */
const buckets = [0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400];

export function createJobMetrics(registry: Registry): JobMetrics {
  const registers = [registry];
  const wait = new Histogram({
    name: 'whetstone_job_queue_wait_seconds',
    help: 'Time from the request for a job to its first start.',
    labelNames: ['kind'],
    buckets,
    registers,
  });
  const duration = new Histogram({
    name: 'whetstone_job_duration_seconds',
    help: 'Time from the first start of a job to its end, by the state in which it ended. Jobs that never started are left out.',
    labelNames: ['kind', 'state'],
    buckets,
    registers,
  });
  // A series that begins with its first failure would hide it from `increase()`.
  for (const kind of kinds) {
    wait.zero({ kind });
    for (const state of finalStates) duration.zero({ kind, state });
  }
  return {
    moved({ kind, state, createdAt, startedAt, endedAt, attemptNumber }, { type, payloadJson }) {
      if (type !== 'STATE' || payloadJson.state !== state || startedAt === null) return;
      // The wall clock may have been put back meanwhile.
      const seconds = (from: number, to: number) => Math.max(0, to - from) / 1000;
      if (state === 'RUNNING' && attemptNumber === 1) wait.observe({ kind }, seconds(createdAt, startedAt));
      if (isFinal(state) && endedAt !== null) duration.observe({ kind, state }, seconds(startedAt, endedAt));
    },
  };
}

/** Since when the oldest job of each kind waits that was not started yet; null where none waits. Jobs that a person holds are left out. */
export function queuedSince(db: Queryable): [JobKindName, number | null][] {
  const waiting = and(eq(job.state, 'QUEUED'), eq(job.held, false), isNull(job.startedAt));
  const rows = db
    .select({ kind: job.kind, since: min(job.createdAt) })
    .from(job)
    .where(waiting)
    .groupBy(job.kind)
    .all();
  return kinds.map((kind) => [kind, rows.find((row) => row.kind === kind)?.since ?? null]);
}
