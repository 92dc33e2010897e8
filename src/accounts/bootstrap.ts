import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { type Db, inUrgentTransaction, type Queryable } from '../db.ts';
import { parseInput, refuse } from '../errors.ts';
import { type Actor, writeAudit } from './audit.ts';
import { hashPassword, Password } from './passwords.ts';
import { type User, user } from './tables.ts';
import { writePrivateFile } from './tokens.ts';
import { insertUser, UserName } from './users.ts';

/** The token is valid for this long after its file was written. */
const validMs = 24 * 3600_000;

const BootstrapInput = z.object({ token: z.string().max(200), name: UserName, password: Password });

const pathOf = (dataDir: string) => join(dataDir, 'bootstrap-token');
const digest = (text: string) => createHash('sha256').update(text).digest();

function hasUsers(db: Queryable): boolean {
  return db.select({ id: user.id }).from(user).limit(1).get() !== undefined;
}

/**
 * While there is no user, writes a new bootstrap token to the file `bootstrap-token` in the data folder, readable by its owner only, and
 * returns the path; null when there is a user. A token from an earlier start is void.
 */
export function offerBootstrap(db: Db, dataDir: string): string | null {
  rmSync(pathOf(dataDir), { force: true });
  if (hasUsers(db)) return null;
  writePrivateFile(pathOf(dataDir), `${randomBytes(24).toString('base64url')}\n`);
  return pathOf(dataDir);
}

/** Makes the first administrator. The token works once; afterwards BOOTSTRAP_CLOSED. */
export async function bootstrap(deps: { db: Db; config: { dataDir: string } }, actor: Actor, raw: unknown): Promise<User> {
  const { db } = deps;
  const { dataDir } = deps.config;
  const input = parseInput(BootstrapInput, raw);
  requireOpen(db);
  requireToken(dataDir, input.token);
  const passwordHash = await hashPassword(input.password);
  const created = inUrgentTransaction(db, (tx) => {
    requireOpen(tx);
    const row = insertUser(tx, { name: input.name, passwordHash, role: 'ADMIN' });
    writeAudit(tx, { ...actor, actorId: row.id }, { action: 'bootstrap', target: { type: 'User', id: row.id } });
    return row;
  });
  rmSync(pathOf(dataDir), { force: true });
  return created;
}

function requireOpen(db: Queryable): void {
  if (hasUsers(db)) refuse('BOOTSTRAP_CLOSED', null, 'There is an administrator already: ask them for an account.');
}

function requireToken(dataDir: string, submitted: string): void {
  let token = '';
  try {
    const fresh = Date.now() - statSync(pathOf(dataDir)).mtimeMs < validMs;
    token = fresh ? readFileSync(pathOf(dataDir), 'utf8').trim() : '';
  } catch {
    // No file: no token is valid.
  }
  if (token === '' || !timingSafeEqual(digest(token), digest(submitted))) {
    refuse(
      'BOOTSTRAP_TOKEN',
      'token',
      'The bootstrap token is not the one in the file `bootstrap-token` of the data folder, or it is older than 24 hours. ' +
        'Restart the server for a new one.',
    );
  }
}
