import { index, integer, primaryKey, sqliteTable, text } from 'drizzle-orm/sqlite-core';
import type { Scenario } from '../jobs/specs.ts';
import { job } from '../jobs/tables.ts';
import { modelVersion } from '../models/tables.ts';
import { artifact } from '../storage/tables.ts';

/** What a measurement is worth, best first. */
export const verdicts = ['VALID', 'UNSTABLE', 'INVALID', 'UNAVAILABLE'] as const;
export type Verdict = (typeof verdicts)[number];

/** A benchmark that has ended, with everything that its report needs and that may change later. */
export const benchmarkRun = sqliteTable('benchmark_run', {
  jobId: text()
    .primaryKey()
    .references(() => job.id),
  /** Names, versions, lineage hashes, accuracies and settings: `Context`. */
  contextJson: text({ mode: 'json' }).$type<unknown>().notNull(),
  /** Processor, memory, system, versions: `Machine`. */
  machineJson: text({ mode: 'json' }).$type<unknown>().notNull(),
  /** That of its best row. */
  verdict: text({ enum: verdicts }).notNull(),
});

/** One configuration of a benchmark: what was asked for, what was measured and what it is worth. */
export const benchmarkRow = sqliteTable(
  'benchmark_row',
  {
    jobId: text()
      .notNull()
      .references(() => benchmarkRun.jobId),
    /** Counted from 0 in the order of the matrix. */
    n: integer().notNull(),
    modelVersionId: text()
      .notNull()
      .references(() => modelVersion.id),
    engine: text().notNull(),
    engineVersion: text().notNull(),
    precision: text().notNull(),
    batchSize: integer().notNull(),
    intraOpThreads: integer().notNull(),
    instances: integer().notNull().default(1),
    dimsJson: text({ mode: 'json' }).$type<Record<string, number>>().notNull(),
    scenario: text().$type<Scenario>().notNull().default('SINGLE_STREAM'),
    verdict: text({ enum: verdicts }).notNull(),
    /** `{code, message}` of each rule that the row has met. */
    reasonsJson: text({ mode: 'json' }).$type<{ code: string; value: number | null; limit: number | null }[]>().notNull(),
    /** Null where nothing was measured. */
    samplesArtifactId: text().references(() => artifact.id, { onDelete: 'set null' }),
    /** Cold start, gate, warm-up, memory, noise: `Telemetry`. */
    telemetryJson: text({ mode: 'json' }).$type<unknown>().notNull(),
  },
  (t) => [primaryKey({ columns: [t.jobId, t.n] }), index('benchmark_row_version').on(t.modelVersionId)],
);

export type BenchmarkRun = typeof benchmarkRun.$inferSelect;
export type BenchmarkRow = typeof benchmarkRow.$inferSelect;
