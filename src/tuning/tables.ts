import { index, integer, primaryKey, sqliteTable, text } from 'drizzle-orm/sqlite-core';
import { datasetVersion } from '../datasets/tables.ts';
import type { Params } from '../jobs/searchSpace.ts';
import { job } from '../jobs/tables.ts';
import { model } from '../models/tables.ts';

/** A search for hyperparameters. Its trials are a function of these columns and of the results of their trainings. */
export const study = sqliteTable(
  'study',
  {
    id: text().primaryKey(),
    /** The TUNE job that coordinates it: the newest, where it was retried or extended. */
    jobId: text()
      .notNull()
      .references(() => job.id),
    /** What gets the best trials as versions. */
    modelId: text()
      .notNull()
      .references(() => model.id),
    datasetVersionId: text()
      .notNull()
      .references(() => datasetVersion.id),
    /** `StudySettings` of `settings.ts`: preset, space, objectives, sampler and so on. */
    settingsJson: text({ mode: 'json' }).$type<unknown>().notNull(),
    /** Trials that it makes in all; grows when it is extended. */
    trials: integer().notNull(),
    /** Trials that had ended when the proposals and the importance were asked for last; null before. */
    askedAt: integer(),
    /** What the trainer told last: the share of each hyperparameter. */
    importanceJson: text({ mode: 'json' }).$type<{ name: string; share: number }[]>().notNull(),
    /** Milliseconds for an image of each size, where latency is an objective; null until they are measured. */
    latenciesJson: text({ mode: 'json' }).$type<Record<number, number>>(),
    /** The seq of its next event. */
    nextSeq: integer().notNull().default(1),
    /** What its newest FRONT_CHANGED said, and its newest GENERATION_ENDED: they are removed before the study. Null before the first one. */
    toldFrontJson: text({ mode: 'json' }).$type<number[]>(),
    toldTrials: integer(),
    createdAt: integer().notNull(),
  },
  (t) => [index('study_job').on(t.jobId), index('study_created').on(t.createdAt, t.id)],
);

/** COMPLETE: trained to its end. STOPPED: weaker than the others of its generation at a rung. WORST: it diverged, or had no memory, or was cancelled. */
export const trialOutcomes = ['COMPLETE', 'STOPPED', 'WORST'] as const;
export type TrialOutcome = (typeof trialOutcomes)[number];

export const trial = sqliteTable(
  'trial',
  {
    studyId: text()
      .notNull()
      .references(() => study.id),
    /** From 0, in the order of the proposals. */
    number: integer().notNull(),
    generation: integer().notNull(),
    /** A value for each dimension of the space, those without effect included. */
    paramsJson: text({ mode: 'json' }).$type<Params>().notNull(),
    /** Of the hyperparameters that are trained with: equal ones have equal results. */
    hash: text().notNull(),
    /** The first trial with these hyperparameters, whose result this one has. */
    copyOf: integer(),
    /** Null until it has ended. */
    outcome: text({ enum: trialOutcomes }),
    /** Of the objectives, at its best epoch so far; null before, and where it counts as worse than any other. */
    valuesJson: text({ mode: 'json' }).$type<number[]>(),
    /** Whole epochs so far. */
    epochs: integer().notNull().default(0),
    /** The newest TRAIN job of its search; null of a copy, and until it starts. */
    jobId: text().references(() => job.id),
    /** The TRAIN job that registers it at the end of the study. */
    finalJobId: text().references(() => job.id),
  },
  (t) => [primaryKey({ columns: [t.studyId, t.number] }), index('trial_job').on(t.jobId), index('trial_final').on(t.finalJobId)],
);

export const studyEventTypes = [
  'STATE',
  'TRIAL_ENQUEUED',
  'TRIAL_STARTED',
  'RUNG_ENDED',
  'PROMOTION',
  'TRIAL_ENDED',
  'REGISTRATION_ENDED',
  'GENERATION_ENDED',
  'FRONT_CHANGED',
  'EXTENDED',
] as const;

/** The stored events of a study, in order and without gaps, over all jobs that have coordinated it. */
export const studyEvent = sqliteTable(
  'study_event',
  {
    studyId: text()
      .notNull()
      .references(() => study.id),
    seq: integer().notNull(),
    at: integer().notNull(),
    type: text({ enum: studyEventTypes }).notNull(),
    /** `StudyEventPayloads` of `events.ts`. */
    payloadJson: text({ mode: 'json' }).$type<Record<string, unknown>>().notNull(),
  },
  (t) => [primaryKey({ columns: [t.studyId, t.seq] })],
);

export type StudyEvent = typeof studyEvent.$inferSelect;
export type Study = typeof study.$inferSelect;
export type Trial = typeof trial.$inferSelect;
