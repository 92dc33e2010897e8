import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import Sqlite from 'better-sqlite3';
import { drizzle } from 'drizzle-orm/better-sqlite3';
import { calculateJwkThumbprint, SignJWT } from 'jose';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { accessTokenSeconds, PublicKey } from '../src/accessTokens.ts';
import { authSnapshot } from '../src/accounts/authSnapshot.ts';
import type { Role } from '../src/accounts/tables.ts';
import { createTokens, type Tokens } from '../src/accounts/tokens.ts';
import { secretHashOf } from '../src/accounts/viewer.ts';
import type { Db } from '../src/db.ts';
import type { RunningHost } from '../src/inference/host.ts';
import { forgeOf, forgeries } from './support/forgedTokens.ts';
import { call, inferJson, python, withHost } from './support/inference.ts';
import { adminPassword, type TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';

/* A server with its accounts beside a host that gets snapshots of its database: what happens in the one is decided in the other. */

let server: TestServer;
// A server with replicas makes keys for names that it does not deploy itself.
withSharedServer(
  (running) => {
    server = running;
  },
  { WHETSTONE_REPLICA_TOKEN: 'r'.repeat(32) },
);
let host: RunningHost;
withHost(
  {
    models: [
      { name: 'one', model: 'identity' },
      { name: 'two', model: 'identity' },
    ],
  },
  (running) => {
    host = running;
  },
);

let db: Db;
let tokens: Tokens;
beforeAll(async () => {
  db = drizzle(new Sqlite(join(server.dataDir, 'whetstone.db'), { readonly: true }));
  tokens = await createTokens({ dataDir: server.dataDir, signingKeyFile: undefined });
});
afterAll(() => {
  db.$client.close();
});

const snapshot = () => authSnapshot({ db, tokens });
/** What the server sends, as it arrives in another process. */
const tellHost = () => host.replaceAuth(JSON.parse(JSON.stringify(snapshot())));
beforeEach(tellHost);
afterEach(() => {
  vi.useRealTimers();
});
const later = (ms: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + ms });

const bearer = (secret: string) => ({ headers: { authorization: `Bearer ${secret}` } });
const answerTo = (secret: string, deployment = 'one') => call(`${host.url}/v2/models/${deployment}`, bearer(secret));
const statusOf = async (secret: string, deployment?: string) => (await answerTo(secret, deployment)).status;

async function mutate(name: string, input: object, token: string) {
  const type = `${name[0]?.toUpperCase()}${name.slice(1)}Input`;
  const result = { createApiKey: 'apiKey { id } secret', revokeApiKey: 'apiKey { id }', logout: '' }[name] ?? 'user { id }';
  const query = `mutation ($i: ${type}!) { ${name}(input: $i) { ${result} userErrors { message } } }`;
  const { data, errors } = await server.graphql(query, { i: input }, token);
  expect(errors ?? data[name].userErrors).toEqual([]);
  return data[name];
}

/** A key of the user `engineer`, or of who has `token`. */
async function makeKey(input: object = {}, token?: string): Promise<{ secret: string; id: string }> {
  const { secret, apiKey } = await mutate('createApiKey', { name: 'camera', ...input }, token ?? (await server.as('ENGINEER')));
  tellHost();
  return { secret, id: apiKey.id };
}

let users = 0;
/** A user of their own for a test that takes something away from them. */
async function makeUser(role: Role) {
  users += 1;
  const name = `user${users}`;
  const { user } = await mutate('createUser', { name, role, password: adminPassword }, await server.admin());
  const credentials = await server.login(name, adminPassword);
  tellHost();
  const change = async (mutation: string, input: object) => {
    await mutate(mutation, { userId: user.id, ...input }, await server.admin());
    tellHost();
  };
  return { id: user.id as string, token: credentials.accessToken, refreshToken: credentials.refreshToken, change };
}

/** What it infers with a key, and the statuses of what it raises without one and for a deployment that the key is not for. */
const tritonScript = `
import json, sys
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1])
x = triton.InferInput("x", [1, 4], "FP32").set_data_from_numpy(np.ones((1, 4), np.float32))
key = {"Authorization": f"Bearer {sys.argv[2]}"}

def status(name, headers):
    try:
        client.infer(name, [x], headers=headers)
    except InferenceServerException as error:
        return error.status()

print(json.dumps([client.infer("one", [x], headers=key).as_numpy("y").tolist(), status("one", {}), status("two", key)]))
`;

describe('what needs a key', () => {
  const inputs = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }] };

  test.each(['/v2', '/v2/health/live', '/v2/health/ready', '/metrics'])('%s is for everybody', async (path) => {
    expect((await call(host.url + path)).status).toBe(200);
    expect((await call(host.url + path, bearer('wsk_wrong'))).status).toBe(200);
  });

  test.each([
    ['GET', '/v2/models/one'],
    ['GET', '/v2/models/one/ready'],
    ['GET', '/v2/models/one/versions/1/config'],
    ['GET', '/v2/models/one/stats'],
    ['POST', '/v2/models/one/infer'],
    ['POST', '/v2/models/one/predict'],
    ['GET', '/v2/models/stats'],
    ['POST', '/v2/repository/index'],
    ['GET', '/v2/models/nothing'],
    ['GET', '/v2/models/one/nothing'],
    ['DELETE', '/v2/models/one'],
    ['POST', '/v2/repository/models/one/load'],
    ['GET', '/v2/models'],
    ['GET', '/v2/./models/one'],
    ['GET', '/v2/models/%6Fne'],
  ])('%s %s is 401 without one, whether there is something or not', async (method, path) => {
    const { status, headers, json } = await call(host.url + path, { method });
    expect([status, headers['www-authenticate']]).toEqual([401, 'Bearer']);
    expect(json).toEqual({ error: expect.stringContaining('Authorization: Bearer') });
  });

  test('an API key and an access token infer', async () => {
    const { secret } = await makeKey();
    for (const credential of [secret, await server.as('ENGINEER'), await server.as('ADMIN')]) {
      tellHost();
      const { status, json } = await inferJson(host.url, 'one', inputs, bearer(credential));
      expect([status, json?.outputs[0].data]).toEqual([200, [1, 2, 3, 4]]);
    }
  });

  test("NVIDIA's tritonclient, unmodified, infers with a key and raises without", async () => {
    const { secret } = await makeKey({ deployments: ['one'] });
    const { stdout } = await promisify(execFile)(python, ['-P', '-c', tritonScript, new URL(host.url).host, secret]);
    expect(JSON.parse(stdout)).toEqual([[[1, 1, 1, 1]], '401', '403']);
  });

  test('what a snapshot is not changes nothing', async () => {
    const { secret } = await makeKey();
    for (const wrong of [null, {}, { ...snapshot(), publicKeys: [] }, { ...snapshot(), more: 1 }]) {
      expect(() => host.replaceAuth(wrong)).toThrow();
    }
    expect([await statusOf(secret), await statusOf('wsk_wrong')]).toEqual([200, 401]);
  });
});

describe('access tokens', () => {
  test.each(Object.entries(forgeries))('a token with %s is 401', async (_what, forgery) => {
    const token = await server.as('ENGINEER');
    tellHost();
    const forge = forgeOf(token, server.dataDir);
    expect(await statusOf(await forge.sign(forge.payload)), 'a token forged without a change is valid').toBe(200);
    const { status, headers } = await answerTo(await forgery(forge));
    expect([status, headers['www-authenticate']]).toEqual([401, 'Bearer error="invalid_token"']);
  });

  test.each(['Basic YWRhOnNlY3JldA==', 'Bearer', 'Token x', ''])('the Authorization header `%s` is 401', async (authorization) => {
    expect((await call(`${host.url}/v2/models/one`, { headers: { authorization } })).status).toBe(401);
  });

  test('a token is not looked at in a header of more than 2,000 characters, even if it is signed; 30,000 are 431', async () => {
    const forge = forgeOf(await server.as('ENGINEER'), server.dataDir);
    const padded = (length: number) => forge.sign({ ...forge.payload, padding: 'A'.repeat(length) });
    expect([await statusOf(await padded(500)), await statusOf(await padded(2000))]).toEqual([200, 401]);
    expect(await statusOf('A'.repeat(30_000))).toBe(431);
  });

  test('a viewer tries deployments with one; a key of theirs is 403 from the snapshot on that tells of the role', async () => {
    const { token, change } = await makeUser('ENGINEER');
    const { secret } = await makeKey({}, token);
    expect([await statusOf(token), await statusOf(secret)]).toEqual([200, 200]);
    await change('updateUser', { role: 'VIEWER' });
    const { status, headers } = await answerTo(secret);
    expect([status, headers['www-authenticate']]).toEqual([403, 'Bearer error="insufficient_scope"']);
    expect(await statusOf(token)).toBe(200);
    await change('updateUser', { role: 'ENGINEER' });
    expect(await statusOf(secret)).toBe(200);
  });

  test('a token ends with its session, and the other session goes on', async () => {
    const { token, refreshToken } = await makeUser('ENGINEER');
    const other = (await server.login(`user${users}`, adminPassword)).accessToken;
    expect([await statusOf(token), await statusOf(other)]).toEqual([200, 200]);
    await mutate('logout', { refreshToken }, other);
    tellHost();
    expect([await statusOf(token), await statusOf(other)]).toEqual([401, 200]);
  });

  test('a disabled user is 401', async () => {
    const { token, change } = await makeUser('ENGINEER');
    expect(await statusOf(token)).toBe(200);
    await change('disableUser', {});
    expect(await statusOf(token)).toBe(401);
  });

  test('a token ends after 15 minutes, seen before or not, also where no snapshot comes', async () => {
    const { token: seen } = await makeUser('ENGINEER');
    const unseen = (await server.login(`user${users}`, adminPassword)).accessToken;
    expect(await statusOf(seen)).toBe(200);
    later((accessTokenSeconds + 1) * 1000);
    expect([await statusOf(seen), await statusOf(unseen)]).toEqual([401, 401]);
  });

  test('while a signing key is replaced, the tokens of both are valid', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    const jwk = publicKey.export({ format: 'jwk' });
    const next = PublicKey.parse({ ...jwk, kid: await calculateJwkThumbprint(jwk) });
    const { header, payload } = forgeOf(await server.as('ENGINEER'), server.dataDir);
    const token = await new SignJWT(payload).setProtectedHeader({ ...header, alg: 'EdDSA', kid: next.kid }).sign(privateKey);
    expect(await statusOf(token)).toBe(401);
    host.replaceAuth({ ...snapshot(), publicKeys: [tokens.publicKey, next] });
    expect([await statusOf(token), await statusOf(await server.as('ENGINEER'))]).toEqual([200, 200]);
  });
});

describe('API keys', () => {
  const changes: Record<string, (secret: string) => string> = {
    'another prefix': (secret) => secret.replace(/^wsk_......../, 'wsk_00000000'),
    'no prefix': (secret) => `wsk_${secret.split('_').slice(2).join('_')}`,
    'another last character': (secret) => secret.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A')),
    'a character more': (secret) => `${secret}A`,
    'a character less': (secret) => secret.slice(0, -1),
    'capital letters': (secret) => secret.toUpperCase(),
    'its hash instead': secretHashOf,
    'its hash behind wsk_': (secret) => `wsk_${secretHashOf(secret)}`,
    'nothing behind wsk_': () => 'wsk_',
  };
  test.each(Object.entries(changes))('a key with %s is 401', async (_what, change) => {
    const { secret } = await makeKey();
    expect(await statusOf(secret)).toBe(200);
    expect(await statusOf(change(secret))).toBe(401);
  });

  test('a key without the scope INFER is 403, and the answer names the scope', async () => {
    const { secret } = await makeKey({ scopes: ['READ', 'DEPLOY'] });
    const { status, json } = await answerTo(secret);
    expect([status, json.error]).toEqual([403, expect.stringContaining('the scope INFER')]);
    const both = await makeKey({ scopes: ['READ', 'INFER'] });
    expect(await statusOf(both.secret)).toBe(200);
  });

  test('a key of some deployments is 403 for every other name, whether it is deployed or not', async () => {
    const { secret } = await makeKey({ deployments: ['one', 'coming'] });
    expect(await statusOf(secret, 'one')).toBe(200);
    const refusals = [await answerTo(secret, 'two'), await answerTo(secret, 'nothing'), await answerTo(secret, 'ONE')];
    expect(refusals.map(({ status }) => status)).toEqual([403, 403, 403]);
    expect(refusals[0]?.headers['www-authenticate']).toBe('Bearer error="insufficient_scope"');
    expect(new Set(refusals.map(({ body }) => body.toString())).size).toBe(1);
    expect(await statusOf(secret, 'coming'), 'what it is for is not there yet').toBe(404);
  });

  test('the lists show a key its own deployments only', async () => {
    const names = async (secret: string) => {
      const index = await call(`${host.url}/v2/repository/index`, { method: 'POST', ...bearer(secret) });
      const stats = await call(`${host.url}/v2/models/stats`, bearer(secret));
      return [index.json, stats.json.model_stats].map((list) => list.map(({ name }: { name: string }) => name));
    };
    expect(await names((await makeKey({ deployments: ['two'] })).secret)).toEqual([['two'], ['two']]);
    expect(await names((await makeKey()).secret)).toEqual([
      ['one', 'two'],
      ['one', 'two'],
    ]);
  });

  test('a revoked key is 401, and the others of its owner go on', async () => {
    const [key, other] = [await makeKey(), await makeKey()];
    await mutate('revokeApiKey', { apiKeyId: key.id }, await server.as('ENGINEER'));
    expect(await statusOf(key.secret), 'the host has not heard of it').toBe(200);
    tellHost();
    expect([await statusOf(key.secret), await statusOf(other.secret)]).toEqual([401, 200]);
  });

  test('a key expires, with or without a new snapshot', async () => {
    const { secret } = await makeKey({ expiresInDays: 1 });
    later(86_399_000);
    expect(await statusOf(secret)).toBe(200);
    later(2000);
    expect(await statusOf(secret)).toBe(401);
    tellHost();
    expect(await statusOf(secret)).toBe(401);
  });

  test('the keys of a disabled user do not work until the user is enabled again', async () => {
    const { token, change } = await makeUser('ENGINEER');
    const { secret } = await makeKey({}, token);
    await change('disableUser', {});
    expect(await statusOf(secret)).toBe(403);
    await change('disableUser', { disabled: false });
    expect(await statusOf(secret)).toBe(200);
  });

  test('the keys of a user who became a viewer do not work', async () => {
    const { token, change } = await makeUser('ENGINEER');
    const { secret } = await makeKey({}, token);
    await change('updateUser', { role: 'VIEWER' });
    expect(await statusOf(secret)).toBe(403);
  });
});

describe('the snapshot', () => {
  const refresh = (token: string) =>
    server.graphql('mutation ($t: String!) { refresh(input: { refreshToken: $t }) { credentials { accessToken } } }', { t: token });

  test('has no secret, and nothing that opens anything', async () => {
    const { secret } = await makeKey();
    const { token, refreshToken } = await makeUser('ENGINEER');
    const text = JSON.stringify(snapshot());
    for (const hidden of [secret, token, refreshToken]) expect(text).not.toContain(hidden);
    expect(snapshot().publicKeys).toEqual([{ kty: 'OKP', crv: 'Ed25519', x: expect.any(String), kid: expect.any(String) }]);
  });

  test('is the same text until access changes: also after a login and a refresh', async () => {
    const { refreshToken } = await makeUser('ENGINEER');
    const before = JSON.stringify(snapshot());
    await server.login(`user${users}`, adminPassword);
    await refresh(refreshToken);
    expect(JSON.stringify(snapshot())).toBe(before);
    await makeKey();
    expect(JSON.stringify(snapshot())).not.toBe(before);
  });

  test('tells of an ended session once, until its last access token has expired', async () => {
    const { token, refreshToken } = await makeUser('ENGINEER');
    const familyId = forgeOf(token, server.dataDir).payload.sid;
    const told = () => snapshot().endedSessions.filter((id) => id === familyId).length;
    await refresh(refreshToken);
    expect(told()).toBe(0);
    await mutate('logout', { refreshToken }, token);
    expect(told()).toBe(1);
    later(accessTokenSeconds * 1000);
    expect(told()).toBe(1);
    later(61_000);
    expect(told()).toBe(0);
  });
});
