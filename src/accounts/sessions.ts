import { createHash, randomBytes, randomUUIDv7 } from 'node:crypto';
import { and, desc, eq, gt, isNull, lte } from 'drizzle-orm';
import { argument, prepared, type Queryable } from '../db.ts';
import { type Session, session, type User, user } from './tables.ts';

/** A session that is not refreshed for this long ends. */
const refreshDays = 30;
/** Sessions that one user can have open; a further login ends the oldest. */
const sessionsMax = 50;

export const hashOf = (refreshToken: string) => createHash('sha256').update(refreshToken).digest('hex');

/** The row of a session that holds its latest refresh token. */
export function findSession(db: Queryable, familyId: string): Session | undefined {
  return db
    .select()
    .from(session)
    .where(and(eq(session.familyId, familyId), isNull(session.replacedById)))
    .get();
}

/** The open sessions of a user, newest first: the row of each family that holds its valid refresh token. */
export function liveSessions(db: Queryable, userId: string): Session[] {
  return db
    .select()
    .from(session)
    .where(and(eq(session.userId, userId), isNull(session.revokedAt), isNull(session.replacedById), gt(session.expiresAt, Date.now())))
    .orderBy(desc(session.id))
    .all();
}

const openQuery = prepared((db) =>
  db
    .select({ user })
    .from(session)
    .innerJoin(user, eq(user.id, session.userId))
    .where(
      and(
        eq(session.familyId, argument('familyId', 'TEXT')),
        isNull(session.replacedById),
        isNull(session.revokedAt),
        isNull(user.disabledAt),
      ),
    )
    .prepare(),
);

/** The user of an open session as the database has them now; undefined when the session has ended or the user is disabled. */
export function userOfSession(db: Queryable, familyId: string): User | undefined {
  return openQuery(db).get({ familyId })?.user;
}

/** Whether one of the open sessions of a user was last used for new tokens from this address. */
export function hasSessionAt(db: Queryable, userId: string, address: string): boolean {
  return liveSessions(db, userId).some((row) => row.address === address);
}

/** Ends sessions: the row with the latest refresh token of each says so for the whole family. */
export function endSessions(tx: Queryable, of: { userId: string } | { familyId: string }): void {
  const which = 'userId' in of ? eq(session.userId, of.userId) : eq(session.familyId, of.familyId);
  tx.update(session)
    .set({ revokedAt: Date.now() })
    .where(and(which, isNull(session.replacedById), isNull(session.revokedAt)))
    .run();
}

/** Makes room for one more session of a user. */
export function endOldest(tx: Queryable, userId: string): void {
  for (const { familyId } of liveSessions(tx, userId).slice(sessionsMax - 1)) endSessions(tx, { familyId });
}

/** Where a session is used: the User-Agent, and the address (`clientAddress.ts`). */
export interface ClientOrigin {
  client: string | null;
  address: string;
}

/** A new row of a family with its refresh token, which only this answer holds. Rows that have expired are removed. */
export function insertSession(tx: Queryable, userId: string, familyId: string, { client, address }: ClientOrigin) {
  const refreshToken = randomBytes(32).toString('base64url');
  const now = Date.now();
  tx.delete(session).where(lte(session.expiresAt, now)).run();
  const row = tx
    .insert(session)
    .values({
      id: randomUUIDv7(),
      userId,
      familyId,
      refreshHash: hashOf(refreshToken),
      client: client?.slice(0, 200) ?? null,
      address,
      createdAt: now,
      expiresAt: now + refreshDays * 86_400_000,
    })
    .returning()
    .get();
  return { row, refreshToken };
}
