import { index, integer, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core';
import { user } from '../accounts/tables.ts';

export const uploadStates = ['OPEN', 'COMPLETE', 'CONSUMED', 'EXPIRED'] as const;

/**
 * A resumable upload; its id is the one of tus. While it is OPEN its bytes are a file of that name in the uploads folder; a COMPLETE
 * one is a blob that it owns through an artifact, until a mutation uses it (CONSUMED) or nobody did for a day (EXPIRED).
 */
export const upload = sqliteTable(
  'upload',
  {
    id: text().primaryKey(),
    userId: text()
      .notNull()
      .references(() => user.id),
    fileName: text().notNull(),
    sizeBytes: integer().notNull(),
    state: text({ enum: uploadStates }).notNull(),
    createdAt: integer().notNull(),
    expiresAt: integer().notNull(),
  },
  (t) => [index('upload_state').on(t.state, t.expiresAt)],
);

/** Content-addressed bytes on the disk. Without an artifact that names it, a blob is garbage. */
export const blob = sqliteTable('blob', {
  /** SHA-256 of the content, in hexadecimal. */
  sha256: text().primaryKey(),
  sizeBytes: integer().notNull(),
  /** When it was last placed; 0 once an artifact of it was dropped. */
  createdAt: integer().notNull(),
});

export const artifactKinds = [
  'UPLOAD',
  'DATASET_ZIP',
  'MANIFEST',
  'THUMBNAILS',
  'IMAGES',
  'ONNX',
  'WEIGHTS',
  'CHECKPOINT',
  'PROBE',
  'EVALUATION',
  'SAMPLES',
] as const;

/** A file that something owns: the only way to a blob. */
export const artifact = sqliteTable(
  'artifact',
  {
    id: text().primaryKey(),
    ownerType: text({ enum: ['UPLOAD', 'DATASET_VERSION', 'MODEL_VERSION', 'JOB'] }).notNull(),
    ownerId: text().notNull(),
    kind: text({ enum: artifactKinds }).notNull(),
    /** File name for people. */
    name: text().notNull(),
    sha256: text()
      .notNull()
      .references(() => blob.sha256),
    metaJson: text({ mode: 'json' }).$type<Record<string, unknown>>(),
    createdAt: integer().notNull(),
  },
  (t) => [uniqueIndex('artifact_content').on(t.ownerType, t.ownerId, t.kind, t.sha256), index('artifact_blob').on(t.sha256)],
);

export type Upload = typeof upload.$inferSelect;
export type Blob = typeof blob.$inferSelect;
export type Artifact = typeof artifact.$inferSelect;
