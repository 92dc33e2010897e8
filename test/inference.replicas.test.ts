/** Inference hosts by themselves, which get the accounts of a server: what is given and taken there is decided in their process. */
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseHostConfig } from '../src/inference/config.ts';
import { eventually } from './support/eventually.ts';
import { call, inferJson, metric, type Settings, withModelFiles } from './support/inference.ts';
import { type Child, withChild, withServerProcess } from './support/process.ts';
import { adminName, adminPassword, client, type TestServer, withFolder, withServer } from './support/server.ts';
import { send } from './support/storage.ts';
import { type Api, mutate } from './support/training.ts';

const token = 'r'.repeat(32);
const tokenEnv = { WHETSTONE_REPLICA_TOKEN: token };

let folder = '';
let settings: Settings;
beforeAll(async () => {
  const models = ['one', 'two'].map((name) => ({ name, model: 'identity', deadlineMs: 30_000 }));
  ({ folder, settings } = await withModelFiles({ models }));
});
afterAll(() => rmSync(folder, { recursive: true }));

function configFile(serverUrl: string): string {
  const file = join(folder, 'models.json');
  writeFileSync(file, JSON.stringify({ ...settings, accounts: { url: serverUrl } }));
  return file;
}

/** A host process that asks the server at this address; `use` runs when it listens, ready or not. */
const withReplica = (serverUrl: string, env: Record<string, string>, use: (replica: Child & { url: string }) => Promise<void>) =>
  withChild(['src/inference/main.ts', '--config', configFile(serverUrl)], env, async (child) => {
    const listening = await child.line((line) => line.includes('"inference host is listening"'));
    await use({ ...child, url: JSON.parse(listening).url });
  });

const statusOf = async (url: string, secret: string, model = 'one') => {
  const inputs = [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }];
  return (await inferJson(url, model, { inputs }, { headers: { authorization: `Bearer ${secret}` } })).status;
};
const isReady = (url: string) => eventually(async () => expect((await call(`${url}/v2/health/ready`)).status).toBe(200));
const ageOf = (url: string) => metric(url, 'whetstone_inference_accounts_age_seconds');
const refusals = (url: string, status: number) => metric(url, `whetstone_inference_auth_refusals_total{status="${status}"}`);
const linesWith = ({ lines }: Child, text: string) => lines.filter((line) => line.includes(text));

const makeKey = async (api: Api, deployments?: string[]) => {
  const { secret, apiKey } = await mutate(api, 'createApiKey', { name: 'camera', deployments }, 'apiKey { id } secret');
  return { secret: secret as string, id: apiKey.id as string };
};
const revoke = (api: Api, { id }: { id: string }) => mutate(api, 'revokeApiKey', { apiKeyId: id }, 'apiKey { id }');

test('a replica follows the server, serves on while the server is gone, and follows the next one', () =>
  withFolder(async (dataDir) => {
    const env = { WHETSTONE_DATA_DIR: dataDir, ...tokenEnv };
    await withServerProcess(env, async (server) => {
      const admin = { url: server.url, token: await client({ url: server.url } as TestServer, dataDir).admin() };
      const [key, revoked] = [await makeKey(admin, ['one']), await makeKey(admin)];
      await withReplica(`${server.url}/`, tokenEnv, async (replica) => {
        const { url } = replica;
        await isReady(url);
        expect([await statusOf(url, key.secret), await statusOf(url, revoked.secret), await statusOf(url, admin.token)]).toEqual([
          200, 200, 200,
        ]);
        expect([await statusOf(url, 'wsk_wrong'), await statusOf(url, key.secret, 'two'), await statusOf(url, token)]).toEqual([
          401, 403, 401,
        ]);
        expect([await refusals(url, 401), await refusals(url, 403)]).toEqual([2, 1]);

        const used = async () =>
          (await client({ url: server.url } as TestServer, dataDir).graphql('{ apiKeys { nodes { id lastUsedAt } } }', {}, admin.token))
            .data.apiKeys.nodes;
        await eventually(async () => {
          for (const { id } of [key, revoked]) expect(await used()).toContainEqual({ id, lastUsedAt: expect.any(String) });
        });

        await revoke(admin, revoked);
        await eventually(async () => expect(await statusOf(url, revoked.secret)).toBe(401));
        expect(await statusOf(url, key.secret)).toBe(200);

        server.kill('SIGKILL');
        await server.exit;
        const age = await ageOf(url);
        await eventually(async () => expect(await ageOf(url)).toBeGreaterThan(age + 2));
        expect([await statusOf(url, key.secret), await statusOf(url, revoked.secret)]).toEqual([200, 401]);
        await isReady(url);
        expect(linesWith(replica, 'cannot be fetched')).toEqual([expect.stringContaining('The server cannot be reached.')]);

        await withServerProcess({ ...env, WHETSTONE_PORT: new URL(server.url).port }, async (next) => {
          const { accessToken } = await client({ url: next.url } as TestServer, dataDir).login(adminName, adminPassword);
          await revoke({ url: next.url, token: accessToken }, key);
          await eventually(async () => expect(await statusOf(url, key.secret)).toBe(401));
          await eventually(async () => expect(await ageOf(url)).toBeLessThan(age + 2));
          expect(linesWith(replica, 'the accounts are fetched again')).toHaveLength(1);
        });
        replica.kill('SIGTERM');
        expect(await replica.exit).toEqual({ code: 0, signal: null });
        expect([...linesWith(server, token), ...linesWith(replica, token)]).toEqual([]);
      });
    });
  }));

test('with a wrong token a replica is not ready, lets nobody in, and says why', () =>
  withServer(async (server) => {
    const key = await makeKey({ url: server.url, token: await server.as('ENGINEER') });
    await withReplica(server.url, { WHETSTONE_REPLICA_TOKEN: 'w'.repeat(32) }, async (replica) => {
      const { url } = replica;
      await replica.line((line) => line.includes('The server has another WHETSTONE_REPLICA_TOKEN.'));
      await replica.line((line) => line.includes('"model":"two"') && line.includes('model is warm'));
      const statuses = await Promise.all(['/v2/health/ready', '/v2/health/live', '/v2/models/one'].map((path) => call(url + path)));
      expect(statuses.map(({ status }) => status)).toEqual([503, 200, 503]);
      expect([await statusOf(url, key.secret), await ageOf(url)]).toEqual([503, Number.NaN]);
      replica.kill('SIGTERM');
      expect(await replica.exit).toEqual({ code: 0, signal: null });
      expect(linesWith(replica, 'cannot be fetched')).toHaveLength(1);
      expect(linesWith(replica, 'inference host is ready')).toEqual([]);
    });
  }, tokenEnv));

test('a server without the setting is 404 to everybody, and its replica says why it is not ready', () =>
  withServer(async (server) => {
    const address = `${server.url}/inference/accounts`;
    for (const secret of [undefined, token, await server.admin()]) {
      const { status, json } = await send({ method: 'GET', address, token: secret });
      expect([status, json.errors[0].extensions.code]).toEqual([404, 'NOT_FOUND']);
    }
    await withReplica(server.url, tokenEnv, async (replica) => {
      await replica.line((line) => line.includes('The server was started without WHETSTONE_REPLICA_TOKEN'));
      expect((await call(`${replica.url}/v2/health/ready`)).status).toBe(503);
    });
  }));

test('the server shows its accounts to its token only, which opens nothing else, and tells when they have changed', () =>
  withServer(async (server) => {
    const ask = (secret?: string, etag?: string, method = 'GET') =>
      send({ method, address: `${server.url}/inference/accounts`, token: secret, headers: etag ? { 'if-none-match': etag } : {} });
    const admin = { url: server.url, token: await server.admin() };
    const key = await makeKey(admin);
    for (const secret of [undefined, admin.token, key.secret, `${token}r`, token.slice(1), token.toUpperCase()]) {
      const { status, json, headers } = await ask(secret);
      expect([status, json.errors[0].extensions.code, headers['www-authenticate']]).toEqual([401, 'UNAUTHENTICATED', 'Bearer']);
    }
    expect((await send({ method: 'GET', address: `${server.url}/uploads`, token })).status).toBe(401);
    expect((await ask(token, undefined, 'POST')).status).toBe(405);

    const { status, json, headers } = await ask(token);
    expect([status, json.apiKeys.length, headers.etag]).toEqual([200, 1, expect.stringMatching(/^"[0-9a-f]{64}"$/)]);
    const unchanged = await ask(token, headers.etag);
    expect([unchanged.status, unchanged.text, unchanged.headers.etag]).toEqual([304, '', headers.etag]);
    await revoke(admin, key);
    const changed = await ask(token, headers.etag);
    expect([changed.status, changed.json.apiKeys]).toEqual([200, []]);
  }, tokenEnv));

test('what is no answer changes nothing, and each kind is logged once', async () => {
  const { publicKey } = generateKeyPairSync('ed25519');
  const key = { ...publicKey.export({ format: 'jwk' }), kid: 'test' };
  const good = JSON.stringify({ publicKeys: [key], users: [], keyOwners: [], endedSessions: [], apiKeys: [] });
  const strange = 'The server answers with something else than accounts.';
  const answers: [reason: string, (res: ServerResponse) => void][] = [
    [strange, (res) => res.end('<html>')],
    ['The server answers with status 500.', (res) => res.writeHead(500).end()],
    [strange, (res) => res.end(good.replace('apiKeys', 'apikeys'))],
    ['The server answers with status 302.', (res) => res.writeHead(302, { location: '/elsewhere' }).end()],
    ['The server answers with more than 16777216 bytes.', (res) => res.end(Buffer.alloc(2 ** 24 + 1, ' '))],
    ['The server cannot be reached.', () => {}],
  ];
  let asked = (res: ServerResponse): unknown => res.writeHead(200, { etag: '"good"' }).end(good);
  const seen: [string | undefined, IncomingHttpHeaders][] = [];
  const http = createServer((req, res) => {
    seen.push([req.url, req.headers]);
    asked(res);
  }).listen(0, '127.0.0.1');
  await once(http, 'listening');
  try {
    await withReplica(`http://127.0.0.1:${(http.address() as AddressInfo).port}/base`, tokenEnv, async (replica) => {
      await isReady(replica.url);
      for (const [i, [reason, answer]] of answers.entries()) {
        asked = answer;
        await eventually(() => expect(linesWith(replica, 'cannot be fetched')).toHaveLength(i + 1));
        expect(linesWith(replica, 'cannot be fetched').at(-1)).toContain(reason);
      }
      expect((await call(`${replica.url}/v2/models/one`)).status).toBe(401);
      asked = (res) => res.writeHead(304).end();
      await replica.line((line) => line.includes('the accounts are fetched again'));
      expect(linesWith(replica, key.x as string)).toEqual([]);
      expect(new Set(seen.map(([url, { authorization }]) => `${url} ${authorization}`))).toEqual(
        new Set([`/base/inference/accounts Bearer ${token}`]),
      );
      expect(seen.map(([, headers]) => headers['if-none-match']).slice(0, 2)).toEqual([undefined, '"good"']);
    });
  } finally {
    http.close();
    http.closeAllConnections();
  }
});

test.each([{}, { WHETSTONE_REPLICA_TOKEN: 'short' }])('accounts with %o end the process with one line about the variable', (env) =>
  withChild(['src/inference/main.ts', '--config', configFile('http://127.0.0.1:8080')], env as Record<string, string>, async (child) => {
    expect(await child.exit).toEqual({ code: 1, signal: null });
    expect(child.lines).toEqual([expect.stringContaining('configuration'), expect.stringContaining('WHETSTONE_REPLICA_TOKEN')]);
  }),
);

test.each([
  { url: 'http://127.0.0.1:8080', token },
  { url: 'ftp://127.0.0.1' },
  { url: 'http://ada:secret@127.0.0.1' },
  { url: 'http://127.0.0.1/?a=b' },
  {},
])('accounts of the file: %o is refused', (accounts) => {
  expect(() => parseHostConfig({ accounts }, '/')).toThrow(/^The configuration of the inference host is wrong\.\naccounts/);
});
