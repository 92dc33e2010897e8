import type { Bus } from '../bus.ts';
import type { Config } from '../config.ts';
import type { Db, Queryable } from '../db.ts';
import type { Tracing } from '../tracing.ts';
import type { JobMetrics } from './metrics.ts';
import type { Progress } from './progress.ts';
import type { Event } from './protocol.ts';
import type { JobKindName, Spec } from './specs.ts';
import type { Failure } from './states.ts';
import type { Job } from './tables.ts';

/** What the code of a job kind works with. */
export interface JobServices {
  config: Config;
  db: Db;
  bus: Bus;
  /** The latest tick of each attempt that runs, by the job's id. */
  progress: Map<string, Progress>;
  metrics: JobMetrics;
  /** Null where nobody asks for traces. */
  tracing: Tracing | null;
}

/** How an attempt's child is started: `spec` goes to its stdin. */
export interface Launch {
  command: string;
  args: string[];
  env: Record<string, string>;
  spec: Spec;
  /** Of nice(1); 10 unless told otherwise. */
  nice?: number;
}

/** The attempt that a kind's functions are about. Files that its child made lie in `workDir`. */
export interface AttemptContext {
  job: Job;
  attemptNumber: number;
  workDir: string;
  /** Newest checkpoint of an earlier attempt, as an absolute path. */
  resumeFrom: string | null;
}

/** What a child said on its way to success: all that `finish` needs. */
export interface AttemptOutcome {
  result: Record<string, unknown>;
  artifacts: Extract<Event, { type: 'artifact' }>[];
  gates: Extract<Event, { type: 'gate' }>[];
}

/**
 * A kind of job is a row of the table in `server.ts`. A kind that must refuse its outcome (a gate, a broken file) throws a
 * JobFailure from `finish`; the attempt then ends FAILED with its code.
 */
export interface JobKind {
  timeLimitMs: number;
  /** Called when an attempt starts, before its child. */
  launch(services: JobServices, attempt: AttemptContext): Promise<Launch> | Launch;
  /**
   * Called after `done{ok}` and exit 0. It hashes, stores and checks what the child made, and returns the function that registers
   * it: that one only inserts rows, in the transaction that ends the job. Its value becomes the job's result. Jobs that it enqueues
   * with `parentId` are the job's children.
   */
  finish(services: JobServices, attempt: AttemptContext, outcome: AttemptOutcome): Promise<(tx: Queryable) => Record<string, unknown>>;
  /** In the transaction that ends a job FAILED or CANCELLED: what the job was to make is marked as failed. */
  undo?(tx: Queryable, job: Job): void;
  /** In the transaction that makes `retried` of a job that FAILED or was CANCELLED: what `undo` marked is expected again. */
  redo?(tx: Queryable, retried: Job): void;
  /**
   * In the transaction that ends a child of `parent`, unless the parent has failed or was cancelled. A coordinator (`enqueue`) ends with
   * what this returns; null: it waits for further children. Must not throw: the child could not end.
   */
  onChildEnded?(tx: Queryable, parent: Job, child: Job): CoordinatorEnd | null;
  /** In the transaction that starts an attempt of a child of `parent`. Must not throw: nothing could start. */
  onChildStarted?(tx: Queryable, parent: Job, child: Job): void;
  /** In the transaction that moves the job to another state, once its row has that state. Must not throw. */
  onMoved?(tx: Queryable, job: Job): void;
}

export type CoordinatorEnd = { state: 'SUCCEEDED'; result: Record<string, unknown> } | { state: 'FAILED'; failure: Failure };

export type JobKinds = Record<JobKindName, JobKind>;

/** A process that `launch` or `finish` needs was killed, and not by what it did: the attempt is CRASHED, and the job is tried again. */
export class AttemptCrash extends Error {}

/** A final failure with a code that users see as the job's `failureCode`. */
export class JobFailure extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.name = 'JobFailure';
    this.code = code;
  }
}
