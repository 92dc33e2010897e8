import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { calculateJwkThumbprint, exportJWK, type JWTHeaderParameters, jwtVerify, SignJWT } from 'jose';
import type { Config } from '../config.ts';
import { ApiError } from '../errors.ts';

export const accessTokenSeconds = 15 * 60;

const algorithm = 'EdDSA';
const issuer = 'whetstone';
const audience = 'whetstone-api';
const type = 'at+jwt'; // RFC 9068

/** What an access token says: whose it is and of which login. The role is not in it: it is read from the database. */
export interface AccessClaims {
  userId: string;
  familyId: string;
  expiresAt: number;
}

export interface Tokens {
  sign(userId: string, familyId: string): Promise<string>;
  /** The claims of a valid token; UNAUTHENTICATED for every other string. */
  verify(token: string): Promise<AccessClaims>;
}

/** Verified tokens are remembered: a signature check takes about as long as a whole small query. */
const rememberedMax = 1000;

export async function createTokens(config: Pick<Config, 'dataDir' | 'signingKeyFile'>): Promise<Tokens> {
  const key = readSigningKey(config);
  const publicKey: KeyObject = createPublicKey(key);
  const kid = await calculateJwkThumbprint(await exportJWK(publicKey));
  const remembered = new Map<string, AccessClaims>();

  return {
    sign(userId, familyId) {
      return new SignJWT({ sid: familyId })
        .setProtectedHeader({ alg: algorithm, typ: type, kid })
        .setSubject(userId)
        .setIssuer(issuer)
        .setAudience(audience)
        .setJti(crypto.randomUUID())
        .setIssuedAt()
        .setExpirationTime(`${accessTokenSeconds} s`)
        .sign(key);
    },
    async verify(token) {
      const known = remembered.get(token);
      if (known && known.expiresAt > Date.now()) return known;
      const options = { algorithms: [algorithm], issuer, audience, typ: type, requiredClaims: ['sub', 'sid', 'exp', 'jti'] };
      const verified = await jwtVerify(
        token,
        (header: JWTHeaderParameters) => {
          if (header.kid !== kid) throw new Error('foreign key');
          return publicKey;
        },
        options,
      ).catch(() => {
        throw new ApiError('UNAUTHENTICATED', 'The access token is invalid or expired. Refresh it, or log in again.');
      });
      const { sub, sid, exp } = verified.payload as { sub: string; sid: string; exp: number };
      const claims = { userId: sub, familyId: sid, expiresAt: exp * 1000 };
      remembered.set(token, claims);
      if (remembered.size > rememberedMax) remembered.delete(remembered.keys().next().value as string);
      return claims;
    },
  };
}

/** The configured key; without one (never in production) the data folder's own, made at first use. */
function readSigningKey({ dataDir, signingKeyFile }: Pick<Config, 'dataDir' | 'signingKeyFile'>): KeyObject {
  const path = signingKeyFile ?? join(dataDir, 'signing-key.pem');
  if (!signingKeyFile && !existsSync(path)) {
    const { privateKey } = generateKeyPairSync('ed25519');
    writePrivateFile(path, privateKey.export({ type: 'pkcs8', format: 'pem' }) as string);
  }
  try {
    const key = createPrivateKey(readFileSync(path));
    if (key.asymmetricKeyType === 'ed25519') return key;
  } catch {
    // Falls through to the refusal, which names no path.
  }
  const file = signingKeyFile ? 'The file of WHETSTONE_SIGNING_KEY_FILE' : '`signing-key.pem` in the data folder';
  throw new Error(`${file} is not an Ed25519 private key (PKCS #8, PEM) that the server can read.`);
}

/** Writes a file that only its owner can read, whole or not at all. */
export function writePrivateFile(path: string, text: string): void {
  const part = `${path}.part`;
  rmSync(part, { force: true });
  writeFileSync(part, text, { flag: 'wx', mode: 0o600, flush: true });
  renameSync(part, path);
}
