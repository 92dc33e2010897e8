import { randomUUIDv7 } from 'node:crypto';
import { and, count, eq, gt, isNotNull, isNull, sql } from 'drizzle-orm';
import { z } from 'zod';
import type { Bus } from '../bus.ts';
import { type Db, inTransaction, inUrgentTransaction, type Queryable } from '../db.ts';
import { notFound, parseInput, refuse } from '../errors.ts';
import { nameMessage } from '../naming.ts';
import { type Actor, writeAudit } from './audit.ts';
import { hashPassword, Password } from './passwords.ts';
import { endSessions } from './sessions.ts';
import { type Role, roles, type User, user } from './tables.ts';
import { clearTries } from './throttle.ts';

export interface AccountsDeps {
  db: Db;
  bus: Bus;
}

/** Only ASCII letters: the database compares names without regard to case for these alone, and look-alikes of other scripts would deceive. */
export const UserName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/, {
  error: nameMessage('1 to 64 letters from A to Z, digits, dots, dashes, underscores or @'),
});

const CreateUserInput = z.object({ name: UserName, role: z.enum(roles), password: Password });
const UpdateUserInput = z.object({ name: UserName.nullish(), role: z.enum(roles).nullish() });

export function findUser(db: Queryable, id: string): User | undefined {
  return db.select().from(user).where(eq(user.id, id)).get();
}

export function findUserByName(db: Queryable, name: string): User | undefined {
  return db.select().from(user).where(sql`${user.name} = ${name} COLLATE NOCASE`).get();
}

export interface UserFilter {
  nameContains?: string | null;
  role?: Role | null;
  disabled?: boolean | null;
}

/** By name, behind the name `after`. */
export function listUsers(db: Queryable, { nameContains, role, disabled }: UserFilter, limit: number, after: string | null): User[] {
  const name = sql`${user.name} COLLATE NOCASE`;
  return db
    .select()
    .from(user)
    .where(
      and(
        after === null ? undefined : gt(name, after),
        nameContains ? sql`instr(lower(${user.name}), lower(${nameContains})) > 0` : undefined,
        role ? eq(user.role, role) : undefined,
        disabled == null ? undefined : disabled ? isNotNull(user.disabledAt) : isNull(user.disabledAt),
      ),
    )
    .orderBy(name)
    .limit(limit)
    .all();
}

/** The user who is changed; NOT_FOUND without one. */
function requireUser(db: Queryable, id: string): User {
  return findUser(db, id) ?? notFound('user');
}

/** Inserts a user whose input was checked; TAKEN when the name, in whatever case, is in use. */
export function insertUser(tx: Queryable, values: Pick<User, 'name' | 'passwordHash' | 'role'>): User {
  requireFreeName(tx, values.name);
  return tx
    .insert(user)
    .values({ id: randomUUIDv7(), createdAt: Date.now(), ...values })
    .returning()
    .get();
}

export async function createUser({ db }: AccountsDeps, actor: Actor, raw: unknown): Promise<User> {
  const input = parseInput(CreateUserInput, raw);
  requireFreeName(db, input.name);
  const passwordHash = await hashPassword(input.password);
  return inTransaction(db, (tx) => {
    const row = insertUser(tx, { name: input.name, passwordHash, role: input.role });
    writeAudit(tx, actor, { action: 'createUser', target: { type: 'User', id: row.id }, detail: { name: row.name, role: row.role } });
    return row;
  });
}

/** Changes name or role. A changed role ends the user's open subscriptions: they come back with the new one. */
export function updateUser({ db, bus }: AccountsDeps, actor: Actor, id: string, raw: unknown): User {
  const { name, role } = parseInput(UpdateUserInput, raw);
  const { before, after } = inTransaction(db, (tx) => {
    const before = requireUser(tx, id);
    if (name && name.toLowerCase() !== before.name.toLowerCase()) requireFreeName(tx, name);
    if (role && role !== 'ADMIN') requireOtherAdmin(tx, before);
    const after = tx
      .update(user)
      .set({ name: name ?? before.name, role: role ?? before.role })
      .where(eq(user.id, id))
      .returning()
      .get();
    const detail = { from: { name: before.name, role: before.role }, to: { name: after.name, role: after.role } };
    writeAudit(tx, actor, { action: 'updateUser', target: { type: 'User', id }, detail });
    return { before, after };
  });
  if (before.role !== after.role) bus.wake('accessChanged', id);
  return after;
}

/** Disables a user (the sessions end at once) or enables one again. */
export function setUserDisabled({ db, bus }: AccountsDeps, actor: Actor, id: string, disabled: boolean): User {
  const after = inUrgentTransaction(db, (tx) => {
    const before = requireUser(tx, id);
    if (disabled) {
      requireOtherAdmin(tx, before);
      endSessions(tx, { userId: id });
    }
    const disabledAt = disabled ? (before.disabledAt ?? Date.now()) : null;
    writeAudit(tx, actor, { action: disabled ? 'disableUser' : 'enableUser', target: { type: 'User', id } });
    return tx.update(user).set({ disabledAt }).where(eq(user.id, id)).returning().get();
  });
  if (disabled) bus.wake('accessChanged', id);
  return after;
}

/** Sets a new password, ends all sessions, and lifts a login delay. */
export async function resetPassword({ db, bus }: AccountsDeps, actor: Actor, id: string, rawPassword: string): Promise<User> {
  const { password } = parseInput(z.object({ password: Password }), { password: rawPassword });
  requireUser(db, id);
  // A session that somebody else got hold of must not become theirs for good.
  if (actor.actorId === id) refuse('INVALID', 'userId', 'Your own password is set by `changePassword`, which takes the current one too.');
  const passwordHash = await hashPassword(password);
  const after = inUrgentTransaction(db, (tx) => {
    endSessions(tx, { userId: id });
    const row = tx.update(user).set({ passwordHash }).where(eq(user.id, id)).returning().get() ?? notFound('user');
    clearTries(tx, row.name);
    writeAudit(tx, actor, { action: 'resetPassword', target: { type: 'User', id } });
    return row;
  });
  bus.wake('accessChanged', id);
  return after;
}

function requireFreeName(db: Queryable, name: string): void {
  if (findUserByName(db, name)) refuse('TAKEN', 'name', 'Another user has this name.');
}

/** LAST_ADMIN when `row` is the only administrator who can log in. */
function requireOtherAdmin(tx: Queryable, row: User): void {
  if (row.role !== 'ADMIN' || row.disabledAt !== null) return;
  const active = and(eq(user.role, 'ADMIN' satisfies Role), isNull(user.disabledAt));
  const { n } = tx.select({ n: count() }).from(user).where(active).get() ?? { n: 0 };
  if (n <= 1) refuse('LAST_ADMIN', null, 'This is the last active administrator: make another one first.');
}
