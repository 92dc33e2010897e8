import { randomUUIDv7 } from 'node:crypto';
import { eq } from 'drizzle-orm';
import { z } from 'zod';
import { accessTokenSeconds } from '../accessTokens.ts';
import type { Bus } from '../bus.ts';
import { type Db, inTransaction, inUrgentTransaction, type Queryable } from '../db.ts';
import { ApiError, notFound, parseInput, refuse } from '../errors.ts';
import { type Actor, countDenied, writeAudit } from './audit.ts';
import { hashPassword, Password, verifyPassword } from './passwords.ts';
import { type ClientOrigin, endOldest, endSessions, findSession, hashOf, insertSession, liveSessions, userOfSession } from './sessions.ts';
import { type Session, session, type User, user } from './tables.ts';
import type { Throttle } from './throttle.ts';
import type { Tokens } from './tokens.ts';
import { findUser, findUserByName } from './users.ts';

interface Deps {
  db: Db;
  bus: Bus;
  tokens: Tokens;
  throttle: Throttle;
}

/** What a login or a refresh hands out. `refreshToken` is shown this once: the database keeps its hash. */
export interface Credentials {
  accessToken: string;
  accessTokenExpiresAt: number;
  refreshToken: string;
  user: User;
}

const LoginInput = z.object({ name: z.string().max(200), password: z.string().max(1000) });
const ChangePasswordInput = z.object({ currentPassword: z.string().max(1000), newPassword: Password });

/** Starts a session. A wrong password, an unknown and a disabled user get the same UNAUTHENTICATED after the same work. */
export async function login(deps: Deps, actor: Actor, origin: ClientOrigin, raw: unknown): Promise<Credentials> {
  const { db, throttle } = deps;
  const { name, password } = parseInput(LoginInput, raw);
  const row = findUserByName(db, name);
  const started = await throttle.guarded({ name, password, user: row, address: origin.address }, async () => {
    const right = await verifyPassword(row?.passwordHash, password);
    return inUrgentTransaction(db, (tx) => {
      // Read again: the user may have been disabled, or the password changed, while the hash was computed.
      const current = row && findUser(tx, row.id);
      if (!right || !current || current.disabledAt !== null || current.passwordHash !== row.passwordHash) {
        countDenied(tx, actor, name, row);
        return null;
      }
      endOldest(tx, current.id);
      const opened = insertSession(tx, current.id, randomUUIDv7(), origin);
      writeAudit(tx, { ...actor, actorId: current.id }, { action: 'login', target: { type: 'User', id: current.id } });
      return { user: current, ...opened };
    });
  });
  if (!started) throw new ApiError('UNAUTHENTICATED', 'The name or the password is wrong.');
  return credentials(deps, started);
}

/**
 * Exchanges a refresh token for a new pair (RFC 9700, rotation). A token that was used before means that somebody else has it:
 * the whole family is revoked.
 */
export async function refresh(deps: Deps, actor: Actor, origin: ClientOrigin, refreshToken: string): Promise<Credentials> {
  const { db, bus, throttle } = deps;
  const known = readSession(db, refreshToken);
  // A replay ends the session, however often it was refreshed.
  if (known && known.replacedById === null) await throttle.countRefresh({ familyId: known.familyId });
  const outcome = inUrgentTransaction(db, (tx) => {
    const row = readSession(tx, refreshToken);
    const owner = row && userOfSession(tx, row.familyId);
    if (!row || !owner || row.expiresAt <= Date.now()) return null;
    if (row.replacedById !== null) {
      endSessions(tx, { familyId: row.familyId });
      const by = { ...actor, actorId: owner.id };
      writeAudit(tx, by, { action: 'refreshReplay', outcome: 'DENIED', target: { type: 'Session', id: row.familyId } });
      return { replayed: row };
    }
    const opened = insertSession(tx, owner.id, row.familyId, origin);
    tx.update(session).set({ replacedById: opened.row.id }).where(eq(session.id, row.id)).run();
    return { user: owner, ...opened, replayed: undefined };
  });
  if (outcome && !outcome.replayed) return credentials(deps, outcome);
  if (outcome) bus.wake('accessChanged', outcome.replayed.userId);
  await throttle.countRefresh({ address: origin.address });
  throw new ApiError('UNAUTHENTICATED', 'The refresh token is invalid, expired or used. Log in again.');
}

const readSession = (db: Queryable, refreshToken: string): Session | undefined =>
  db
    .select()
    .from(session)
    .where(eq(session.refreshHash, hashOf(refreshToken)))
    .get();

/** Ends one session of a user and returns its last row. */
export function revokeSession({ db, bus }: Pick<Deps, 'db' | 'bus'>, actor: Actor, familyId: string): Session {
  const row = inUrgentTransaction(db, (tx) => {
    const row = findSession(tx, familyId) ?? notFound('session');
    endSessions(tx, { familyId });
    writeAudit(tx, actor, { action: 'revokeSession', target: { type: 'Session', id: familyId } });
    return row;
  });
  bus.wake('accessChanged', row.userId);
  return row;
}

/** Ends the session of a refresh token; a token that is none is no error (RFC 7009). */
export function logout(deps: Pick<Deps, 'db' | 'bus'>, actor: Actor, refreshToken: string): void {
  const row = readSession(deps.db, refreshToken);
  if (row && findSession(deps.db, row.familyId)?.revokedAt === null) revokeSession(deps, { ...actor, actorId: row.userId }, row.familyId);
}

/** Sets the viewer's own password and ends their other sessions. */
export async function changePassword(
  deps: Omit<Deps, 'tokens'>,
  actor: Actor,
  { user: asker, familyId }: { user: User; familyId: string },
  { address }: Pick<ClientOrigin, 'address'>,
  raw: unknown,
): Promise<User> {
  const { db, bus, throttle } = deps;
  const input = parseInput(ChangePasswordInput, raw);
  const target = { type: 'User', id: asker.id };
  const guess = { name: asker.name, password: input.currentPassword, user: asker, address };
  const right = await throttle.guarded(guess, async () => {
    if (await verifyPassword(asker.passwordHash, input.currentPassword)) return true;
    writeAudit(db, actor, { action: 'changePassword', outcome: 'DENIED', target });
    return null;
  });
  if (!right) refuse('WRONG_PASSWORD', 'currentPassword', 'This is not the current password.');
  const passwordHash = await hashPassword(input.newPassword);
  const changed = inTransaction(db, (tx) => {
    // Read again: the session may have been ended, or the password reset, while the hashes were computed.
    const open = liveSessions(tx, asker.id);
    if (!open.some((own) => own.familyId === familyId)) throw new ApiError('UNAUTHENTICATED', 'The session has ended. Log in again.');
    const changed = tx.update(user).set({ passwordHash }).where(eq(user.id, asker.id)).returning().get();
    for (const other of open) if (other.familyId !== familyId) endSessions(tx, { familyId: other.familyId });
    writeAudit(tx, actor, { action: 'changePassword', target });
    return changed;
  });
  bus.wake('accessChanged', changed.id);
  return changed;
}

async function credentials(
  { tokens }: Pick<Deps, 'tokens'>,
  opened: { user: User; row: Session; refreshToken: string },
): Promise<Credentials> {
  return {
    accessToken: await tokens.sign(opened.user.id, opened.row.familyId),
    accessTokenExpiresAt: Date.now() + accessTokenSeconds * 1000,
    refreshToken: opened.refreshToken,
    user: opened.user,
  };
}
