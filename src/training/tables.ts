import { index, integer, primaryKey, real, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core';
import { datasetVersion, splits } from '../datasets/tables.ts';
import type { TestTimeAugmentation } from '../jobs/specs.ts';
import { job } from '../jobs/tables.ts';
import { modelVersion } from '../models/tables.ts';
import { artifact } from '../storage/tables.ts';

/** What a model version reaches on a split of a dataset version, as one job has measured it. */
export const evaluation = sqliteTable(
  'evaluation',
  {
    id: text().primaryKey(),
    modelVersionId: text()
      .notNull()
      .references(() => modelVersion.id),
    datasetVersionId: text()
      .notNull()
      .references(() => datasetVersion.id),
    split: text({ enum: splits }).notNull(),
    /** `torch` or `onnxruntime`, with its version. */
    engine: text().notNull(),
    /** Images that were added at evaluation: figures with and without them are not those of the same model. */
    testTimeAugmentation: text().$type<TestTimeAugmentation>().notNull().default('NONE'),
    metricsJson: text({ mode: 'json' }).$type<Record<string, number>>().notNull(),
    /** Per class and confusion matrix: the trainer's EVALUATION file. Null once the model version was deleted. */
    artifactId: text().references(() => artifact.id, { onDelete: 'set null' }),
    jobId: text()
      .notNull()
      .references(() => job.id),
    createdAt: integer().notNull(),
  },
  (t) => [index('evaluation_version').on(t.modelVersionId), uniqueIndex('evaluation_job').on(t.jobId)],
);

/** The metrics of evaluations, so that versions and jobs are found and sorted by them. */
export const evaluationMetric = sqliteTable(
  'evaluation_metric',
  {
    evaluationId: text()
      .notNull()
      .references(() => evaluation.id, { onDelete: 'cascade' }),
    jobId: text().notNull(),
    modelVersionId: text().notNull(),
    name: text().notNull(),
    value: real().notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.evaluationId, t.name] }),
    index('evaluation_metric_value').on(t.name, t.value, t.jobId, t.modelVersionId),
    index('evaluation_metric_job').on(t.jobId, t.name, t.value),
    index('evaluation_metric_version').on(t.modelVersionId, t.name, t.value, t.jobId),
  ],
);

/** What people should look at, bounded: a row of its own, since lists of evaluations do without. Earlier versions stored none. */
export const evaluationFindings = sqliteTable('evaluation_findings', {
  evaluationId: text()
    .primaryKey()
    .references(() => evaluation.id, { onDelete: 'cascade' }),
  /** `Findings` of `evaluations.ts`. */
  findingsJson: text({ mode: 'json' }).$type<unknown>().notNull(),
});

export type EvaluationRow = typeof evaluation.$inferSelect;
