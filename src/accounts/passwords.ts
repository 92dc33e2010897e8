import { randomBytes } from 'node:crypto';
import argon2 from 'argon2';
import { z } from 'zod';
import { ApiError } from '../errors.ts';

/** OWASP's argon2id parameters (Password Storage Cheat Sheet): 37 CPU-ms a hash, where argon2's defaults cost 212. */
const parameters = { type: argon2.argon2id, memoryCost: 19_456, timeCost: 2, parallelism: 1 } as const;

/** Hashing runs on the thread pool that the file system uses too (4 threads). */
const hashesAtOnce = 2;
/** How many wait in each of the two lines: 2.5 seconds of work. */
const waitingMax = 128;

export const Password = z.string().min(12, 'A password has at least 12 characters.').max(128, 'A password has at most 128 characters.');

/** Whose hash it is: `key` is the client's address. `known` clients have logged in from there before, and go first. */
export interface HashAsker {
  key: string;
  known: boolean;
}

interface Waiting {
  start: () => void;
  reject: (error: ApiError) => void;
}

/** Those who wait, by key. The keys take turns in the order of the map, so that many of one client delay the others by one hash each. */
type Line = Map<string, Waiting[]>;

const known: Line = new Map();
const strangers: Line = new Map();
let hashing = 0;

/**
 * Runs `work`, which computes a hash, when it is its turn. RATE_LIMITED when the line is full; then the client with the most in it loses
 * its last one, so that a flood from one address costs no other its place.
 */
export async function hashInTurn<T>(asker: HashAsker, work: () => Promise<T>): Promise<T> {
  if (hashing < hashesAtOnce) hashing += 1;
  else await waitIn(asker.known ? known : strangers, asker.key);
  try {
    return await work();
  } finally {
    startNext();
  }
}

function waitIn(line: Line, key: string): Promise<void> {
  const own = line.get(key) ?? [];
  const all = [...line.values()];
  if (all.reduce((sum, { length }) => sum + length, 0) >= waitingMax) {
    const longest = all.reduce((a, b) => (b.length > a.length ? b : a));
    if (longest.length <= own.length + 1) throw busy();
    longest.pop()?.reject(busy());
  }
  line.set(key, own);
  return new Promise((start, reject) => own.push({ start, reject }));
}

function startNext(): void {
  for (const line of [known, strangers]) {
    for (const [key, waiting] of line) {
      const next = waiting.shift() as Waiting;
      // Behind the others, if it has more.
      line.delete(key);
      if (waiting.length > 0) line.set(key, waiting);
      next.start();
      return;
    }
  }
  hashing -= 1;
}

const busy = () => new ApiError('RATE_LIMITED', 'Too many logins at this moment. Try again in 3 seconds.', 3000);

/** The argon2id hash of a new password in PHC string format. Only people who have proved who they are set one: they go first. */
export function hashPassword(password: string): Promise<string> {
  return hashInTurn({ key: 'new password', known: true }, () => argon2.hash(password, parameters));
}

/** A hash that no password has, so that a login of an unknown user costs as much as one of a known user. */
const nobodysHash = await argon2.hash(randomBytes(32), parameters);

/**
 * Whether `password` is the one of `hash`; exactly one hash is computed whether there is such a user or not (undefined). To be called in a
 * turn of `hashInTurn`.
 */
export async function verifyPassword(hash: string | undefined, password: string): Promise<boolean> {
  const right = await argon2.verify(hash ?? nobodysHash, password);
  return right && hash !== undefined;
}
