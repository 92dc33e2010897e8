/**
 * The slots and the queue: which job may start next. A claim takes the slots, makes the attempt and moves the job to RUNNING in one
 * immediate transaction, so that a slot is never held twice.
 */
import { and, asc, count, desc, eq, gt, inArray, isNull, lte, or, sql } from 'drizzle-orm';
import { type Db, inTransaction, inUrgentTransaction, type Queryable } from '../db.ts';
import { appendEvent } from './events.ts';
import { age, requireJob } from './jobs.ts';
import type { Move } from './moves.ts';
import { backoffMsMax } from './states.ts';
import { type Attempt, attempt, type Job, job, slot } from './tables.ts';

/** Jobs without a slot (imports) that run at the same time: they share the processor with the trainings. */
const slotlessMax = 2;

/** One row for each configured slot; a row beyond them goes as soon as it is free. */
export function prepareSlots(db: Db, slots: number): void {
  inUrgentTransaction(db, (tx) => {
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
  // The scheduler asks ten times a second, also while all that waits is held: then nothing more is read, and nothing locked.
  const mayStart = and(eq(job.state, 'QUEUED'), eq(job.held, false));
  if (!db.select({ id: job.id }).from(job).where(mayStart).limit(1).get()) return null;
  return inTransaction(db, (tx) => {
    // A coordinator, which has no attempts, takes nobody's place.
    const running = tx
      .select()
      .from(job)
      .where(and(inArray(job.state, ['RUNNING', 'CANCELLING']), gt(job.attemptNumber, 0)))
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

/** The first waiting job of each need, in the order of the queue. One that backs off or is held holds nothing back. */
function headsOfQueue(tx: Queryable): Job[] {
  const now = Date.now();
  // What is due later than the longest back-off was written before the wall clock was put back.
  const isDue = or(isNull(job.notBefore), lte(job.notBefore, now), gt(job.notBefore, now + backoffMsMax));
  const heads = [-1, 0, 1].flatMap((need) =>
    tx
      .select({ job, age })
      .from(job)
      .where(and(eq(job.state, 'QUEUED'), eq(job.slotsNeeded, need), eq(job.held, false), isDue))
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
  return { job: requireJob(tx, id), attempt: started, slots, event, also: [] };
}
