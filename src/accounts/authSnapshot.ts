import { and, asc, gt, isNull, or, sql } from 'drizzle-orm';
import { accessTokenSeconds } from '../accessTokens.ts';
import { type Db, prepared } from '../db.ts';
import type { AuthSnapshot } from '../inference/auth.ts';
import { may } from './permissions.ts';
import { apiKey, type Permission, session, user } from './tables.ts';
import type { Tokens } from './tokens.ts';

/** How long an ended session stays in the snapshot: until its last access token has expired, and a minute for clocks that differ. */
const endedMs = (accessTokenSeconds + 60) * 1000;

const usersQuery = prepared((db) =>
  db.select({ id: user.id, role: user.role }).from(user).where(isNull(user.disabledAt)).orderBy(asc(user.id)).prepare(),
);
/** Ordered here, SQLite would walk through all sessions instead of those that have ended. */
const endedQuery = prepared((db) =>
  db
    .select({ familyId: session.familyId })
    .from(session)
    .where(gt(session.revokedAt, sql.placeholder('since')))
    .prepare(),
);
const apiKeysQuery = prepared((db) =>
  db
    .select({
      secretHash: apiKey.secretHash,
      userId: apiKey.userId,
      scopes: apiKey.scopesJson,
      deployments: apiKey.deploymentsJson,
      expiresAt: apiKey.expiresAt,
    })
    .from(apiKey)
    .where(and(isNull(apiKey.revokedAt), or(isNull(apiKey.expiresAt), gt(apiKey.expiresAt, sql.placeholder('now')))))
    .orderBy(asc(apiKey.id))
    .prepare(),
);

/**
 * What the inference host has to know of the accounts at this moment. It is the same text until access is given or taken, a key expires
 * or an ended session may leave the snapshot; a login changes nothing. So it need not be sent again each time. Nothing is awaited
 * between its queries: they see one state.
 */
export function authSnapshot({ db, tokens }: { db: Db; tokens: Pick<Tokens, 'publicKey'> }): AuthSnapshot {
  const now = Date.now();
  const ended = endedQuery(db).all({ since: now - endedMs });
  const users = usersQuery(db).all();
  const idsWith = (permission: Permission) => users.filter(({ role }) => may(role, permission)).map(({ id }) => id);
  return {
    publicKeys: [tokens.publicKey],
    users: idsWith('TRY_DEPLOYMENTS'),
    keyOwners: idsWith('INFER'),
    endedSessions: [...new Set(ended.map(({ familyId }) => familyId))].sort(),
    apiKeys: apiKeysQuery(db)
      .all({ now })
      .map(({ scopes, ...key }) => ({ ...key, infers: scopes.includes('INFER') })),
  };
}
