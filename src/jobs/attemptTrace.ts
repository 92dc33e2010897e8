/** The spans of an attempt: one for the attempt, which contains one for each phase that the child process reports. */
import { and, eq } from 'drizzle-orm';
import { opaqueId } from '../naming.ts';
import { activeSpan, type Span } from '../tracing.ts';
import type { JobServices } from './kinds.ts';
import type { Move } from './moves.ts';
import type { Event } from './protocol.ts';
import type { Failure } from './states.ts';
import { type Attempt, attempt, type Job } from './tables.ts';

/** A training has two for each epoch: a long one must not push everything else out of the queue to the collector. */
const phasesMax = 1000;

export interface AttemptTrace {
  /** By which the child knows its span. */
  env: Record<string, string>;
  /** Jobs that are enqueued in it, and lines of the log, belong to the attempt. */
  run<T>(work: () => Promise<T>): Promise<T>;
  /** The child was started, or has said this. */
  said(event: Pick<Event, 'type' | 't'> & { phase?: string }): void;
  /** Without a move it was abandoned. */
  ended(move: Move | null): void;
}

const untraced: AttemptTrace = { env: {}, run: (work) => work(), said() {}, ended() {} };

export function traceAttempt({ db, tracing }: Pick<JobServices, 'db' | 'tracing'>, of: { job: Job; attempt: Attempt }): AttemptTrace {
  if (!tracing) return untraced;
  const { id, kind, traceparent } = of.job;
  const span = tracing.start(`job ${kind}`, {
    kind: 'CONSUMER',
    parent: traceparent === null ? undefined : { traceparent },
    attributes: {
      'whetstone.job.id': opaqueId('Job', id),
      'whetstone.job.kind': kind,
      'whetstone.job.attempt': of.attempt.number,
      'whetstone.job.queue_wait_ms': waitedMs(db, of),
    },
  });
  let current: Span | undefined;
  let phases = 0;
  let lastAt = Date.now();
  let ended = false;
  const endPhase = (at: number) => {
    current?.end({ at });
    current = undefined;
  };
  return {
    env: { TRACEPARENT: span.context.traceparent },
    run: (work) => activeSpan.run(span, work),
    said({ type, t, phase }) {
      if (type !== 'phase' && type !== 'done' && type !== 'error') return;
      // The child may tell any time: a span must not end before it begins.
      lastAt = Math.min(Math.max(lastAt, t), Date.now());
      endPhase(lastAt);
      if (phase === undefined || phases >= phasesMax) return;
      phases += 1;
      current = tracing.start(`phase ${phase}`, { parent: span.context, attributes: { 'whetstone.job.phase': phase }, at: lastAt });
    },
    ended(move) {
      if (ended) return;
      ended = true;
      endPhase(Date.now());
      const { attemptState = 'LOST', failure } = (move?.event.payloadJson ?? {}) as { attemptState?: string; failure?: Failure };
      span.set({ 'whetstone.job.ending': attemptState, ...(failure ? { 'whetstone.job.failure_code': failure.code } : {}) });
      const isWell = attemptState === 'SUCCEEDED' || attemptState === 'CANCELLED' || attemptState === 'SUSPENDED';
      span.end(isWell ? {} : { problem: failure?.code ?? attemptState });
    },
  };
}

/** Since it was asked for, or since its attempt before ended. */
function waitedMs(
  db: JobServices['db'],
  { job: { id, createdAt }, attempt: { number, startedAt } }: { job: Job; attempt: Attempt },
): number {
  const before = db
    .select({ endedAt: attempt.endedAt })
    .from(attempt)
    .where(and(eq(attempt.jobId, id), eq(attempt.number, number - 1)))
    .get();
  // The wall clock may have been put back meanwhile.
  return Math.max(0, startedAt - (before?.endedAt ?? createdAt));
}
