import { sql } from 'drizzle-orm';
import { type AnySQLiteColumn, index, integer, primaryKey, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core';
import { user } from '../accounts/tables.ts';
import { datasetVersion, tasks, versionStates } from '../datasets/tables.ts';
import { job } from '../jobs/tables.ts';
import { artifact } from '../storage/tables.ts';

export const formats = ['CHECKPOINT', 'ONNX'] as const;
export const precisions = ['FP32', 'FP16', 'INT8'] as const;
export const origins = ['UPLOADED', 'TRAINED', 'CONVERTED', 'OPTIMIZED', 'DESCRIBED'] as const;

/** A name under which versions are collected. Deleting it leaves the row; the name becomes free. */
export const model = sqliteTable(
  'model',
  {
    id: text().primaryKey(),
    name: text().notNull(),
    task: text({ enum: tasks }).notNull(),
    notes: text().notNull().default(''),
    createdById: text().references(() => user.id),
    createdAt: integer().notNull(),
    deletedAt: integer(),
  },
  (t) => [uniqueIndex('model_name').on(t.name).where(sql`${t.deletedAt} IS NULL`)],
);

/** Immutable once READY: one artifact with its lineage. */
export const modelVersion = sqliteTable(
  'model_version',
  {
    id: text().primaryKey(),
    modelId: text()
      .notNull()
      .references(() => model.id),
    number: integer().notNull(),
    state: text({ enum: versionStates }).notNull(),
    format: text({ enum: formats }).notNull(),
    precision: text({ enum: precisions }).notNull(),
    origin: text({ enum: origins }).notNull(),
    preset: text(),
    artifactId: text().references(() => artifact.id, { onDelete: 'set null' }),
    sha256: text(),
    sizeBytes: integer(),
    /** Of the tensors, the same in whatever format they are stored. */
    weightsHash: text(),
    /** SHA-256 over the artifact, the job's spec, the parents' lineage hashes, the dataset's hash and the code version. */
    lineageHash: text(),
    parentId: text().references((): AnySQLiteColumn => modelVersion.id),
    datasetVersionId: text().references(() => datasetVersion.id),
    jobId: text().references(() => job.id),
    /** Inputs, outputs, operators, opsets, parameters: `OnnxMeta` or `WeightsMeta` of the protocol. */
    signatureJson: text({ mode: 'json' }).$type<Record<string, unknown>>(),
    preprocessJson: text({ mode: 'json' }).$type<Record<string, unknown>>(),
    labelsJson: text({ mode: 'json' }).$type<string[]>(),
    gateJson: text({ mode: 'json' }).$type<Record<string, unknown>>(),
    createdAt: integer().notNull(),
    deletedAt: integer(),
  },
  (t) => [
    uniqueIndex('model_version_number').on(t.modelId, t.number),
    index('model_version_parent').on(t.parentId),
    index('model_version_job').on(t.jobId),
    // Behind the JSON of a row its last columns are slow to read: these are what lists are filtered by.
    index('model_version_live')
      .on(t.id, t.modelId, t.state, t.format, t.precision, t.jobId, t.deletedAt)
      .where(sql`${t.deletedAt} IS NULL`),
  ],
);

export const modelAlias = sqliteTable(
  'model_alias',
  {
    modelId: text()
      .notNull()
      .references(() => model.id),
    name: text().notNull(),
    versionId: text()
      .notNull()
      .references(() => modelVersion.id),
  },
  (t) => [primaryKey({ columns: [t.modelId, t.name] })],
);

export type Model = typeof model.$inferSelect;
export type ModelVersion = typeof modelVersion.$inferSelect;
export type ModelAlias = typeof modelAlias.$inferSelect;
