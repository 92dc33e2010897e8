import { index, primaryKey, sqliteTable, text } from 'drizzle-orm/sqlite-core';

/** What people say about something, by a key. `subjectId` is the id of a dataset, a model, a version of one of them, or a job. */
export const tag = sqliteTable(
  'tag',
  {
    subjectId: text().notNull(),
    key: text().notNull(),
    value: text().notNull(),
  },
  (t) => [primaryKey({ columns: [t.subjectId, t.key] }), index('tag_key').on(t.key, t.value)],
);

export type Tag = typeof tag.$inferSelect;
