import { index, integer, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core';
import { benchmarkRun } from '../benchmark/tables.ts';
import { job } from '../jobs/tables.ts';
import { model, modelVersion } from '../models/tables.ts';

/** A model version in a benchmark: the row that is followed over time. A copy of what the report says, since a page of history reads 100 reports. */
export const benchmarkPoint = sqliteTable(
  'benchmark_point',
  {
    /** Grows with the time at which benchmarks end. */
    seq: integer().primaryKey({ autoIncrement: true }),
    jobId: text()
      .notNull()
      .references(() => benchmarkRun.jobId),
    modelId: text()
      .notNull()
      .references(() => model.id),
    modelVersionId: text()
      .notNull()
      .references(() => modelVersion.id),
    measuredAt: integer().notNull(),
    /** `ReportRow` of the version, and that of the report's baseline. */
    rowJson: text({ mode: 'json' }).$type<unknown>().notNull(),
    baselineJson: text({ mode: 'json' }).$type<unknown>().notNull(),
  },
  (t) => [
    uniqueIndex('benchmark_point_job').on(t.jobId, t.modelVersionId),
    index('benchmark_point_model').on(t.modelId, t.seq),
    index('benchmark_point_version').on(t.modelVersionId, t.seq),
  ],
);

export const regressionMetrics = ['P95', 'P50', 'ACCURACY'] as const;

/** A version that a job has found to be worse than an earlier one, intervals included. */
export const regression = sqliteTable(
  'regression',
  {
    seq: integer().primaryKey({ autoIncrement: true }),
    at: integer().notNull(),
    jobId: text()
      .notNull()
      .references(() => job.id),
    modelVersionId: text()
      .notNull()
      .references(() => modelVersion.id),
    /** The earlier version. */
    againstId: text()
      .notNull()
      .references(() => modelVersion.id),
    metric: text({ enum: regressionMetrics }).notNull(),
    /** `RegressionFacts`. */
    factsJson: text({ mode: 'json' }).$type<unknown>().notNull(),
  },
  (t) => [index('regression_job').on(t.jobId), index('regression_version').on(t.modelVersionId)],
);

export type BenchmarkPoint = typeof benchmarkPoint.$inferSelect;
export type RegressionRow = typeof regression.$inferSelect;
