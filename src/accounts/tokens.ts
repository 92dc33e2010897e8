import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { calculateJwkThumbprint, SignJWT } from 'jose';
import {
  type AccessClaims,
  accessTokenSeconds,
  accessTokenVerifier,
  algorithm,
  audience,
  issuer,
  PublicKey,
  type,
} from '../accessTokens.ts';
import type { Config } from '../config.ts';
import { ApiError } from '../errors.ts';

export interface Tokens {
  /** What others verify its tokens with. */
  publicKey: PublicKey;
  sign(userId: string, familyId: string): Promise<string>;
  /** The claims of a valid token; UNAUTHENTICATED for every other string. */
  verify(token: string): Promise<AccessClaims>;
}

export async function createTokens(config: Pick<Config, 'dataDir' | 'signingKeyFile'>): Promise<Tokens> {
  const key = readSigningKey(config);
  const jwk = createPublicKey(key).export({ format: 'jwk' });
  const publicKey = PublicKey.parse({ ...jwk, kid: await calculateJwkThumbprint(jwk) });
  const verified = accessTokenVerifier([publicKey]);

  return {
    publicKey,
    sign(userId, familyId) {
      return new SignJWT({ sid: familyId })
        .setProtectedHeader({ alg: algorithm, typ: type, kid: publicKey.kid })
        .setSubject(userId)
        .setIssuer(issuer)
        .setAudience(audience)
        .setJti(crypto.randomUUID())
        .setIssuedAt()
        .setExpirationTime(`${accessTokenSeconds} s`)
        .sign(key);
    },
    async verify(token) {
      const claims = await verified(token, Date.now());
      if (!claims) throw new ApiError('UNAUTHENTICATED', 'The access token is invalid or expired. Refresh it, or log in again.');
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
