import { sql } from 'drizzle-orm';
import { check, index, integer, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core';

export const roles = ['VIEWER', 'ENGINEER', 'ADMIN'] as const;
export type Role = (typeof roles)[number];

/** What a field of the API can need: `permissions.ts` says which role has which. */
export const permissionNames = [
  'READ',
  'UPLOAD',
  'RUN_JOBS',
  'DEPLOY',
  'TRY_DEPLOYMENTS',
  'INFER',
  'DELETE',
  'MANAGE_USERS',
  'READ_AUDIT',
  'CONFIGURE',
] as const;
export type Permission = (typeof permissionNames)[number];

export const user = sqliteTable(
  'user',
  {
    id: text().primaryKey(),
    name: text().notNull(),
    passwordHash: text().notNull(),
    role: text({ enum: roles }).notNull(),
    disabledAt: integer(),
    createdAt: integer().notNull(),
  },
  (t) => [
    uniqueIndex('user_name').on(sql`${t.name} COLLATE NOCASE`),
    check('user_role', sql`${t.role} IN ('VIEWER', 'ENGINEER', 'ADMIN')`),
  ],
);

/**
 * One refresh token. A login starts a family; each refresh adds a row to it and marks the former one as replaced. Replaced rows stay, so
 * that a stolen token is seen when it is used again: 3,000 in a month. The indexes leave them out, since they are read with each request.
 */
export const session = sqliteTable(
  'session',
  {
    id: text().primaryKey(),
    userId: text()
      .notNull()
      .references(() => user.id, { onDelete: 'cascade' }),
    familyId: text().notNull(),
    /** SHA-256 of the refresh token, in hexadecimal. */
    refreshHash: text().notNull().unique(),
    replacedById: text(),
    client: text(),
    /** Where it was opened or last refreshed from; null in rows of an earlier version. */
    address: text(),
    createdAt: integer().notNull(),
    expiresAt: integer().notNull(),
    revokedAt: integer(),
  },
  (t) => [
    index('session_family').on(t.familyId).where(sql`${t.replacedById} IS NULL`),
    index('session_user').on(t.userId).where(sql`${t.replacedById} IS NULL AND ${t.revokedAt} IS NULL`),
    index('session_expiry').on(t.expiresAt),
    index('session_revoked').on(t.revokedAt),
  ],
);

/** A secret with which a program acts for its owner. */
export const apiKey = sqliteTable(
  'api_key',
  {
    id: text().primaryKey(),
    userId: text()
      .notNull()
      .references(() => user.id, { onDelete: 'cascade' }),
    name: text().notNull(),
    /** A part of the secret that may be shown: it tells keys apart. */
    prefix: text().notNull(),
    /** SHA-256 of the secret, in hexadecimal. It is 256 random bits, so that there is nothing to guess and no slow hash is needed. */
    secretHash: text().notNull().unique(),
    /** What it may do, within what the owner's role allows at that moment. */
    scopesJson: text({ mode: 'json' }).$type<Permission[]>().notNull().default(['INFER']),
    /** Names of the deployments that it infers with; null is all. */
    deploymentsJson: text({ mode: 'json' }).$type<string[]>(),
    createdAt: integer().notNull(),
    /** Null is never. */
    expiresAt: integer(),
    revokedAt: integer(),
    /** To the minute; null is never. */
    lastUsedAt: integer(),
  },
  (t) => [index('api_key_user').on(t.userId, t.id), index('api_key_live').on(t.id).where(sql`${t.revokedAt} IS NULL`)],
);

export const loginThrottle = sqliteTable('login_throttle', {
  /** SHA-256 of the submitted name in lower case, whether a user has it or not. */
  nameHash: text().primaryKey(),
  failures: integer().notNull(),
  notBefore: integer().notNull(),
});

export const auditOutcomes = ['OK', 'DENIED'] as const;

/**
 * Append-only: triggers of the migrations refuse to change a row, and to delete one of the last day. Denied logins are counted, or
 * anybody could fill the disk: their rows, which have a `countKey`, may be counted up.
 */
export const audit = sqliteTable('audit', {
  seq: integer().primaryKey({ autoIncrement: true }),
  at: integer().notNull(),
  actorId: text(),
  /** The API key with which the actor's program did it. */
  apiKeyId: text(),
  action: text().notNull(),
  targetType: text(),
  targetId: text(),
  requestId: text(),
  outcome: text({ enum: auditOutcomes }).notNull(),
  detailJson: text({ mode: 'json' }).$type<Record<string, unknown>>(),
  /** How often it happened. */
  count: integer().notNull().default(1),
  /** What is counted in this row; null for a row of one event. */
  countKey: text().unique(),
});

export type User = typeof user.$inferSelect;
export type Session = typeof session.$inferSelect;
export type ApiKey = typeof apiKey.$inferSelect;
export type AuditRow = typeof audit.$inferSelect;
