import { sql } from 'drizzle-orm';
import { type AnySQLiteColumn, check, index, integer, primaryKey, real, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core';
import { user } from '../accounts/tables.ts';
import type { JobKindName } from './specs.ts';

/** The moves between them are in `states.ts`. */
export const jobStates = ['QUEUED', 'RUNNING', 'CANCELLING', 'SUCCEEDED', 'FAILED', 'CANCELLED'] as const;
export type JobState = (typeof jobStates)[number];

export const attemptStates = ['STARTING', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'SUSPENDED', 'LOST', 'CRASHED'] as const;
export type AttemptState = (typeof attemptStates)[number];

export const job = sqliteTable(
  'job',
  {
    id: text().primaryKey(),
    kind: text().$type<JobKindName>().notNull(),
    state: text({ enum: jobStates }).notNull(),
    /** What was asked for, by ids, with every default filled in: each kind has a zod type for it. Never changed afterwards. */
    specJson: text({ mode: 'json' }).$type<unknown>().notNull(),
    /** The form of `specJson`: `storedSpec` reads earlier ones. */
    specVersion: integer().notNull().default(1),
    /** Slots it holds while it runs: 0, 1, or -1 for all of them with nothing beside it. */
    slotsNeeded: integer().notNull(),
    priority: integer().notNull(),
    /** The job that made this one, such as the training of a conversion. */
    parentId: text().references((): AnySQLiteColumn => job.id),
    retryOfId: text().references((): AnySQLiteColumn => job.id),
    createdById: text().references(() => user.id),
    idempotencyKey: text(),
    /** SHA-256 of the input that the key came with. Null in rows that are older than this column. */
    inputHash: text(),
    createdAt: integer().notNull(),
    startedAt: integer(),
    endedAt: integer(),
    attemptNumber: integer().notNull().default(0),
    /** Back-off: the next attempt starts no earlier than this. */
    notBefore: integer(),
    /** It does not start, and its attempt is suspended, until somebody resumes it. Children inherit it. */
    held: integer({ mode: 'boolean' }).notNull().default(false),
    /** Attempts in a row whose end made the job back off. */
    backoffs: integer().notNull().default(0),
    /** The seq of the next durable event. */
    nextSeq: integer().notNull().default(1),
    failureCode: text(),
    failureMessage: text(),
    resultJson: text({ mode: 'json' }).$type<Record<string, unknown>>(),
    /** The span that asked for it (W3C, 55 characters), which its attempts continue. Null where there was none. */
    traceparent: text(),
  },
  (t) => [
    uniqueIndex('job_idempotency').on(t.createdById, t.idempotencyKey),
    index('job_queue').on(t.state, sql`${t.priority} DESC`, t.createdAt),
    index('job_parent').on(t.parentId),
    index('job_retry').on(t.retryOfId),
    index('job_ended').on(t.endedAt, t.id),
    // Behind the JSON of a row its last columns are slow to read: these are what lists are filtered by.
    index('job_list').on(t.createdAt, t.id, t.state, t.kind, t.createdById, t.parentId),
    index('job_failed').on(t.endedAt).where(sql`${t.state} = 'FAILED'`),
    check('job_slots', sql`${t.slotsNeeded} >= -1`),
  ],
);

/** What a job works on or has made: the ids of models, their versions, and versions of datasets in its specification and its result. */
export const jobSubject = sqliteTable(
  'job_subject',
  {
    subjectId: text().notNull(),
    jobId: text()
      .notNull()
      .references(() => job.id),
  },
  (t) => [primaryKey({ columns: [t.subjectId, t.jobId] }), index('job_subject_job').on(t.jobId)],
);

/** The hyperparameters of a training, so that jobs are found by them: numbers and texts; a boolean is `true` or `false`. */
export const jobHyperparameter = sqliteTable(
  'job_hyperparameter',
  {
    jobId: text()
      .notNull()
      .references(() => job.id),
    name: text().notNull(),
    value: real().$type<number | string>().notNull(),
  },
  (t) => [primaryKey({ columns: [t.jobId, t.name] })],
);

export const attempt = sqliteTable(
  'attempt',
  {
    jobId: text()
      .notNull()
      .references(() => job.id),
    /** The fence: what a child of any other attempt says is dropped. */
    number: integer().notNull(),
    state: text({ enum: attemptStates }).notNull(),
    pid: integer(),
    /** Start time of the process and id of the boot: a pid alone may be somebody else's by now. */
    pidStart: text(),
    bootId: text(),
    /** Where its checkpoint let it continue; null from the start. */
    resumedJson: text({ mode: 'json' }).$type<{ epoch: number; batch: number }>(),
    deviceJson: text({ mode: 'json' }).$type<Record<string, unknown>>(),
    environmentJson: text({ mode: 'json' }).$type<Record<string, unknown>>(),
    startedAt: integer().notNull(),
    endedAt: integer(),
    /** By the monotonic clock: `endedAt − startedAt` is wrong when the wall clock jumps. Null when the server died under it. */
    durationMs: integer(),
    exitCode: integer(),
    signal: text(),
    /** Whether it counts as one of the three crashes that a job may have. */
    charged: integer({ mode: 'boolean' }).notNull().default(false),
  },
  (t) => [primaryKey({ columns: [t.jobId, t.number] }), index('attempt_state').on(t.state)],
);

/** The places of GPU jobs: one row each, made at start from the configuration. Held while jobId is not null. */
export const slot = sqliteTable('slot', {
  n: integer().primaryKey(),
  jobId: text().references(() => job.id),
  attemptNumber: integer(),
});

export const jobEventTypes = ['STATE', 'PHASE', 'EPOCH', 'CHECKPOINT', 'ARTIFACT', 'GATE', 'WARNING', 'TRIAL'] as const;

/** The stored events of a job, in order and without gaps. */
export const jobEvent = sqliteTable(
  'job_event',
  {
    jobId: text()
      .notNull()
      .references(() => job.id),
    seq: integer().notNull(),
    attemptNumber: integer().notNull(),
    at: integer().notNull(),
    type: text({ enum: jobEventTypes }).notNull(),
    payloadJson: text({ mode: 'json' }).$type<Record<string, unknown>>().notNull(),
  },
  (t) => [primaryKey({ columns: [t.jobId, t.seq] })],
);

/** Curves. A repeated epoch of a later attempt overwrites its own points. */
export const metricPoint = sqliteTable(
  'metric_point',
  {
    jobId: text()
      .notNull()
      .references(() => job.id),
    name: text().notNull(),
    step: integer().notNull(),
    value: real().notNull(),
    /** Null in rows of an earlier version whose event is gone. */
    epoch: integer(),
    attemptNumber: integer().notNull(),
  },
  (t) => [primaryKey({ columns: [t.jobId, t.name, t.step] })],
);

export type Job = typeof job.$inferSelect;
export type Attempt = typeof attempt.$inferSelect;
export type Slot = typeof slot.$inferSelect;
export type JobEvent = typeof jobEvent.$inferSelect;
export type MetricPoint = typeof metricPoint.$inferSelect;
