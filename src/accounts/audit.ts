import { createHash } from 'node:crypto';
import { and, count, desc, eq, gt, lt, sql } from 'drizzle-orm';
import type { Queryable } from '../db.ts';
import { type AuditRow, audit, type User } from './tables.ts';

/** Denied logins with the same name within this time are one row. */
const countedMs = 3600_000;
/** Names that no user has and that get a row of their own within that time; further ones share one. */
const strangersMax = 100;

/** Author of an action in the audit log; `actorId` is null before login and on the command line, `apiKeyId` is of a program's key. */
export interface Actor {
  actorId: string | null;
  apiKeyId?: string;
  requestId: string | null;
}

interface Entry {
  action: string;
  outcome?: AuditRow['outcome'];
  target?: { type: string; id: string };
  detail?: Record<string, unknown>;
}

/** Appends one row, in the transaction of the change that it tells of. */
export function writeAudit(tx: Queryable, actor: Actor, { action, outcome = 'OK', target, detail }: Entry): void {
  tx.insert(audit)
    .values({ ...actor, at: Date.now(), action, outcome, targetType: target?.type, targetId: target?.id, detailJson: detail })
    .run();
}

/**
 * Counts a denied login in the row of its name and hour. What anybody can cause must not grow without a bound: a user's name has a row
 * of its own, and so have the first other names of an hour.
 */
export function countDenied(tx: Queryable, actor: Actor, name: string, user: User | undefined): void {
  const at = Date.now();
  const hour = `login ${Math.floor(at / countedMs)}`;
  let countKey = `${hour} user ${user?.id}`;
  if (!user) {
    countKey = `${hour} name ${createHash('sha256').update(name.toLowerCase()).digest('hex')}`;
    const isKnown = tx.select({ seq: audit.seq }).from(audit).where(eq(audit.countKey, countKey)).get() !== undefined;
    const ofHour = and(gt(audit.countKey, `${hour} name `), lt(audit.countKey, `${hour} name ~`));
    const { n } = tx.select({ n: count() }).from(audit).where(ofHour).get() ?? { n: 0 };
    if (!isKnown && n >= strangersMax) countKey = `${hour} other names`;
  }
  const target = user ? { targetType: 'User', targetId: user.id } : {};
  tx.insert(audit)
    .values({ ...actor, at, action: 'login', outcome: 'DENIED', ...target, countKey })
    .onConflictDoUpdate({ target: audit.countKey, set: { at, count: sql`${audit.count} + 1` } })
    .run();
}

export interface AuditFilter {
  actorId?: string | null;
  action?: string | null;
  outcome?: AuditRow['outcome'] | null;
}

/** Newest first, behind line `after`. */
export function listAudit(db: Queryable, { actorId, action, outcome }: AuditFilter, limit: number, after: number | null): AuditRow[] {
  return db
    .select()
    .from(audit)
    .where(
      and(
        after === null ? undefined : lt(audit.seq, after),
        actorId ? eq(audit.actorId, actorId) : undefined,
        action ? eq(audit.action, action) : undefined,
        outcome ? eq(audit.outcome, outcome) : undefined,
      ),
    )
    .orderBy(desc(audit.seq))
    .limit(limit)
    .all();
}
