/**
 * The slots and the queue: which job may start next. A claim takes the slots, makes the attempt and moves the job to RUNNING in one
 * immediate transaction, so that a slot is never held twice.
 */
import { and, asc, between, count, desc, eq, gt, inArray, isNull, lte, or, sql } from 'drizzle-orm';
import { type Db, inTransaction, inUrgentTransaction, type Queryable } from '../db.ts';
import { appendEvent } from './events.ts';
import { age, findJob, requireJob } from './jobs.ts';
import type { JobKinds } from './kinds.ts';
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
 * Starts the next job that may start: by priority, then age. One that waits for slots holds back every later one that needs a
 * slot; one that needs all of them, waiting or running, holds back everything, so that nothing runs beside it.
 *
 * @param gpus of the machine: slot n has GPU n % gpus. A job of several slots gets those of different GPUs.
 */
export function claimNext(db: Db, kinds: JobKinds, gpus = 0): (Move & { attempt: Attempt; slots: number[] }) | null {
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
    for (const next of headsOfQueue(tx, slots)) {
      if (next.slotsNeeded === -1)
        return running.length === 0 && free.length === slots
          ? start(
              tx,
              kinds,
              next,
              free.map((s) => s.n),
            )
          : null;
      if (next.slotsNeeded === 0 && slotless < slotlessMax) return start(tx, kinds, next, []);
      const chosen = next.slotsNeeded > 0 ? choose(next.slotsNeeded, free, gpus) : null;
      if (chosen) return start(tx, kinds, next, chosen);
    }
    return null;
  });
}

/** So many of the free slots; null where there are too few. Where the machine has fewer GPUs than that, the job says what to do. */
function choose(needed: number, free: { n: number }[], gpus: number): number[] | null {
  const first = new Map<number, number>();
  for (const { n } of free) {
    const gpu = gpus < needed ? n : n % gpus;
    if (!first.has(gpu)) first.set(gpu, n);
  }
  return first.size < needed ? null : [...first.values()].slice(0, needed);
}

/**
 * The first waiting job of each need, in the order of the queue: of all slots, of none, of some. One that backs off, is held or needs more
 * slots than there are holds nothing back.
 */
function headsOfQueue(tx: Queryable, slots: number): Job[] {
  const now = Date.now();
  // What is due later than the longest back-off was written before the wall clock was put back.
  const isDue = or(isNull(job.notBefore), lte(job.notBefore, now), gt(job.notBefore, now + backoffMsMax));
  const heads = [eq(job.slotsNeeded, -1), eq(job.slotsNeeded, 0), between(job.slotsNeeded, 1, slots)].flatMap((need) =>
    tx
      .select({ job, age })
      .from(job)
      .where(and(eq(job.state, 'QUEUED'), need, eq(job.held, false), isDue))
      .orderBy(desc(job.priority), age)
      .limit(1)
      .all(),
  );
  return heads.sort((a, b) => b.job.priority - a.job.priority || a.age - b.age).map((head) => head.job);
}

function start(tx: Queryable, kinds: JobKinds, { id, attemptNumber, startedAt, parentId }: Job, slots: number[]) {
  const number = attemptNumber + 1;
  const now = Date.now();
  const started = tx.insert(attempt).values({ jobId: id, number, state: 'STARTING', startedAt: now }).returning().get();
  for (const n of slots) tx.update(slot).set({ jobId: id, attemptNumber: number }).where(eq(slot.n, n)).run();
  tx.update(job)
    .set({ state: 'RUNNING', attemptNumber: number, startedAt: startedAt ?? now })
    .where(eq(job.id, id))
    .run();
  const event = appendEvent(tx, id, number, { type: 'STATE', payload: { state: 'RUNNING' } });
  const claimed = requireJob(tx, id);
  const parent = parentId === null ? undefined : findJob(tx, parentId);
  if (parent) kinds[parent.kind].onChildStarted?.(tx, parent, claimed);
  return { job: claimed, attempt: started, slots, event, also: [] };
}
