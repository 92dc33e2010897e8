import { createHmac, createPrivateKey, createPublicKey, generateKeyPairSync, sign as signBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type JWTPayload, SignJWT } from 'jose';

export const decode = (part: string | undefined) => JSON.parse(Buffer.from(part ?? '', 'base64url').toString());
const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
const keyOf = (dataDir: string) => createPrivateKey(readFileSync(join(dataDir, 'signing-key.pem')));

/** A valid token: its parts, and a function that signs changed claims with the server's own key. */
export interface Forge {
  header: { kid: string };
  payload: JWTPayload;
  signature: string;
  dataDir: string;
  sign(claims: object, header?: object): Promise<string>;
}

/** Tokens that nobody may accept, whatever the database says. */
export const forgeries: Record<string, (forge: Forge) => string | Promise<string>> = {
  'no signature (alg none)': ({ header, payload }) => `${encode({ ...header, alg: 'none' })}.${encode(payload)}.`,
  'HS256 with the public key in PEM as its secret': ({ header, payload, dataDir }) => {
    const secret = createPublicKey(keyOf(dataDir)).export({ type: 'spki', format: 'pem' });
    const body = `${encode({ ...header, alg: 'HS256' })}.${encode(payload)}`;
    return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
  },
  'HS256 with the raw public key as its secret': ({ header, payload, dataDir }) => {
    const { x } = createPublicKey(keyOf(dataDir)).export({ format: 'jwk' });
    const body = `${encode({ ...header, alg: 'HS256' })}.${encode(payload)}`;
    return `${body}.${createHmac('sha256', Buffer.from(x as string, 'base64url'))
      .update(body)
      .digest('base64url')}`;
  },
  'an added role under the old signature': ({ header, payload, signature }) =>
    `${encode(header)}.${encode({ ...payload, role: 'ADMIN' })}.${signature}`,
  'another user under the old signature': ({ header, payload, signature }) =>
    `${encode(header)}.${encode({ ...payload, sub: '0197a0c0-0000-7000-8000-000000000000' })}.${signature}`,
  'another audience': ({ payload, sign }) => sign({ ...payload, aud: 'whetstone-inference' }),
  'no audience': ({ payload, sign }) => sign({ ...payload, aud: undefined }),
  'another issuer': ({ payload, sign }) => sign({ ...payload, iss: 'somebody' }),
  'another type': ({ payload, sign }) => sign(payload, { typ: 'JWT' }),
  'no type': ({ payload, sign }) => sign(payload, { typ: undefined }),
  'a foreign key id': ({ payload, sign }) => sign(payload, { kid: 'foreign' }),
  'no key id': ({ payload, sign }) => sign(payload, { kid: undefined }),
  'the right key id and a foreign key': ({ header, payload }) =>
    new SignJWT(payload).setProtectedHeader({ ...header, alg: 'EdDSA' }).sign(generateKeyPairSync('ed25519').privateKey),
  'a key of its own in the header': async ({ header, payload }) => {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    const jwk = publicKey.export({ format: 'jwk' });
    return new SignJWT(payload).setProtectedHeader({ ...header, alg: 'EdDSA', jwk } as never).sign(privateKey);
  },
  'an unknown critical header': ({ header, payload, dataDir }) => {
    const body = `${encode({ ...header, crit: ['unknown'], unknown: true })}.${encode(payload)}`;
    return `${body}.${signBytes(null, Buffer.from(body), keyOf(dataDir)).toString('base64url')}`;
  },
  'an expiry in the past': ({ payload, sign }) => sign({ ...payload, exp: Math.floor(Date.now() / 1000) - 1 }),
  'no expiry': ({ payload, sign }) => sign({ ...payload, exp: undefined }),
  'a start in the future': ({ payload, sign }) => sign({ ...payload, nbf: Math.floor(Date.now() / 1000) + 600 }),
  'an issue more than a minute in the future': ({ payload, sign }) => sign({ ...payload, iat: Math.floor(Date.now() / 1000) + 90 }),
  'no time of issue': ({ payload, sign }) => sign({ ...payload, iat: undefined }),
  'no session': ({ payload, sign }) => sign({ ...payload, sid: undefined }),
  'no subject': ({ payload, sign }) => sign({ ...payload, sub: undefined }),
  'something that is no token': () => 'x',
  'an empty string': () => '',
};

/** Takes a valid token of the server on `dataDir` apart. */
export function forgeOf(token: string, dataDir: string): Forge {
  const [header, payload, signature = ''] = token.split('.');
  return {
    header: decode(header),
    payload: decode(payload),
    signature,
    dataDir,
    sign: (claims, changed) =>
      new SignJWT(claims as JWTPayload)
        .setProtectedHeader(JSON.parse(JSON.stringify({ ...decode(header), ...changed })))
        .sign(keyOf(dataDir)),
  };
}
