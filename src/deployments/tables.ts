import { sql } from 'drizzle-orm';
import { index, integer, primaryKey, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core';
import { user } from '../accounts/tables.ts';
import { modelVersion } from '../models/tables.ts';

export const revisionStates = ['LOADING', 'ACTIVE', 'RETIRED', 'FAILED'] as const;

/** A name that requests are sent to. Undeploying leaves the row; the name becomes free. */
export const deployment = sqliteTable(
  'deployment',
  {
    id: text().primaryKey(),
    name: text().notNull(),
    createdAt: integer().notNull(),
    deletedAt: integer(),
  },
  (t) => [uniqueIndex('deployment_name').on(t.name).where(sql`${t.deletedAt} IS NULL`)],
);

/** What stands behind the name: a model version with its settings. At most one is LOADING and one ACTIVE. */
export const deploymentRevision = sqliteTable(
  'deployment_revision',
  {
    deploymentId: text()
      .notNull()
      .references(() => deployment.id),
    /** The version in the inference protocol. */
    number: integer().notNull(),
    modelVersionId: text()
      .notNull()
      .references(() => modelVersion.id),
    settingsJson: text({ mode: 'json' }).$type<Record<string, unknown>>().notNull(),
    state: text({ enum: revisionStates }).notNull(),
    /** Why it FAILED. */
    reason: text(),
    createdById: text().references(() => user.id),
    createdAt: integer().notNull(),
    /** When it took the traffic. */
    activatedAt: integer(),
    retiredAt: integer(),
  },
  (t) => [
    primaryKey({ columns: [t.deploymentId, t.number] }),
    uniqueIndex('deployment_loading').on(t.deploymentId).where(sql`${t.state} = 'LOADING'`),
    uniqueIndex('deployment_active').on(t.deploymentId).where(sql`${t.state} = 'ACTIVE'`),
    index('deployment_revision_version').on(t.modelVersionId),
  ],
);

export type Deployment = typeof deployment.$inferSelect;
export type DeploymentRevision = typeof deploymentRevision.$inferSelect;
