import { randomBytes, randomUUIDv7 } from 'node:crypto';
import { and, count, desc, eq, gt, isNull, lt, or } from 'drizzle-orm';
import { z } from 'zod';
import type { Bus } from '../bus.ts';
import type { Config } from '../config.ts';
import { type Db, inTransaction, inUrgentTransaction, type Queryable } from '../db.ts';
import { findDeploymentByName, whyNoDeployment } from '../deployments/deployments.ts';
import { notFound, parseInput, refuse } from '../errors.ts';
import { AddressName } from '../naming.ts';
import { type Actor, writeAudit } from './audit.ts';
import { may } from './permissions.ts';
import { type ApiKey, apiKey, permissionNames, type User } from './tables.ts';
import { secretHashOf, secretPrefix } from './viewer.ts';

/** Keys of one user that work at the same time. */
const liveKeysMax = 50;

const CreateApiKeyInput = z.object({
  name: z
    .string()
    .trim()
    .min(1, 'A key needs a name: what uses it, for example.')
    .max(100, 'The name of a key has at most 100 characters.'),
  scopes: z
    .array(z.enum(permissionNames))
    .min(1, 'A key needs a scope, or no list: then it has INFER alone.')
    .refine(
      (scopes) => !scopes.includes('TRY_DEPLOYMENTS'),
      'TRY_DEPLOYMENTS is for people: the scope with which a program infers is INFER.',
    )
    .transform((scopes) => permissionNames.filter((name) => scopes.includes(name)))
    .nullish(),
  deployments: z
    .array(AddressName)
    .min(1, 'Name a deployment, or leave the list out for all of them.')
    .max(100, 'A key is for at most 100 deployments, or, without the list, for all of them.')
    .transform((names) => [...new Set(names)].sort())
    .nullish(),
  expiresInDays: z.int().min(1, 'A key works for at least a day.').max(3650, 'A key with an end works for at most 3650 days.').nullish(),
});

export function findApiKey(db: Queryable, id: string): ApiKey | undefined {
  return db.select().from(apiKey).where(eq(apiKey.id, id)).get();
}

/** Newest first, behind the key with the id `after`; of one user, or everybody's. Ids are UUIDv7: they grow with the time of creation. */
export function listApiKeys(db: Queryable, userId: string | null, limit: number, after: string | null): ApiKey[] {
  return db
    .select()
    .from(apiKey)
    .where(and(userId === null ? undefined : eq(apiKey.userId, userId), after === null ? undefined : lt(apiKey.id, after)))
    .orderBy(desc(apiKey.id))
    .limit(limit)
    .all();
}

/** Makes a key of `owner`. `secret` is shown this once: the database keeps its hash. */
export function createApiKey(
  { db, config }: { db: Db; config: Pick<Config, 'replicaToken'> },
  actor: Actor,
  owner: User,
  raw: unknown,
): { row: ApiKey; secret: string } {
  const { name, scopes, deployments = null, expiresInDays } = parseInput(CreateApiKeyInput, raw);
  const scopesJson = scopes ?? ['INFER' as const];
  const beyond = scopesJson.find((scope) => !may(owner.role, scope));
  if (beyond) {
    const possible = permissionNames.filter((name) => name !== 'TRY_DEPLOYMENTS' && may(owner.role, name)).join(', ');
    refuse('INVALID', 'scopes', `Your role ${owner.role} does not have ${beyond}. A key of yours can have: ${possible}.`);
  }
  // Replicas have names of their own, which nobody tells the server.
  if (deployments && config.replicaToken === undefined) requireDeployments(db, deployments);
  const prefix = randomBytes(4).toString('hex');
  const secret = `${secretPrefix}${prefix}_${randomBytes(32).toString('base64url')}`;
  const now = Date.now();
  const row = inTransaction(db, (tx) => {
    const live = and(eq(apiKey.userId, owner.id), isNull(apiKey.revokedAt), or(isNull(apiKey.expiresAt), gt(apiKey.expiresAt, now)));
    const { n } = tx.select({ n: count() }).from(apiKey).where(live).get() ?? { n: 0 };
    if (n >= liveKeysMax) refuse('INVALID', null, `You have ${liveKeysMax} keys that work: revoke one first.`);
    const row = tx
      .insert(apiKey)
      .values({
        id: randomUUIDv7(),
        userId: owner.id,
        name,
        prefix,
        secretHash: secretHashOf(secret),
        scopesJson,
        deploymentsJson: deployments,
        createdAt: now,
        expiresAt: expiresInDays ? now + expiresInDays * 86_400_000 : null,
      })
      .returning()
      .get();
    const detail = { name, prefix, scopes: scopesJson, deployments };
    writeAudit(tx, actor, { action: 'createApiKey', target: { type: 'ApiKey', id: row.id }, detail });
    return row;
  });
  return { row, secret };
}

function requireDeployments(db: Queryable, names: readonly string[]): void {
  const unknown = names.find((name) => !findDeploymentByName(db, name));
  if (unknown !== undefined) refuse('NOT_FOUND', 'deployments', `${whyNoDeployment(db, unknown)} Deploy it first.`);
}

/** Ends a key and what its programs have open; one that was revoked before stays as it is. */
export function revokeApiKey({ db, bus }: { db: Db; bus: Bus }, actor: Actor, id: string): ApiKey {
  const after = inUrgentTransaction(db, (tx) => {
    const before = findApiKey(tx, id) ?? notFound('API key');
    if (before.revokedAt !== null) return before;
    writeAudit(tx, actor, { action: 'revokeApiKey', target: { type: 'ApiKey', id }, detail: { name: before.name, prefix: before.prefix } });
    return tx.update(apiKey).set({ revokedAt: Date.now() }).where(eq(apiKey.id, id)).returning().get();
  });
  bus.wake('accessChanged', after.userId);
  return after;
}
