/**
 * Every move of a job or an attempt after its claim. Each is one immediate transaction that also appends its event;
 * announce the returned move after the commit. Anything from an attempt that is not the live one is dropped.
 */
import { and, count, eq, inArray } from 'drizzle-orm';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import { type Db, inTransaction, inUrgentTransaction, type Queryable } from '../db.ts';
import { refuse } from '../errors.ts';
import { opaqueId } from '../naming.ts';
import { queueDeliveries } from '../webhooks/outbox.ts';
import { appendEvent, readEvents } from './events.ts';
import { age, findJob, requireJob } from './jobs.ts';
import type { JobKinds } from './kinds.ts';
import { insertSubjects } from './references.ts';
import { type AttemptEnding, backoffMs, type Failure, isCharged, isFinal, isGateFailure, jobAfter } from './states.ts';
import { type Attempt, attempt, type Job, type JobEvent, job, jobEvent, slot } from './tables.ts';

/** A committed move, to be announced: the job as it is now, and the event that the move appended. */
export interface Move {
  job: Job;
  event: JobEvent;
  /** Moves of its parents and children in the same transaction. */
  also: Move[];
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
  durationMs?: number;
  /** Of the job, in place of the one in `states.ts`. */
  backoffMs?: (n: number) => number;
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
  const { state, failure, exitCode, signal, durationMs } = end;
  // Before its end is written, a job that failed or waits keeps its slot, and nobody sees why.
  const transact = state === 'SUCCEEDED' ? inTransaction : inUrgentTransaction;
  return transact(db, (tx) => {
    const row = isLive(tx, jobId, number);
    if (!row) return null;
    const wroteCheckpoint = hasCheckpoint(tx, jobId, number);
    const previous = tx
      .select({ state: attempt.state })
      .from(attempt)
      .where(isAttempt(jobId, number - 1))
      .get()?.state;
    const charged = isCharged(state, { previous, wroteCheckpoint });
    tx.update(attempt).set({ state, endedAt: Date.now(), durationMs, exitCode, signal, charged }).where(isAttempt(jobId, number)).run();
    const isChargedOne = and(eq(attempt.jobId, jobId), eq(attempt.charged, true));
    const chargedOnes = tx.select({ n: count() }).from(attempt).where(isChargedOne).get()?.n ?? 0;
    const next = jobAfter(row.state as 'RUNNING' | 'CANCELLING', { state, failure }, chargedOnes);
    // An attempt that got further starts the back-off from the beginning.
    const backoffs = charged || (state === 'SUSPENDED' && failure) ? 1 + (wroteCheckpoint ? 0 : row.backoffs) : 0;
    const notBefore = next.state === 'QUEUED' && backoffs > 0 ? Date.now() + (end.backoffMs ?? backoffMs)(backoffs) : null;
    tx.update(job).set({ backoffs, notBefore }).where(eq(job.id, jobId)).run();
    const resultJson = next.state === 'SUCCEEDED' ? register(tx) : null;
    tx.update(slot).set({ jobId: null, attemptNumber: null }).where(eq(slot.jobId, jobId)).run();
    return move(tx, kinds, row, next.state, { attemptState: state, failure: next.failure ?? failure, resultJson, final: next.failure });
  });
}

function hasCheckpoint(tx: Queryable, jobId: string, number: number): boolean {
  const isOne = and(eq(jobEvent.jobId, jobId), eq(jobEvent.attemptNumber, number), eq(jobEvent.type, 'CHECKPOINT'));
  return tx.select({ seq: jobEvent.seq }).from(jobEvent).where(isOne).limit(1).get() !== undefined;
}

/**
 * Cancels a job with its children: at once while it waits, otherwise its attempt gets the command to stop. A coordinator is CANCELLED when its
 * last child has ended. A job that has ended cannot be cancelled.
 */
export function cancelJob(db: Db, kinds: JobKinds, actor: Actor, id: string): Move | null {
  return inUrgentTransaction(db, (tx) => {
    const row = requireJob(tx, id);
    if (isFinal(row.state)) refuse('INVALID', 'jobId', `The job has ended already: it is ${row.state}.`);
    if (row.state === 'CANCELLING') return null;
    writeAudit(tx, actor, { action: 'cancelJob', target: { type: 'Job', id } });
    return stop(tx, kinds, row);
  });
}

function stop(tx: Queryable, kinds: JobKinds, row: Job): Move {
  const moved = move(tx, kinds, row, row.state === 'QUEUED' ? 'CANCELLED' : 'CANCELLING', {});
  moved.also.push(...endCancelled(tx, kinds, row.id));
  return moved;
}

const childrenOf = (tx: Queryable, parentId: string, states: Job['state'][]): Job[] =>
  tx
    .select()
    .from(job)
    .where(and(eq(job.parentId, parentId), inArray(job.state, states)))
    .orderBy(age)
    .all();

/** A coordinator that is being cancelled ends when none of its children is left. */
function endCancelled(tx: Queryable, kinds: JobKinds, id: string): Move[] {
  const row = requireJob(tx, id);
  const waits = row.state === 'CANCELLING' && row.attemptNumber === 0;
  if (!waits || childrenOf(tx, id, ['QUEUED', 'RUNNING', 'CANCELLING']).length > 0) return [];
  return [move(tx, kinds, row, 'CANCELLED', {})];
}

/** Tells the parent of the end of its child, and ends it where it waited for that. */
function onChildEnded(tx: Queryable, kinds: JobKinds, child: Job): Move[] {
  const parent = child.parentId === null ? undefined : findJob(tx, child.parentId);
  if (!parent || parent.state === 'FAILED' || parent.state === 'CANCELLED') return [];
  if (parent.state === 'CANCELLING') {
    // A child that succeeded before it could stop may have made another one.
    const late = childrenOf(tx, parent.id, ['QUEUED']).map((one) => stop(tx, kinds, one));
    return [...late, ...endCancelled(tx, kinds, parent.id)];
  }
  const end = kinds[parent.kind].onChildEnded?.(tx, parent, child) ?? null;
  if (!end || isFinal(parent.state)) return madeChildren(tx, parent.id);
  const detail = end.state === 'SUCCEEDED' ? { resultJson: end.result } : { failure: end.failure, final: end.failure };
  return [move(tx, kinds, parent, end.state, detail)];
}

/** The children that wait, each with its first event: whoever follows the jobs hears of those that this transaction has made. */
const madeChildren = (tx: Queryable, parentId: string): Move[] =>
  childrenOf(tx, parentId, ['QUEUED']).flatMap((child) => readEvents(tx, child.id, 0, 1).map((event) => ({ job: child, event, also: [] })));

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
  if (resultJson) insertSubjects(tx, row.id, resultJson);
  if (state === 'FAILED' || state === 'CANCELLED') kinds[row.kind].undo?.(tx, row);
  const payload = { state, ...(attemptState ? { attemptState } : {}), ...(failure ? { failure } : {}) };
  const event = appendEvent(tx, row.id, row.attemptNumber, { type: 'STATE', payload });
  const moved: Move = { job: requireJob(tx, row.id), event, also: [] };
  kinds[row.kind].onMoved?.(tx, moved.job);
  // Also of a job that succeeded before it could stop: nobody wants the rest.
  if (state === 'CANCELLING' || state === 'CANCELLED' || state === 'FAILED' || row.state === 'CANCELLING') {
    for (const child of childrenOf(tx, row.id, ['QUEUED', 'RUNNING'])) moved.also.push(stop(tx, kinds, child));
  }
  if (state === 'SUCCEEDED') moved.also.push(...madeChildren(tx, row.id));
  if (ended) {
    queueEnd(tx, moved.job);
    moved.also.push(...onChildEnded(tx, kinds, moved.job));
  }
  return moved;
}

/** The body of the deliveries of a job's end. */
function queueEnd(tx: Queryable, { id, kind, state, parentId, createdAt, endedAt, failureCode, failureMessage }: Job): void {
  const facts = {
    jobId: opaqueId('Job', id),
    kind,
    state,
    parentJobId: parentId === null ? null : opaqueId('Job', parentId),
    createdAt: new Date(createdAt).toISOString(),
    endedAt: new Date(endedAt ?? Date.now()).toISOString(),
    failure: failureCode === null ? null : { code: failureCode, message: (failureMessage ?? '').slice(0, 1000) },
  };
  queueDeliveries(tx, 'JOB_ENDED', facts);
  if (isGateFailure(failureCode)) queueDeliveries(tx, 'GATE_FAILED', facts);
}
