/** A user who asks for something, with a session or with one of their API keys: both are read from the database again at each use. */
import { createHash } from 'node:crypto';
import { and, eq, gt, isNull, or, sql } from 'drizzle-orm';
import type { AccessClaims } from '../accessTokens.ts';
import { argument, type Db, inUrgentTransaction, passingError, prepared, type Queryable } from '../db.ts';
import { ApiError } from '../errors.ts';
import type { Actor } from './audit.ts';
import { may } from './permissions.ts';
import { userOfSession } from './sessions.ts';
import { type ApiKey, apiKey, type Permission, type User, user } from './tables.ts';
import type { Tokens } from './tokens.ts';

/** What a user came with. */
export type Access = { by: 'SESSION'; familyId: string } | { by: 'API_KEY'; key: ApiKey };

/** `expiresAt`: null is never. */
export type Viewer = Access & { user: User; expiresAt: number | null };

/** What a bearer has proven with an API key, as `AccessClaims` with an access token. */
interface KeyClaims {
  userId: string;
  apiKeyId: string;
}
export type Claims = AccessClaims | KeyClaims;

/** Every secret of an API key begins with this. */
export const secretPrefix = 'wsk_';

export const secretHashOf = (secret: string): string => createHash('sha256').update(secret).digest('hex');

/** `lastUsedAt` is written at most this often, so that reads stay reads. */
const useMs = 60_000;

const liveKeyQuery = prepared((db) =>
  db
    .select({ key: apiKey, user })
    .from(apiKey)
    .innerJoin(user, eq(user.id, apiKey.userId))
    .where(
      and(
        eq(apiKey.id, argument('id', 'TEXT')),
        isNull(apiKey.revokedAt),
        or(isNull(apiKey.expiresAt), gt(apiKey.expiresAt, argument('now', 'INTEGER'))),
        isNull(user.disabledAt),
      ),
    )
    .prepare(),
);
const keyBySecret = prepared((db) =>
  db
    .select({ apiKeyId: apiKey.id, userId: apiKey.userId })
    .from(apiKey)
    .where(eq(apiKey.secretHash, sql.placeholder('secretHash')))
    .prepare(),
);

/** What this access token or API key proves; UNAUTHENTICATED for every other string. `currentViewer` says whether it still counts. */
export async function claimsOf({ db, tokens }: { db: Db; tokens: Pick<Tokens, 'verify'> }, bearer: string): Promise<Claims> {
  if (!bearer.startsWith(secretPrefix)) return tokens.verify(bearer);
  return keyBySecret(db).get({ secretHash: secretHashOf(bearer) }) ?? refuseKey();
}

/** The viewer of an access token or API key: the user is read at each request, so that a role or an access that was taken away counts at once. */
export async function authenticate(services: { db: Db; tokens: Pick<Tokens, 'verify'> }, bearer: string): Promise<Viewer> {
  return currentViewer(services.db, await claimsOf(services, bearer));
}

/** The user of these claims as the database has them now; UNAUTHENTICATED when the session has ended, or the key works no more. */
export function currentViewer(db: Db, claims: Claims): Viewer {
  const now = Date.now();
  if ('apiKeyId' in claims) {
    const { key, user } = liveKeyQuery(db).get({ id: claims.apiKeyId, now }) ?? refuseKey();
    if ((key.lastUsedAt ?? 0) <= now - useMs) noteUse(db, [key.secretHash]);
    return { user, expiresAt: key.expiresAt, by: 'API_KEY', key };
  }
  const { userId, familyId, expiresAt } = claims;
  const user = userOfSession(db, familyId);
  if (user?.id !== userId || expiresAt <= now) throw new ApiError('UNAUTHENTICATED', 'The session has ended. Log in again.');
  return { user, expiresAt, by: 'SESSION', familyId };
}

/** Whom the audit log names for what is done with these claims. */
export const actorOf = (claims: Claims | null): Pick<Actor, 'actorId' | 'apiKeyId'> =>
  claims && 'apiKeyId' in claims ? { actorId: claims.userId, apiKeyId: claims.apiKeyId } : { actorId: claims?.userId ?? null };

/** The user of a session or of an API key that works; undefined when it has ended, or the user is disabled. */
export function userOf(db: Queryable, { familyId, apiKeyId }: { familyId?: string | null; apiKeyId?: string | null }): User | undefined {
  return apiKeyId ? liveKeyQuery(db).get({ id: apiKeyId, now: Date.now() })?.user : userOfSession(db, familyId ?? '');
}

/** Notes that these keys were used. A request does not fail for it: on a full disk or a locked database the next use is noted. */
export function noteUse(db: Db, secretHashes: readonly string[]): void {
  if (secretHashes.length === 0) return;
  const lastUsedAt = Date.now();
  try {
    inUrgentTransaction(db, (tx) => {
      for (const hash of secretHashes) tx.update(apiKey).set({ lastUsedAt }).where(eq(apiKey.secretHash, hash)).run();
    });
  } catch (error) {
    if (!passingError(error)) throw error;
  }
}

/** What a person needs to try deployments, a program needs to infer: INFER, as on the inference host. */
const neededBy = ({ by }: Viewer, permission: Permission): Permission =>
  by === 'API_KEY' && permission === 'TRY_DEPLOYMENTS' ? 'INFER' : permission;

/** Whether the viewer's role allows it, and their API key, if they came with one. */
export function allows(viewer: Viewer, permission: Permission): boolean {
  const needed = neededBy(viewer, permission);
  return may(viewer.user.role, needed) && (viewer.by === 'SESSION' || viewer.key.scopesJson.includes(needed));
}

/** Why a viewer may not do what needs this permission; null is what needs a session. */
export function forbidden(viewer: Viewer, permission: Permission | null): ApiError {
  if (permission === null) return new ApiError('FORBIDDEN', 'An API key does not allow this: log in.');
  const needed = neededBy(viewer, permission);
  const { role } = viewer.user;
  if (may(role, needed) && viewer.by === 'API_KEY') {
    return new ApiError('FORBIDDEN', `This API key does not have the scope ${needed}: make one that has it with createApiKey.`);
  }
  const whose = viewer.by === 'SESSION' ? '' : ', which the owner of this API key has,';
  return new ApiError('FORBIDDEN', `The role ${role}${whose} does not allow this: it needs ${needed}.`);
}

function refuseKey(): never {
  throw new ApiError('UNAUTHENTICATED', 'The API key is wrong, has expired or was revoked, or its owner is disabled.');
}
