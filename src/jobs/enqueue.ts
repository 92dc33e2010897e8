import { randomUUIDv7 } from 'node:crypto';
import { and, count, eq, inArray } from 'drizzle-orm';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import type { Bus } from '../bus.ts';
import { canonicalHash } from '../canonical.ts';
import { type Db, inTransaction, type Queryable } from '../db.ts';
import { refuse } from '../errors.ts';
import { opaqueId } from '../naming.ts';
import { activeSpan } from '../tracing.ts';
import { appendEvent } from './events.ts';
import { requireJob } from './jobs.ts';
import { insertHyperparameters, insertSubjects } from './references.ts';
import { type JobKindName, jobKindTable } from './specs.ts';
import { STORED_SPEC_VERSION } from './storedSpec.ts';
import { type Job, job } from './tables.ts';

/** Jobs that may wait at the same time. */
const queueMax = 1000;

export interface NewJob {
  kind: JobKindName;
  /** With every default filled in: what runs is what was asked for, whatever version of the program runs it. */
  spec: unknown;
  specVersion?: number;
  /**
   * What the user sent. The same key of the same user gives the job that it made before: a client may repeat a request whose answer it
   * missed. Another input with the same key is a conflict.
   */
  input?: { idempotencyKey?: string | null };
  priority?: number | null;
  /** A child is not refused when the queue is full: its parent has ended, or waits for it. */
  parentId?: string | null;
  retryOfId?: string;
  /** It has no attempts: RUNNING from now on, and ended by its kind's `onChildEnded`. */
  coordinates?: boolean;
}

/** Each process of a training has a slot. A specification of before there were several has one process. */
const slotsOf = (kind: JobKindName, spec: unknown): number =>
  kind === 'TRAIN' ? ((spec as { processes?: number }).processes ?? 1) : jobKindTable[kind].slots;

/** Without the key itself, and a field that is null is one that was left out. */
const inputHashOf = (kind: JobKindName, input: object = {}): string => {
  const said = Object.entries(input).filter(([name, value]) => name !== 'idempotencyKey' && value !== null);
  return canonicalHash({ kind, input: Object.fromEntries(said) });
};

/** The job that this user's idempotency key has made already. IDEMPOTENCY_CONFLICT when it came with another input. */
export function findByIdempotencyKey(
  tx: Queryable,
  actor: Actor,
  { kind, retryOfId, input }: Pick<NewJob, 'kind' | 'retryOfId' | 'input'>,
): Job | undefined {
  const key = input?.idempotencyKey;
  if (!key || !actor.actorId) return undefined;
  const made = tx
    .select()
    .from(job)
    .where(and(eq(job.createdById, actor.actorId), eq(job.idempotencyKey, key)))
    .get();
  if (!made) return undefined;
  const isSame =
    made.inputHash === null ? made.kind === kind && made.retryOfId === (retryOfId ?? null) : made.inputHash === inputHashOf(kind, input);
  if (!isSame) {
    const message = `The key ${key} has made the job ${opaqueId('Job', made.id)} of another input (${made.kind}). Send the same input, or take a new key.`;
    refuse('IDEMPOTENCY_CONFLICT', 'idempotencyKey', message);
  }
  return made;
}

/**
 * The span that a new job continues. Children of a coordinator continue the one of their parent: as continuations of one another the trials of a
 * study would be as deep as they are many.
 */
function traceparentFor(parent: Job | null): string | null {
  if (parent?.attemptNumber === 0) return parent.traceparent;
  return activeSpan.getStore()?.context.traceparent ?? parent?.traceparent ?? null;
}

/**
 * Puts a job into the queue, in the caller's transaction: what the job is to make is inserted in the same one. After it, the
 * caller calls `announceJob`.
 */
export function enqueue(tx: Queryable, actor: Actor, wanted: NewJob): Job {
  const { kind, spec, specVersion, input, priority, parentId, retryOfId, coordinates } = wanted;
  const { n } = tx
    .select({ n: count() })
    .from(job)
    .where(inArray(job.state, ['QUEUED']))
    .get() ?? { n: 0 };
  if (n >= queueMax && !parentId) {
    refuse('LIMIT', null, `There are ${queueMax} jobs in the queue: wait until some have ended, or cancel some.`);
  }
  const parent = parentId ? requireJob(tx, parentId) : null;
  const now = Date.now();
  const state = coordinates ? 'RUNNING' : 'QUEUED';
  const row = tx
    .insert(job)
    .values({
      id: randomUUIDv7(),
      kind,
      state,
      specJson: spec,
      specVersion: specVersion ?? STORED_SPEC_VERSION,
      slotsNeeded: slotsOf(kind, spec),
      priority: priority ?? 0,
      parentId,
      held: parent?.held ?? false,
      retryOfId,
      createdById: actor.actorId,
      idempotencyKey: input?.idempotencyKey || null,
      inputHash: input?.idempotencyKey ? inputHashOf(kind, input) : null,
      createdAt: now,
      startedAt: coordinates ? now : null,
      traceparent: traceparentFor(parent),
    })
    .returning()
    .get();
  insertSubjects(tx, row.id, spec);
  insertHyperparameters(tx, row.id, spec);
  appendEvent(tx, row.id, 0, { type: 'STATE', payload: { state } });
  writeAudit(tx, actor, { action: retryOfId ? 'retryJob' : 'startJob', target: { type: 'Job', id: row.id }, detail: { kind } });
  return row;
}

/** Tells the scheduler and the subscribers of a job that was enqueued, once its transaction is committed. */
export function announceJob(bus: Bus, { id }: Job): void {
  bus.wake('queueChanged', '');
  bus.wake('jobChanged', id);
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
    (tx) => findByIdempotencyKey(tx, actor, wanted) ?? enqueue(tx, actor, { ...wanted, spec: specify(tx) }),
  );
  announceJob(bus, submitted);
  return submitted;
}
