import { and, asc, count, desc, eq, inArray, isNull, sql } from 'drizzle-orm';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import { type Db, inTransaction, prepared, type Queryable } from '../db.ts';
import { notFound, refuse } from '../errors.ts';
import { appendEvent } from './events.ts';
import type { JobKinds } from './kinds.ts';
import { type AttemptEnding, type Failure, isFinal, jobAfter } from './states.ts';
import { type Attempt, attempt, type Job, type JobEvent, job, slot } from './tables.ts';

/** Jobs without a slot (imports) that run at the same time: they share the processor with the trainings. */
const slotlessMax = 2;

/** A move that is committed: the job as it is now and the event that tells of it, to be published. */
export interface Move {
  job: Job;
  event: JobEvent;
}

const jobQuery = prepared((db) =>
  db
    .select()
    .from(job)
    .where(eq(job.id, sql.placeholder('id')))
    .prepare(),
);

export function findJob(db: Queryable, id: string): Job | undefined {
  return jobQuery(db).get({ id });
}

export function requireJob(db: Queryable, id: string): Job {
  return findJob(db, id) ?? notFound('job');
}

/** One row for each configured slot; a row beyond them goes as soon as it is free. */
export function prepareSlots(db: Db, slots: number): void {
  inTransaction(db, (tx) => {
    for (let n = 0; n < slots; n += 1) tx.insert(slot).values({ n }).onConflictDoNothing().run();
    tx.delete(slot)
      .where(and(sql`${slot.n} >= ${slots}`, isNull(slot.jobId)))
      .run();
  });
}

/**
 * Starts the next job that may start: by priority, then age. One that waits for a slot holds back every later one that needs a
 * slot; one that needs all of them, waiting or running, holds back everything, so that nothing runs beside it.
 */
export function claimNext(db: Db): (Move & { attempt: Attempt; slots: number[] }) | null {
  if (!db.select({ id: job.id }).from(job).where(eq(job.state, 'QUEUED')).limit(1).get()) return null;
  return inTransaction(db, (tx) => {
    const running = tx
      .select()
      .from(job)
      .where(inArray(job.state, ['RUNNING', 'CANCELLING']))
      .all();
    if (running.some((j) => j.slotsNeeded === -1)) return null;
    const free = tx.select().from(slot).where(isNull(slot.jobId)).orderBy(asc(slot.n)).all();
    const slots = tx.select({ n: count() }).from(slot).get()?.n ?? 0;
    const slotless = running.filter((j) => j.slotsNeeded === 0).length;
    for (const next of headsOfQueue(tx)) {
      if (next.slotsNeeded === -1)
        return running.length === 0 && free.length === slots
          ? start(
              tx,
              next,
              free.map((s) => s.n),
            )
          : null;
      if (next.slotsNeeded === 0 && slotless < slotlessMax) return start(tx, next, []);
      if (next.slotsNeeded === 1 && free[0]) return start(tx, next, [free[0].n]);
    }
    return null;
  });
}

/** The order in which jobs were made, whatever the clock did meanwhile: two may have the same `createdAt`, and it may run backwards. */
export const age = sql<number>`${job}.rowid`;

/** The first waiting job of each need, in the order of the queue. */
function headsOfQueue(tx: Queryable): Job[] {
  const heads = [-1, 0, 1].flatMap((need) =>
    tx
      .select({ job, age })
      .from(job)
      .where(and(eq(job.state, 'QUEUED'), eq(job.slotsNeeded, need)))
      .orderBy(desc(job.priority), age)
      .limit(1)
      .all(),
  );
  return heads.sort((a, b) => b.job.priority - a.job.priority || a.age - b.age).map((head) => head.job);
}

function start(tx: Queryable, { id, attemptNumber, startedAt }: Job, slots: number[]) {
  const number = attemptNumber + 1;
  const now = Date.now();
  const started = tx.insert(attempt).values({ jobId: id, number, state: 'STARTING', startedAt: now }).returning().get();
  for (const n of slots) tx.update(slot).set({ jobId: id, attemptNumber: number }).where(eq(slot.n, n)).run();
  tx.update(job)
    .set({ state: 'RUNNING', attemptNumber: number, startedAt: startedAt ?? now })
    .where(eq(job.id, id))
    .run();
  const event = appendEvent(tx, id, number, { type: 'STATE', payload: { state: 'RUNNING' } });
  return { job: requireJob(tx, id), attempt: started, slots, event };
}

/** Whether this attempt is the one that runs: everything from any other is dropped. */
function isLive(tx: Queryable, jobId: string, number: number): Job | null {
  const row = findJob(tx, jobId);
  return row && row.attemptNumber === number && (row.state === 'RUNNING' || row.state === 'CANCELLING') ? row : null;
}

/** Records something of a running attempt in one transaction; null, and nothing written, when the attempt is not the live one. */
export function recordLive<T>(db: Db, jobId: string, number: number, write: (tx: Queryable) => T): T | null {
  return inTransaction(db, (tx) => (isLive(tx, jobId, number) ? write(tx) : null));
}

/** The child of an attempt that is being started. */
export function recordProcess(db: Db, jobId: string, number: number, child: Pick<Attempt, 'pid' | 'pidStart' | 'bootId'>): void {
  recordLive(db, jobId, number, (tx) => tx.update(attempt).set(child).where(isAttempt(jobId, number)).run());
}

/** The child of an attempt has said hello: in the transaction of `recordLive`. */
export function markRunning(
  tx: Queryable,
  jobId: string,
  number: number,
  about: Pick<Attempt, 'deviceJson' | 'environmentJson' | 'resumedJson'>,
): void {
  tx.update(attempt)
    .set({ state: 'RUNNING', ...about })
    .where(isAttempt(jobId, number))
    .run();
}

const isAttempt = (jobId: string, number: number) => and(eq(attempt.jobId, jobId), eq(attempt.number, number));

export interface End {
  state: AttemptEnding;
  failure: Failure | null;
  exitCode?: number | null;
  signal?: string | null;
}

/**
 * Ends an attempt, frees its slots and moves its job on, all in one transaction. `register` inserts what a successful attempt made
 * and returns the job's result. Null when the attempt has ended already.
 */
export function endAttempt(
  db: Db,
  kinds: JobKinds,
  jobId: string,
  number: number,
  end: End,
  register: (tx: Queryable) => Record<string, unknown> = () => ({}),
): Move | null {
  return inTransaction(db, (tx) => {
    const row = isLive(tx, jobId, number);
    if (!row) return null;
    const endedAt = Date.now();
    const { state, failure, exitCode, signal } = end;
    tx.update(attempt)
      .set({ state, endedAt, exitCode, signal, charged: state === 'CRASHED' })
      .where(isAttempt(jobId, number))
      .run();
    const charged = and(eq(attempt.jobId, jobId), eq(attempt.charged, true));
    const crashes = tx.select({ n: count() }).from(attempt).where(charged).get()?.n ?? 0;
    const next = jobAfter(row.state as 'RUNNING' | 'CANCELLING', { state, failure }, { number, crashes });
    const resultJson = next.state === 'SUCCEEDED' ? register(tx) : null;
    tx.update(slot).set({ jobId: null, attemptNumber: null }).where(eq(slot.jobId, jobId)).run();
    return move(tx, kinds, row, next.state, { attemptState: state, failure: next.failure ?? failure, resultJson, final: next.failure });
  });
}

/** Cancels a job: at once while it waits, otherwise its attempt is told to stop. A job that has ended cannot be cancelled. */
export function cancelJob(db: Db, kinds: JobKinds, actor: Actor, id: string): Move | null {
  return inTransaction(db, (tx) => {
    const row = requireJob(tx, id);
    if (isFinal(row.state)) refuse('INVALID', 'jobId', `The job has ended already: it is ${row.state}.`);
    if (row.state === 'CANCELLING') return null;
    writeAudit(tx, actor, { action: 'cancelJob', target: { type: 'Job', id } });
    return move(tx, kinds, row, row.state === 'QUEUED' ? 'CANCELLED' : 'CANCELLING', {});
  });
}

interface MoveDetail {
  attemptState?: AttemptEnding;
  /** Why the attempt ended as it did, for the event. */
  failure?: Failure | null;
  /** Why the job failed, for its row. */
  final?: Failure | null;
  resultJson?: Record<string, unknown> | null;
}

function move(
  tx: Queryable,
  kinds: JobKinds,
  row: Job,
  state: Job['state'],
  { attemptState, failure, final, resultJson }: MoveDetail,
): Move {
  const ended = isFinal(state);
  tx.update(job)
    .set({
      state,
      endedAt: ended ? Date.now() : null,
      failureCode: final?.code ?? null,
      failureMessage: final?.message ?? null,
      resultJson: resultJson ?? null,
    })
    .where(eq(job.id, row.id))
    .run();
  if (state === 'FAILED' || state === 'CANCELLED') kinds[row.kind].undo?.(tx, row);
  const payload = { state, ...(attemptState ? { attemptState } : {}), ...(failure ? { failure } : {}) };
  const event = appendEvent(tx, row.id, row.attemptNumber, { type: 'STATE', payload });
  return { job: requireJob(tx, row.id), event };
}
