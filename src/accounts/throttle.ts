/**
 * How often a password may be guessed. Failures are counted for each submitted name, whether a user has it or not, and for each address.
 * A try beyond that is held: it is refused, with an answer that is the same for every name, at the same time after the request. But
 * behind that answer the password is checked all the same, at most once every 5 seconds, for those whom an attacker could lock out
 * otherwise: a user at an address of one of their open sessions, and the last administrators. If it is right, they are in.
 */
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { and, count, eq, isNull, ne, sql } from 'drizzle-orm';
import { RateLimiterMemory, type RateLimiterRes } from 'rate-limiter-flexible';
import { type Db, inUrgentTransaction, type Queryable } from '../db.ts';
import { ApiError } from '../errors.ts';
import { hashInTurn } from './passwords.ts';
import { hasSessionAt } from './sessions.ts';
import { loginThrottle, type User, user } from './tables.ts';

const freeFailures = 4;
const firstDelayMs = 1000;
const longestDelayMs = 15 * 60_000;
/** Names that were tried: the table stays bounded when somebody tries millions. */
const namesMax = 100_000;

/** Wrong passwords of one address, whatever the names. */
const perAddress = { points: 30, duration: 60 };
/** Tokens of one address that are no refresh tokens (any more). Nobody can guess one: the limit is for the work that they cause. */
const wrongTokensPerAddress = { points: 30, duration: 60 };
/** Refreshes of one session, each of which stores a row. */
const perSession = { points: 30, duration: 60 };
/** Held tries of one name from one address whose password is checked. */
const perHeldPair = { points: 1, duration: 5 };

/** A held try is answered this long after it came: later than a password takes, so that the time does not tell whether one was checked. */
const heldMs = 500;
/** Answers that wait for that; beyond, they come at once, so that a flood costs no memory. */
const heldMax = 1000;

/** A try to prove who one is: what was submitted, who has that name, and where it comes from. */
export interface Guess {
  name: string;
  password: string;
  user: User | undefined;
  address: string;
}

export interface Throttle {
  /**
   * What `check` answers, which gives null for a wrong password; RATE_LIMITED when the try was held, and either not checked or wrong. A
   * right password forgets the failures of the name, except where it was held: the delay is meant for whoever guesses.
   */
  guarded<T>(guess: Guess, check: () => Promise<T | null>): Promise<T | null>;
  /** Counts a refresh of a session, or a wrong refresh token of an address. RATE_LIMITED when there were too many. */
  countRefresh(by: { familyId: string } | { address: string }): Promise<void>;
}

const nameKeyOf = (name: string) => createHash('sha256').update(name.toLowerCase()).digest('hex');

export function createThrottle(db: Db): Throttle {
  const addresses = new RateLimiterMemory(perAddress);
  const heldPairs = new RateLimiterMemory(perHeldPair);
  const wrongTokens = new RateLimiterMemory(wrongTokensPerAddress);
  const sessions = new RateLimiterMemory(perSession);
  const lastWrong = new Map<string, string>();
  const secret = randomBytes(32);
  const digestOf = (text: string) => createHmac('sha256', secret).update(text).digest();
  // 65,536 counters, however many addresses somebody has. Nobody knows who shares theirs.
  const counterOf = (address: string) => digestOf(address).readUInt16BE();
  let held = 0;

  /** Counts a try before its password is looked at, so that tries in parallel count too; the milliseconds to wait if it is held. */
  async function charge(name: string, address: string): Promise<number> {
    const full = await addresses.consume(counterOf(address)).then(
      () => null,
      (rejected: RateLimiterRes) => rejected,
    );
    if (full) return Math.max(1, full.msBeforeNext);
    const waitMs = countTry(db, name);
    if (waitMs > 0) await addresses.reward(counterOf(address));
    return waitMs;
  }

  /** Whether a held try may be checked. One that repeats the last wrong password does not take the place of the right one. */
  async function mayCheck(pair: string, password: string): Promise<boolean> {
    if (lastWrong.get(pair) === password) return false;
    return heldPairs.consume(pair).then(
      () => true,
      () => false,
    );
  }

  async function attempt<T>(
    { name, password, user, address }: Guess,
    known: boolean,
    check: () => Promise<T | null>,
  ): Promise<{ value: T | null } | { waitMs: number }> {
    const waitMs = await charge(name, address);
    if (waitMs === 0) {
      const value = await check();
      if (value !== null) {
        inUrgentTransaction(db, (tx) => clearTries(tx, name));
        await addresses.reward(counterOf(address));
      }
      return { value };
    }
    if (user && (known || isLastAdmin(db, user))) {
      const pair = `${address} ${user.id}`;
      const digest = digestOf(password).toString('hex');
      if (await mayCheck(pair, digest)) {
        const value = await check();
        if (value !== null) {
          await heldPairs.delete(pair);
          return { value };
        }
        lastWrong.set(pair, digest);
        if (lastWrong.size > heldMax) lastWrong.delete(lastWrong.keys().next().value as string);
      }
    }
    return { waitMs };
  }

  return {
    async guarded(guess, check) {
      const answerAt = performance.now() + heldMs;
      const known = guess.user !== undefined && hasSessionAt(db, guess.user.id, guess.address);
      const asker = { key: known ? `${guess.address} ${guess.user?.id}` : guess.address, known };
      const outcome = await hashInTurn(asker, () => attempt(guess, known, check));
      if ('value' in outcome) return outcome.value;
      if (held < heldMax) {
        held += 1;
        await setTimeout(Math.max(0, answerAt - performance.now()));
        held -= 1;
      }
      throw new ApiError(
        'RATE_LIMITED',
        `Too many failed logins with this name or from this address. Try again in ${seconds(outcome.waitMs)}` +
          `${outcome.waitMs > 5000 ? ', or in 5 seconds from an address where you are logged in already' : ''}.`,
        outcome.waitMs,
      );
    },

    async countRefresh(by) {
      try {
        if ('familyId' in by) await sessions.consume(by.familyId);
        else await wrongTokens.consume(counterOf(by.address));
      } catch (rejected) {
        const waitMs = Math.max(1, (rejected as RateLimiterRes).msBeforeNext);
        const what = 'familyId' in by ? 'This session was refreshed too often' : 'Too many wrong refresh tokens came from this address';
        throw new ApiError('RATE_LIMITED', `${what}. Try again in ${seconds(waitMs)}.`, waitMs);
      }
    },
  };
}

/**
 * Counts a try of a name and gives 0; while the name is delayed it is not counted, and the rest of the delay is given, in milliseconds.
 * The delay starts at the fifth failure and doubles up to 15 minutes. It survives a restart.
 */
export function countTry(db: Db, name: string): number {
  const nameHash = nameKeyOf(name);
  return inUrgentTransaction(db, (tx) => {
    const now = Date.now();
    const row = tx.select().from(loginThrottle).where(eq(loginThrottle.nameHash, nameHash)).get();
    // A clock that was set back must not make a delay longer than the longest.
    const waitMs = Math.min((row?.notBefore ?? 0) - now, longestDelayMs);
    if (waitMs > 0) return waitMs;
    const failures = (row?.failures ?? 0) + 1;
    const delayMs = failures <= freeFailures ? 0 : Math.min(firstDelayMs * 2 ** (failures - freeFailures - 1), longestDelayMs);
    const values = { failures, notBefore: now + delayMs };
    tx.insert(loginThrottle)
      .values({ nameHash, ...values })
      .onConflictDoUpdate({ target: loginThrottle.nameHash, set: values })
      .run();
    if (!row) forgetOldest(tx);
    return 0;
  });
}

/** Forgets the failures of a name: its password was right, or an administrator set a new one. */
export function clearTries(tx: Queryable, name: string): void {
  tx.delete(loginThrottle)
    .where(eq(loginThrottle.nameHash, nameKeyOf(name)))
    .run();
}

/** Whether this is an administrator while every other one is delayed: then nobody else could help. */
function isLastAdmin(db: Queryable, one: User): boolean {
  if (one.role !== 'ADMIN' || one.disabledAt !== null) return false;
  const others = db
    .select({ name: user.name })
    .from(user)
    .where(and(eq(user.role, 'ADMIN'), isNull(user.disabledAt), ne(user.id, one.id)))
    .all();
  const now = Date.now();
  return others.every(({ name }) => {
    const row = db
      .select()
      .from(loginThrottle)
      .where(eq(loginThrottle.nameHash, nameKeyOf(name)))
      .get();
    return row !== undefined && row.notBefore > now;
  });
}

function forgetOldest(tx: Queryable): void {
  const { n } = tx.select({ n: count() }).from(loginThrottle).get() ?? { n: 0 };
  if (n <= namesMax) return;
  tx.run(sql`DELETE FROM ${loginThrottle} WHERE ${loginThrottle.nameHash} IN (
    SELECT ${loginThrottle.nameHash} FROM ${loginThrottle} ORDER BY ${loginThrottle.notBefore} LIMIT ${namesMax / 10})`);
}

function seconds(ms: number): string {
  const count = Math.ceil(ms / 1000);
  return `${count} ${count === 1 ? 'second' : 'seconds'}`;
}
