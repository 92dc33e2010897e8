import { integer, primaryKey, real, sqliteTable, text } from 'drizzle-orm/sqlite-core';

export const alertMetrics = ['QUEUE_WAIT', 'FAILED_JOBS', 'DISK_FREE', 'HOST_RESTARTS', 'FAILED_BACKUPS', 'LATENCY', 'ERRORS'] as const;
export type AlertMetric = (typeof alertMetrics)[number];

export const alertStates = ['OK', 'PENDING', 'FIRING'] as const;
export type AlertStateName = (typeof alertStates)[number];

/** What an administrator changed of a rule of `rules.ts`. */
export const alertRule = sqliteTable('alert_rule', {
  metric: text({ enum: alertMetrics }).primaryKey(),
  threshold: real().notNull(),
  durationSeconds: integer().notNull(),
  enabled: integer({ mode: 'boolean' }).notNull(),
});

/** The alerts that are not OK. */
export const alert = sqliteTable(
  'alert',
  {
    metric: text({ enum: alertMetrics }).notNull(),
    /** Name of the deployment, or '' for the whole server. */
    deployment: text().notNull(),
    state: text({ enum: alertStates }).notNull(),
    /** When it got into this state, and what was measured and allowed then. */
    since: integer().notNull(),
    value: real().notNull(),
    threshold: real().notNull(),
  },
  (t) => [primaryKey({ columns: [t.metric, t.deployment] })],
);

/** Each change of an alert's state. */
export const alertEvent = sqliteTable('alert_event', {
  seq: integer().primaryKey({ autoIncrement: true }),
  at: integer().notNull(),
  metric: text({ enum: alertMetrics }).notNull(),
  deployment: text().notNull(),
  state: text({ enum: alertStates }).notNull(),
  /** Null where nothing is measured any more. */
  value: real(),
  threshold: real().notNull(),
});

export type Alert = typeof alert.$inferSelect;
export type AlertEvent = typeof alertEvent.$inferSelect;
