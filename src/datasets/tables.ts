import { sql } from 'drizzle-orm';
import { foreignKey, index, integer, primaryKey, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core';
import { user } from '../accounts/tables.ts';
import { job } from '../jobs/tables.ts';

export const tasks = ['CLASSIFICATION', 'DETECTION'] as const;
export const splits = ['train', 'val', 'test'] as const;
export const versionStates = ['IMPORTING', 'READY', 'FAILED'] as const;

/** A name under which versions are collected. Deleting it leaves the row; the name becomes free. */
export const dataset = sqliteTable(
  'dataset',
  {
    id: text().primaryKey(),
    name: text().notNull(),
    task: text({ enum: tasks }).notNull(),
    notes: text().notNull().default(''),
    createdById: text().references(() => user.id),
    createdAt: integer().notNull(),
    deletedAt: integer(),
  },
  (t) => [uniqueIndex('dataset_name').on(t.name).where(sql`${t.deletedAt} IS NULL`)],
);

type BySplit<T> = Record<(typeof splits)[number], T>;

export interface DatasetCounts {
  items: number;
  /** Images by split: items are sorted by split, so that these are also the places where one ends and the next begins. */
  images: BySplit<number>;
  /** Images by split, then by class, in the order of the classes; one that shows several classes counts for each. */
  bySplit: BySplit<number[]>;
  /** DETECTION: boxes by split, then by class, without crowds. */
  boxesBySplit: BySplit<number[]> | null;
  /** Images whose bytes stand in more than one split. */
  duplicatesAcrossSplits: number;
  /** Images of the zip that were left out; versions of before there was LEAVE_OUT have none. */
  leftOut?: { count: number; first: { file: string; reason: string }[] };
}

/** Immutable once READY. */
export const datasetVersion = sqliteTable(
  'dataset_version',
  {
    id: text().primaryKey(),
    datasetId: text()
      .notNull()
      .references(() => dataset.id),
    number: integer().notNull(),
    state: text({ enum: versionStates }).notNull(),
    /** SHA-256 of the sorted (split, path, class or boxes, file hash) manifest, never of the zip. */
    contentHash: text(),
    splitSeed: integer().notNull(),
    classesJson: text({ mode: 'json' }).$type<string[]>(),
    countsJson: text({ mode: 'json' }).$type<DatasetCounts>(),
    sizeBytes: integer(),
    jobId: text().references(() => job.id),
    createdAt: integer().notNull(),
    deletedAt: integer(),
  },
  (t) => [
    uniqueIndex('dataset_version_number').on(t.datasetId, t.number),
    index('dataset_version_content').on(t.contentHash),
    index('dataset_version_job').on(t.jobId),
  ],
);

/** As `LabelledBox` of the protocol. */
export interface DatasetBox {
  label: number;
  x: number;
  y: number;
  width: number;
  height: number;
  crowd?: true;
}

export const datasetItem = sqliteTable(
  'dataset_item',
  {
    versionId: text()
      .notNull()
      .references(() => datasetVersion.id, { onDelete: 'cascade' }),
    n: integer().notNull(),
    split: text({ enum: splits }).notNull(),
    /** In the dataset, with "/". */
    path: text().notNull(),
    sha256: text().notNull(),
    width: integer().notNull(),
    height: integer().notNull(),
    /** CLASSIFICATION: index into the classes. */
    label: integer(),
    /** DETECTION: its boxes. */
    boxesJson: text({ mode: 'json' }).$type<DatasetBox[]>(),
    /** Where its thumbnail (WebP) lies in the version's THUMBNAILS artifact. */
    thumbnailOffset: integer().notNull(),
    thumbnailBytes: integer().notNull(),
  },
  (t) => [primaryKey({ columns: [t.versionId, t.n] })],
);

/** The classes that an item shows, each once: what items are browsed by. */
export const datasetItemLabel = sqliteTable(
  'dataset_item_label',
  {
    versionId: text().notNull(),
    n: integer().notNull(),
    label: integer().notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.versionId, t.n, t.label] }),
    foreignKey({ columns: [t.versionId, t.n], foreignColumns: [datasetItem.versionId, datasetItem.n] }).onDelete('cascade'),
    index('dataset_item_label_label').on(t.versionId, t.label, t.n),
  ],
);

export type Dataset = typeof dataset.$inferSelect;
export type DatasetVersion = typeof datasetVersion.$inferSelect;
export type DatasetItemRow = typeof datasetItem.$inferSelect;
