import { integer, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core';
import { job } from '../jobs/tables.ts';

/** A benchmark as people read it. It can be made again from the benchmark's rows and samples, byte for byte. */
export const report = sqliteTable(
  'report',
  {
    id: text().primaryKey(),
    benchmarkJobId: text()
      .notNull()
      .references(() => job.id),
    schemaVersion: integer().notNull(),
    /** Of `content`. */
    sha256: text().notNull(),
    /** Canonical JSON: reading every sample again for each reader would stop the server for seconds. */
    content: text().notNull(),
    createdAt: integer().notNull(),
  },
  (t) => [uniqueIndex('report_benchmark').on(t.benchmarkJobId, t.schemaVersion)],
);

/** Its content is large: it is read only where somebody asks for it. */
export type StoredReport = Omit<typeof report.$inferSelect, 'content'>;
