import { and, asc, desc, eq, gt, sql } from 'drizzle-orm';
import { limitArgument, prepared, type Queryable, rowInsert } from '../db.ts';
import { notFound } from '../errors.ts';
import { type JobEvent, job, jobEvent } from './tables.ts';

export type NewEvent = { type: JobEvent['type']; payload: Record<string, unknown> };

const takeSeqs = prepared((db) =>
  db
    .update(job)
    .set({ nextSeq: sql`${job.nextSeq} + ${sql.placeholder('count')}` })
    .where(eq(job.id, sql.placeholder('jobId')))
    .returning({ next: job.nextSeq })
    .prepare(),
);

const insertEvent = rowInsert(jobEvent);

/**
 * Appends durable events with the job's next seqs, in the same transaction as the change that they describe. Wake the topic `jobEvent` once that is
 * committed.
 */
export function appendEvents(tx: Queryable, jobId: string, attemptNumber: number, events: NewEvent[]): JobEvent[] {
  if (events.length === 0) return [];
  const { next } = takeSeqs(tx).get({ jobId, count: events.length }) ?? notFound('job');
  const first = next - events.length;
  const at = Date.now();
  const rows = events.map(({ type, payload }, i) => ({ jobId, seq: first + i, attemptNumber, at, type, payloadJson: payload }));
  for (const row of rows) insertEvent(tx, row);
  return rows;
}

export function appendEvent(tx: Queryable, jobId: string, attemptNumber: number, event: NewEvent): JobEvent {
  return appendEvents(tx, jobId, attemptNumber, [event])[0] as JobEvent;
}

const eventsQuery = prepared((db) =>
  db
    .select()
    .from(jobEvent)
    .where(and(eq(jobEvent.jobId, sql.placeholder('jobId')), gt(jobEvent.seq, sql.placeholder('after'))))
    .orderBy(asc(jobEvent.seq))
    .limit(limitArgument)
    .prepare(),
);

/** The newest event of this type. */
export function lastEvent(db: Queryable, jobId: string, type: JobEvent['type']): JobEvent | undefined {
  const isOne = and(eq(jobEvent.jobId, jobId), eq(jobEvent.type, type));
  return db.select().from(jobEvent).where(isOne).orderBy(desc(jobEvent.seq)).limit(1).get();
}

/** At most `limit` events with a seq greater than `after`, in order. */
export function readEvents(db: Queryable, jobId: string, after: number, limit: number): JobEvent[] {
  return eventsQuery(db).all({ jobId, after, limit });
}
