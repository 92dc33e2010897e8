import { randomBytes } from 'node:crypto';
import argon2 from 'argon2';
import { z } from 'zod';
import { ApiError } from '../errors.ts';

/** OWASP's argon2id parameters (Password Storage Cheat Sheet): 37 CPU-ms a hash, where argon2's defaults cost 212. */
const parameters = { type: argon2.argon2id, memoryCost: 19_456, timeCost: 2, parallelism: 1 } as const;

/** Hashing runs on the thread pool that the file system uses too (4 threads). */
const hashesAtOnce = 2;
let inFlight = 0;

export const Password = z.string().min(12, 'A password has at least 12 characters.').max(128, 'A password has at most 128 characters.');

/** RATE_LIMITED while as many hashes are being computed as may be. Who asks this first is not charged for a try that cannot be made. */
export function requireFreeHash(): void {
  if (inFlight >= hashesAtOnce) throw new ApiError('RATE_LIMITED', 'Too many logins at this moment. Try again in a second.', 1000);
}

async function limited<T>(hash: () => Promise<T>): Promise<T> {
  requireFreeHash();
  inFlight += 1;
  try {
    return await hash();
  } finally {
    inFlight -= 1;
  }
}

/** The argon2id hash of `password` in PHC string format; RATE_LIMITED when two hashes are being computed already. */
export function hashPassword(password: string): Promise<string> {
  return limited(() => argon2.hash(password, parameters));
}

/** A hash that no password has, so that a login of an unknown user costs as much as one of a known user. */
const nobodysHash = await argon2.hash(randomBytes(32), parameters);

/** Whether `password` is the one of `hash`; exactly one hash is computed whether there is such a user or not (undefined). */
export async function verifyPassword(hash: string | undefined, password: string): Promise<boolean> {
  const right = await limited(() => argon2.verify(hash ?? nobodysHash, password));
  return right && hash !== undefined;
}
