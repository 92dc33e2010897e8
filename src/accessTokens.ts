/** What an access token is, for those who verify it: the server, and the inference host, which opens no database. */
import { createPublicKey } from 'node:crypto';
import { type JWTHeaderParameters, jwtVerify } from 'jose';
import { z } from 'zod';

export const accessTokenSeconds = 15 * 60;
export const algorithm = 'EdDSA';
export const issuer = 'whetstone';
export const audience = 'whetstone-api';
export const type = 'at+jwt'; // RFC 9068

/** With which a replica tells the server which API keys were used: the hashes of their secrets, separated by commas. */
export const keysUsedHeader = 'whetstone-keys-used';

/** Clocks of a server and its replicas may differ by this. A token from further in the future was not made by this server's clock. */
const futureMs = 60_000;

/** What an access token says: whose it is and of which login. The role is not in it: it is read from the database. */
export interface AccessClaims {
  userId: string;
  familyId: string;
  /** Unix milliseconds. */
  issuedAt: number;
  /** Unix milliseconds. */
  expiresAt: number;
}

/** An Ed25519 public key as a JSON Web Key (RFC 8037); `kid` is its thumbprint. */
export const PublicKey = z.strictObject({
  kty: z.literal('OKP'),
  crv: z.literal('Ed25519'),
  x: z.string().regex(/^[A-Za-z0-9_-]{43}$/, 'An Ed25519 public key has 32 bytes.'),
  kid: z.string().min(1).max(100),
});
export type PublicKey = z.infer<typeof PublicKey>;

/** Verified tokens are remembered: a signature check takes about as long as a whole small query. */
const rememberedMax = 1000;

/** A function that gives the claims of a token that one of these keys has signed and that is valid at `now`; null for every other string. */
export function accessTokenVerifier(publicKeys: PublicKey[]): (token: string, now: number) => Promise<AccessClaims | null> {
  const keys = new Map(publicKeys.map((jwk) => [jwk.kid, createPublicKey({ key: jwk, format: 'jwk' })]));
  const remembered = new Map<string, AccessClaims>();
  const keyOf = ({ kid }: JWTHeaderParameters) => {
    const key = keys.get(kid ?? '');
    if (!key) throw new Error('foreign key');
    return key;
  };

  return async (token, now) => {
    const known = remembered.get(token);
    if (known) return isValid(known, now) ? known : null;
    const requiredClaims = ['sub', 'sid', 'iat', 'exp', 'jti'];
    const options = { algorithms: [algorithm], issuer, audience, typ: type, requiredClaims, currentDate: new Date(now) };
    const verified = await jwtVerify(token, keyOf, options).catch(() => null);
    if (!verified) return null;
    const { sub, sid, iat, exp } = verified.payload as { sub: string; sid: string; iat: number; exp: number };
    const claims = { userId: sub, familyId: sid, issuedAt: iat * 1000, expiresAt: exp * 1000 };
    if (!isValid(claims, now)) return null;
    remembered.set(token, claims);
    if (remembered.size > rememberedMax) remembered.delete(remembered.keys().next().value as string);
    return claims;
  };
}

const isValid = ({ issuedAt, expiresAt }: AccessClaims, now: number): boolean => issuedAt <= now + futureMs && expiresAt > now;
