import { and, asc, gt, inArray, isNull, or, sql } from 'drizzle-orm';
import { type Db, prepared } from '../db.ts';
import type { AuthSnapshot } from '../inference/auth.ts';
import { accessTokenSeconds } from './accessTokens.ts';
import { permissions } from './permissions.ts';
import { apiKey, session, user } from './tables.ts';
import type { Tokens } from './tokens.ts';

/** An ended session is told of for this long: until its last access token has expired, and a minute for clocks that differ. */
const endedMs = (accessTokenSeconds + 60) * 1000;

const usersQuery = prepared((db) =>
  db
    .select({ id: user.id })
    .from(user)
    .where(and(inArray(user.role, [...permissions.INFER]), isNull(user.disabledAt)))
    .orderBy(asc(user.id))
    .prepare(),
);
const endedQuery = prepared((db) =>
  db
    .selectDistinct({ familyId: session.familyId })
    .from(session)
    .where(gt(session.revokedAt, sql.placeholder('since')))
    .orderBy(asc(session.familyId))
    .prepare(),
);
const apiKeysQuery = prepared((db) =>
  db
    .select({ secretHash: apiKey.secretHash, userId: apiKey.userId, deployments: apiKey.deploymentsJson, expiresAt: apiKey.expiresAt })
    .from(apiKey)
    .where(and(isNull(apiKey.revokedAt), or(isNull(apiKey.expiresAt), gt(apiKey.expiresAt, sql.placeholder('now')))))
    .orderBy(asc(apiKey.id))
    .prepare(),
);

/**
 * What the inference host has to know of the accounts at this moment. It changes only when somebody's access does (a login changes
 * nothing), so that the same text need not be sent again. Nothing is awaited between its queries: they see one state.
 */
export function authSnapshot({ db, tokens }: { db: Db; tokens: Pick<Tokens, 'publicKey'> }): AuthSnapshot {
  const now = Date.now();
  return {
    publicKeys: [tokens.publicKey],
    users: usersQuery(db)
      .all()
      .map(({ id }) => id),
    endedSessions: endedQuery(db)
      .all({ since: now - endedMs })
      .map(({ familyId }) => familyId),
    apiKeys: apiKeysQuery(db).all({ now }),
  };
}
