import { index, integer, primaryKey, real, sqliteTable, text } from 'drizzle-orm/sqlite-core';
import { deployment } from '../deployments/tables.ts';
import { job } from '../jobs/tables.ts';
import { modelVersion } from '../models/tables.ts';

/** A load test that has ended: what was driven, and how. */
export const loadTest = sqliteTable(
  'load_test',
  {
    jobId: text()
      .primaryKey()
      .references(() => job.id),
    deploymentId: text()
      .notNull()
      .references(() => deployment.id),
    revision: integer().notNull(),
    modelVersionId: text()
      .notNull()
      .references(() => modelVersion.id),
    deadlineMs: real().notNull(),
    secondsPerRate: integer().notNull(),
    seed: integer().notNull(),
    capacityPerSecond: real().notNull(),
    endedAt: integer().notNull(),
  },
  (t) => [index('load_test_deployment').on(t.deploymentId, t.endedAt), index('load_test_version').on(t.modelVersionId)],
);

/** One rate of it. */
export const loadTestRate = sqliteTable(
  'load_test_rate',
  {
    jobId: text()
      .notNull()
      .references(() => loadTest.jobId),
    /** In the order in which they were driven, from 0. */
    n: integer().notNull(),
    /** `RateResult`. */
    resultJson: text({ mode: 'json' }).$type<unknown>().notNull(),
  },
  (t) => [primaryKey({ columns: [t.jobId, t.n] })],
);

export type LoadTest = typeof loadTest.$inferSelect;
