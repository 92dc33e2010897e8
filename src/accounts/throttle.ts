import { createHash } from 'node:crypto';
import { and, count, eq, isNull, sql } from 'drizzle-orm';
import { type Db, inTransaction, type Queryable } from '../db.ts';
import { ApiError } from '../errors.ts';
import { loginThrottle, user } from './tables.ts';

const freeFailures = 4;
const firstDelayMs = 1000;
const longestDelayMs = 15 * 60_000;
/** The last administrator is slowed, never locked out: nobody else could help. */
const lastAdminDelayMs = 5000;
/** Names that were tried: the table stays bounded when somebody tries millions. */
const namesMax = 100_000;

const keyOf = (name: string) => createHash('sha256').update(name.toLowerCase()).digest('hex');

/**
 * Counts one try for a submitted name before its password is looked at, so that tries in parallel count too, and refuses it
 * (RATE_LIMITED) while the name is delayed. Keyed on the name whether a user has it or not: the answer tells nothing.
 * The delay starts at the fifth failure and doubles up to 15 minutes. It survives a restart.
 */
export function countTry(db: Db, name: string): void {
  const nameHash = keyOf(name);
  inTransaction(db, (tx) => {
    const now = Date.now();
    const row = tx.select().from(loginThrottle).where(eq(loginThrottle.nameHash, nameHash)).get();
    const delayMax = isLastAdmin(tx, name) ? lastAdminDelayMs : longestDelayMs;
    // A clock that was set back must not make a delay longer than the longest.
    const waitMs = Math.min((row?.notBefore ?? 0) - now, delayMax);
    if (waitMs > 0) {
      throw new ApiError('RATE_LIMITED', `Too many failed logins. Try again in ${Math.ceil(waitMs / 1000)} seconds.`, waitMs);
    }
    const failures = (row?.failures ?? 0) + 1;
    const delayMs = failures <= freeFailures ? 0 : Math.min(firstDelayMs * 2 ** (failures - freeFailures - 1), delayMax);
    const values = { failures, notBefore: now + delayMs };
    tx.insert(loginThrottle)
      .values({ nameHash, ...values })
      .onConflictDoUpdate({ target: loginThrottle.nameHash, set: values })
      .run();
    if (!row) forgetOldest(tx);
  });
}

/** Forgets the failures of a name: its password was right, or an administrator set a new one. */
export function clearTries(tx: Queryable, name: string): void {
  tx.delete(loginThrottle)
    .where(eq(loginThrottle.nameHash, keyOf(name)))
    .run();
}

function isLastAdmin(tx: Queryable, name: string): boolean {
  const admins = tx
    .select({ name: user.name })
    .from(user)
    .where(and(eq(user.role, 'ADMIN'), isNull(user.disabledAt)))
    .limit(2)
    .all();
  return admins.length === 1 && admins[0]?.name.toLowerCase() === name.toLowerCase();
}

function forgetOldest(tx: Queryable): void {
  const { n } = tx.select({ n: count() }).from(loginThrottle).get() ?? { n: 0 };
  if (n <= namesMax) return;
  tx.run(sql`DELETE FROM ${loginThrottle} WHERE ${loginThrottle.nameHash} IN (
    SELECT ${loginThrottle.nameHash} FROM ${loginThrottle} ORDER BY ${loginThrottle.notBefore} LIMIT ${namesMax / 10})`);
}
