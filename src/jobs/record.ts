import { setTimeout } from 'node:timers/promises';
import { sql } from 'drizzle-orm';
import { type Db, passingKind, prepared, type Queryable } from '../db.ts';
import { ApiError } from '../errors.ts';
import { appendEvents } from './events.ts';
import { markRunning, recordLive } from './moves.ts';
import type { Event } from './protocol.ts';
import type { Failure } from './states.ts';
import { type JobEvent, metricPoint } from './tables.ts';

/** The events of a child that are stored, and as what. */
const durableTypes: Partial<Record<Event['type'], JobEvent['type']>> = {
  phase: 'PHASE',
  epoch: 'EPOCH',
  checkpoint: 'CHECKPOINT',
  artifact: 'ARTIFACT',
  gate: 'GATE',
  warning: 'WARNING',
};

/**
 * Stores what the child of an attempt said, in one transaction, and returns its rows. Nothing is stored of an attempt that
 * is not the live one.
 */
export function recordEvents(db: Db, jobId: string, number: number, events: Event[]): JobEvent[] {
  if (!events.some((event) => event.type === 'hello' || durableTypes[event.type])) return [];
  const rows = recordLive(db, jobId, number, (tx) => {
    for (const event of events) {
      if (event.type === 'hello') {
        const { device, environment, versions, resumed } = event;
        markRunning(tx, jobId, number, { deviceJson: device, environmentJson: { ...environment, versions }, resumedJson: resumed });
      }
      if (event.type === 'epoch') recordMetrics(tx, jobId, number, event);
    }
    const told = events.flatMap((event) => {
      const { v: _v, job: _job, attempt: _attempt, n: _n, t: _t, type: _type, ...payload } = event;
      const type = durableTypes[event.type];
      return type ? [{ type, payload }] : [];
    });
    return appendEvents(tx, jobId, number, told);
  });
  return rows ?? [];
}

/** A repeated epoch of a later attempt overwrites its own points. */
const upsertMetric = prepared((db) =>
  db
    .insert(metricPoint)
    .values({
      jobId: sql.placeholder('jobId'),
      name: sql.placeholder('name'),
      step: sql.placeholder('step'),
      value: sql.placeholder('value'),
      epoch: sql.placeholder('epoch'),
      attemptNumber: sql.placeholder('attemptNumber'),
    })
    .onConflictDoUpdate({
      target: [metricPoint.jobId, metricPoint.name, metricPoint.step],
      set: { value: sql`excluded.value`, epoch: sql`excluded.epoch`, attemptNumber: sql`excluded.attemptNumber` },
    })
    .prepare(),
);

function recordMetrics(
  tx: Queryable,
  jobId: string,
  attemptNumber: number,
  { epoch, step, metrics }: Extract<Event, { type: 'epoch' }>,
): void {
  for (const [name, value] of Object.entries(metrics)) upsertMetric(tx).run({ jobId, name, step, value, epoch, attemptNumber });
}

const retryMs = 500;
/**
 * Repeats `write` while another process holds the database or the disk is full: an event or an end that was lost would leave the job
 * standing for ever. When the signal aborts, or `givesUp`, it throws what the last try met.
 */
export async function untilWritten<T>(write: () => T, signal: AbortSignal, givesUp = (_error: unknown) => false): Promise<T> {
  for (;;) {
    try {
      return write();
    } catch (error) {
      if (!passingKind(error) || signal.aborted || givesUp(error)) throw error;
      await setTimeout(retryMs, undefined, { signal }).catch(() => {
        throw error;
      });
    }
  }
}

/** The code of a child's `error` event, and of a failure, that a full disk is to blame for. */
export const diskFullCode = 'DISK_FULL';
export const diskIsFull: Failure = {
  code: diskFullCode,
  message: 'The disk of the data folder is full. The job continues when there is room: delete what is not needed.',
};

/** What the machine lacked for a while, when that is what the server met; null for any other error. */
export function lackOf(error: unknown): Failure | null {
  const kind = passingKind(error);
  if (kind === 'FULL' || (error instanceof ApiError && error.code === diskFullCode)) return diskIsFull;
  if (error instanceof ApiError && error.code === 'UNAVAILABLE') return { code: error.code, message: error.message };
  return kind && { code: 'UNAVAILABLE', message: 'The database or the disk could not be written for a while. The job continues later.' };
}
