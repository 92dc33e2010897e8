/** Decides who may use a deployment: from a snapshot of the accounts that the server sends, without its database. */
import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import { z } from 'zod';
import { accessTokenVerifier, PublicKey } from '../accessTokens.ts';
import { HttpError } from './httpError.ts';

/** What the host knows of the accounts. It is small: tokens prove whose they are, so that only what has ended is listed. */
export const AuthSnapshot = z.strictObject({
  publicKeys: z.array(PublicKey).min(1).describe('Whose access tokens are valid.'),
  users: z.array(z.string()).describe('Ids of the users whose access tokens may infer.'),
  keyOwners: z.array(z.string()).describe('Ids of the users whose API keys may.'),
  endedSessions: z.array(z.string()).describe('Sessions that have ended while their last access tokens have not expired.'),
  apiKeys: z
    .array(
      z.strictObject({
        secretHash: z.string().regex(/^[0-9a-f]{64}$/),
        userId: z.string(),
        infers: z.boolean().describe('Whether it has the scope INFER.'),
        deployments: z.array(z.string()).nullable().describe('What it is for; null is everything.'),
        expiresAt: z.int().nullable().describe('Unix milliseconds; null is never.'),
      }),
    )
    .describe('Keys that are not revoked.'),
});
export type AuthSnapshot = z.infer<typeof AuthSnapshot>;

/** Names of deployments; null is all of them. */
export type Deployments = ReadonlySet<string> | null;

/** Whose key or token it is, and what it is for. `infers`: whether it is for inference at all. */
interface Caller {
  userId: string;
  /** Of an API key. */
  secretHash: string | null;
  infers: boolean;
  deployments: Deployments;
  by: 'access token' | 'API key';
}

/** A snapshot, ready to be asked. */
export interface Auth {
  users: Record<Caller['by'], ReadonlySet<string>>;
  endedSessions: ReadonlySet<string>;
  /** By the hash of the secret. */
  apiKeys: ReadonlyMap<string, Caller & { expiresAt: number | null }>;
  verify: ReturnType<typeof accessTokenVerifier>;
}

/** Throws an Error when `snapshot` is none. */
export function readAuth(snapshot: unknown): Auth {
  const { publicKeys, users, keyOwners, endedSessions, apiKeys } = AuthSnapshot.parse(snapshot);
  return {
    users: { 'access token': new Set(users), 'API key': new Set(keyOwners) },
    endedSessions: new Set(endedSessions),
    apiKeys: new Map(
      apiKeys.map(({ secretHash, deployments, ...key }) => [
        secretHash,
        { ...key, secretHash, by: 'API key', deployments: deployments && new Set(deployments) },
      ]),
    ),
    verify: accessTokenVerifier(publicKeys),
  };
}

/**
 * Of a host that knows no accounts: whoever reaches it may use it, but no page of another site in the browser of somebody who does. Such a page
 * sends its origin, or calls the host by a name of its own (DNS rebinding). Throws a HttpError (403).
 */
export function refuseForeign({ host, origin }: IncomingHttpHeaders, hostNames: readonly string[]): void {
  const nameOf = (url: string): string => URL.parse(url)?.hostname ?? '';
  if (origin !== undefined && !hostNames.includes(nameOf(origin))) {
    throw new HttpError(403, `Pages of ${origin.slice(0, 100)} may not call this host: name it in hostNames.`);
  }
  if (host === undefined) return;
  const name = nameOf(`http://${host}`);
  // Nobody else can own an address, or a name without a dot.
  const own = isIP(name) > 0 || name.startsWith('[') || (name !== '' && !name.includes('.')) || name.endsWith('.localhost');
  if (!own && !hostNames.includes(name)) {
    throw new HttpError(403, `This host is not called ${host.slice(0, 100)}: name it in hostNames.`);
  }
}

/** Far above what a token or a key needs. */
const authorizationLengthMax = 2000;

/**
 * What the bearer of this `Authorization` header may use at `now` (Unix milliseconds): an API key's deployments, or everything for the access
 * token of a user. `deployment` is what is asked for, null for a list of all. Throws a HttpError: 401 without a key or token that is valid,
 * 403 when it is not for this deployment or its user may not infer.
 */
export async function authorize(
  auth: Auth,
  authorization: string | undefined,
  deployment: string | null,
  now: number,
): Promise<Pick<Caller, 'deployments' | 'secretHash'>> {
  if (authorization === undefined) {
    throw unauthenticated('Send `Authorization: Bearer` and an API key or an access token.', 'Bearer');
  }
  const bearer = authorization.length <= authorizationLengthMax && /^Bearer (.+)$/i.exec(authorization)?.[1];
  const caller = bearer ? await callerOf(auth, bearer, now) : null;
  if (!caller) throw unauthenticated('This is no valid API key or access token: it is wrong, has expired or was revoked.');
  if (!auth.users[caller.by].has(caller.userId))
    throw forbidden(`The user whose ${caller.by} this is may not infer with it: their role does not allow it, or they are disabled.`);
  if (!caller.infers) throw forbidden('This API key does not have the scope INFER: make one that has it with createApiKey.');
  const { deployments } = caller;
  if (deployment !== null && deployments && !deployments.has(deployment)) throw forbidden('This API key is not for this deployment.');
  return caller;
}

/** The caller that a secret belongs to; null where there is none. A key is looked up by its hash, so that the time that it takes tells nothing of other keys. */
async function callerOf(auth: Auth, secret: string, now: number): Promise<Caller | null> {
  if (secret.startsWith('wsk_')) {
    const key = auth.apiKeys.get(createHash('sha256').update(secret).digest('hex'));
    return key && (key.expiresAt === null || key.expiresAt > now) ? key : null;
  }
  const claims = await auth.verify(secret, now);
  return claims && !auth.endedSessions.has(claims.familyId)
    ? { userId: claims.userId, secretHash: null, infers: true, deployments: null, by: 'access token' }
    : null;
}

// RFC 6750, section 3.
const unauthenticated = (message: string, challenge = 'Bearer error="invalid_token"'): HttpError =>
  new HttpError(401, message, { 'www-authenticate': challenge });
const forbidden = (message: string): HttpError => new HttpError(403, message, { 'www-authenticate': 'Bearer error="insufficient_scope"' });
