import { randomUUIDv7 } from 'node:crypto';
import { and, count, eq, inArray } from 'drizzle-orm';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import type { Bus } from '../bus.ts';
import { type Db, inTransaction, type Queryable } from '../db.ts';
import { refuse } from '../errors.ts';
import { appendEvent } from './events.ts';
import { type Job, type JobKindName, job } from './tables.ts';

/** Jobs that may wait at the same time. */
const queueMax = 1000;

/** Slots that a job of each kind holds: none, one, or all of them (-1) with nothing else beside it. */
const slotsNeededOf: Record<JobKindName, -1 | 0 | 1> = {
  IMPORT_DATASET: 0,
  IMPORT_MODEL: 0,
  TRAIN: 1,
  CONVERT: 1,
  EVALUATE: 1,
  BENCHMARK: -1,
};

export interface NewJob {
  kind: JobKindName;
  spec: unknown;
  /** The same key of the same user gives the job that it made before: a client may repeat a request whose answer it missed. */
  idempotencyKey?: string | null;
  priority?: number | null;
  retryOfId?: string;
}

/** The job that this user's idempotency key has made already. A key that made something else than `wanted` is refused. */
export function findByIdempotencyKey(
  tx: Queryable,
  actor: Actor,
  key: string | null | undefined,
  wanted: Pick<NewJob, 'kind' | 'retryOfId'>,
): Job | undefined {
  if (!key || !actor.actorId) return undefined;
  const made = tx
    .select()
    .from(job)
    .where(and(eq(job.createdById, actor.actorId), eq(job.idempotencyKey, key)))
    .get();
  if (made && (made.kind !== wanted.kind || made.retryOfId !== (wanted.retryOfId ?? null))) {
    refuse('INVALID', 'idempotencyKey', 'This key was used for something else. Take a new one.');
  }
  return made;
}

/**
 * Puts a job into the queue, in the caller's transaction: what the job is to make is inserted in the same one. After it, the
 * caller calls `announceJob`.
 */
export function enqueue(tx: Queryable, actor: Actor, { kind, spec, idempotencyKey, priority, retryOfId }: NewJob): Job {
  const { n } = tx
    .select({ n: count() })
    .from(job)
    .where(inArray(job.state, ['QUEUED']))
    .get() ?? { n: 0 };
  if (n >= queueMax) refuse('LIMIT', null, `There are ${queueMax} jobs in the queue: wait until some have ended, or cancel some.`);
  const row = tx
    .insert(job)
    .values({
      id: randomUUIDv7(),
      kind,
      state: 'QUEUED',
      specJson: spec,
      slotsNeeded: slotsNeededOf[kind],
      priority: priority ?? 0,
      retryOfId,
      createdById: actor.actorId,
      idempotencyKey: idempotencyKey || null,
      createdAt: Date.now(),
    })
    .returning()
    .get();
  appendEvent(tx, row.id, 0, { type: 'STATE', payload: { state: 'QUEUED' } });
  writeAudit(tx, actor, { action: retryOfId ? 'retryJob' : 'startJob', target: { type: 'Job', id: row.id }, detail: { kind } });
  return row;
}

/** Tells the scheduler and the subscribers of a job that was enqueued, once its transaction is committed. */
export function announceJob(bus: Bus, { id }: Job): void {
  bus.publish('queueChanged', '', null);
  bus.publish('jobChanged', '', { jobId: id });
}

/** Puts one job into the queue, in a transaction of its own, unless this key has made one already. `specify` makes its specification. */
export function submitJob(
  { db, bus }: { db: Db; bus: Bus },
  actor: Actor,
  wanted: Omit<NewJob, 'spec'>,
  specify: (tx: Queryable) => unknown,
): Job {
  const submitted = inTransaction(
    db,
    (tx) => findByIdempotencyKey(tx, actor, wanted.idempotencyKey, wanted) ?? enqueue(tx, actor, { ...wanted, spec: specify(tx) }),
  );
  announceJob(bus, submitted);
  return submitted;
}
