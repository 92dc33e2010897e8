import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { secretHashOf } from '../src/accounts/apiKeys.ts';
import type { Role } from '../src/accounts/tables.ts';
import type { Answer, TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';

let server: TestServer;
// A server with replicas makes keys for names that it does not deploy itself.
withSharedServer(
  (running) => {
    server = running;
  },
  { WHETSTONE_REPLICA_TOKEN: 'r'.repeat(32) },
);
afterEach(() => {
  vi.useRealTimers();
});

const fields = 'id name prefix deployments owner { name } createdAt expiresAt revokedAt';
const created = `mutation ($i: CreateApiKeyInput!) { createApiKey(input: $i) { apiKey { ${fields} } secret userErrors { code field message } } }`;
const revoked = `mutation ($i: RevokeApiKeyInput!) { revokeApiKey(input: $i) { apiKey { ${fields} } userErrors { code } } }`;

async function create(role: Role, input: object) {
  const { data, errors } = await server.graphql(created, { i: { name: 'camera', ...input } }, await server.as(role));
  expect(errors).toBeUndefined();
  return data.createApiKey;
}
const revoke = async (role: Role, apiKeyId: string): Promise<Answer> => server.graphql(revoked, { i: { apiKeyId } }, await server.as(role));
const list = async (role: Role, args = '') =>
  (await server.graphql(`{ apiKeys${args} { nodes { ${fields} } pageInfo { endCursor hasNextPage } } }`, {}, await server.as(role))).data
    .apiKeys;
const idsOf = ({ nodes }: { nodes: { id: string }[] }) => nodes.map(({ id }) => id);
const dayMs = 86_400_000;

test('a key is made for some deployments and some days, and says so', async () => {
  const { apiKey, secret, userErrors } = await create('ENGINEER', { deployments: ['digits', 'boxes', 'digits'], expiresInDays: 30 });
  expect(userErrors).toEqual([]);
  expect(apiKey).toMatchObject({ name: 'camera', deployments: ['boxes', 'digits'], owner: { name: 'engineer' }, revokedAt: null });
  expect(Date.parse(apiKey.expiresAt) - Date.parse(apiKey.createdAt)).toBe(30 * dayMs);
  expect(secret).toMatch(/^wsk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}$/);
  expect(secret.split('_')[1]).toBe(apiKey.prefix);
});

test('without a list it is for all deployments, without days it does not expire', async () => {
  expect((await create('ENGINEER', {})).apiKey).toMatchObject({ deployments: null, expiresAt: null });
  expect((await create('ENGINEER', { deployments: null, expiresInDays: null })).apiKey).toMatchObject({
    deployments: null,
    expiresAt: null,
  });
});

test('the secret is shown once: the database has its hash, a list its prefix', async () => {
  const { secret, apiKey } = await create('ENGINEER', {});
  const stored = ['whetstone.db', 'whetstone.db-wal'].map((name) => readFileSync(join(server.dataDir, name), 'latin1')).join();
  expect(stored).toContain(secretHashOf(secret));
  expect(stored).not.toContain(secret.split('_').slice(2).join('_'));
  expect((await list('ENGINEER')).nodes[0]).toEqual(apiKey);
});

test.each([
  ['an empty name', 'name', { name: '' }],
  ['a blank name', 'name', { name: '   ' }],
  ['a name of 101 characters', 'name', { name: 'x'.repeat(101) }],
  ['an empty list of deployments', 'deployments', { deployments: [] }],
  ['101 deployments', 'deployments', { deployments: Array.from({ length: 101 }, (_, i) => `d${i}`) }],
  ['a name that no deployment can have', 'deployments', { deployments: ['../digits'] }],
  ['no day', 'expiresInDays', { expiresInDays: 0 }],
  ['3651 days', 'expiresInDays', { expiresInDays: 3651 }],
])('%s is refused, and no key is made', async (_what, field, input) => {
  const { apiKey, secret, userErrors } = await create('ENGINEER', input);
  expect([apiKey, secret]).toEqual([null, null]);
  expect(userErrors).toMatchObject([{ code: 'INVALID', field: expect.arrayContaining([field]) }]);
});

test('everybody sees their own keys, newest first and page by page; an administrator sees all', async () => {
  const [old, middle] = [await create('ENGINEER', {}), await create('ENGINEER', {})];
  const admins = await create('ADMIN', {});
  const first = await list('ENGINEER', '(first: 1)');
  expect(idsOf(first)).toEqual([middle.apiKey.id]);
  const young = await create('ENGINEER', {});
  expect(idsOf(await list('ENGINEER', `(first: 1, after: "${first.pageInfo.endCursor}")`))).toEqual([old.apiKey.id]);
  expect(idsOf(await list('ENGINEER'))).not.toContain(admins.apiKey.id);
  expect(idsOf(await list('ADMIN')).slice(0, 4)).toEqual([young, admins, middle, old].map(({ apiKey }) => apiKey.id));
  expect(await list('VIEWER')).toMatchObject({ nodes: [] });
});

test('a key is revoked by its owner or by an administrator, by nobody else, and for good', async () => {
  const [one, two] = [await create('ENGINEER', {}), await create('ENGINEER', {})];
  const admins = await create('ADMIN', {});
  expect((await revoke('ENGINEER', admins.apiKey.id)).errors?.[0].extensions.code).toBe('FORBIDDEN');
  expect((await revoke('VIEWER', one.apiKey.id)).errors?.[0].extensions.code).toBe('FORBIDDEN');
  const { data } = await revoke('ENGINEER', one.apiKey.id);
  expect(data.revokeApiKey.apiKey).toEqual({ ...one.apiKey, revokedAt: expect.any(String) });
  expect((await revoke('ENGINEER', one.apiKey.id)).data.revokeApiKey.apiKey, 'a second time changes nothing').toEqual(
    data.revokeApiKey.apiKey,
  );
  expect((await revoke('ADMIN', two.apiKey.id)).data.revokeApiKey.apiKey.revokedAt).not.toBeNull();
  const nobodys = Buffer.from('ApiKey:0197a0c0-0000-7000-8000-000000000000').toString('base64url');
  expect((await revoke('ADMIN', nobodys)).errors?.[0].extensions.code).toBe('NOT_FOUND');
});

test('what is done with keys is in the audit log, and no secret is', async () => {
  const { apiKey, secret } = await create('ENGINEER', { deployments: ['digits'] });
  await revoke('ADMIN', apiKey.id);
  const query = '{ auditLog(first: 2) { nodes { action actor { name } targetId detail } } }';
  const { data } = await server.graphql(query, {}, await server.admin());
  const { name, prefix } = apiKey;
  expect(data.auditLog.nodes).toEqual([
    { action: 'revokeApiKey', actor: { name: 'admin' }, targetId: apiKey.id, detail: { name, prefix } },
    { action: 'createApiKey', actor: { name: 'engineer' }, targetId: apiKey.id, detail: { name, prefix, deployments: ['digits'] } },
  ]);
  expect(JSON.stringify(data)).not.toContain(secret);
});

test('a key is for the inference host: GraphQL does not accept it', async () => {
  const { secret } = await create('ENGINEER', {});
  expect((await server.graphql('{ viewer { name } }', {}, secret)).status).toBe(401);
});

test('50 keys of a user work at the same time; those that were revoked or have expired do not count', async () => {
  const user = { name: 'many', role: 'ENGINEER', password: 'a password of some length' };
  const mutation = 'mutation ($i: CreateUserInput!) { createUser(input: $i) { user { id } } }';
  await server.graphql(mutation, { i: user }, await server.admin());
  const make = async (count: number, expiresInDays: number | null = null) => {
    const { accessToken } = await server.login(user.name, user.password);
    const all = Array.from({ length: count }, (_, i) => `k${i}: createApiKey(input: $i) { apiKey { id } userErrors { code field } }`);
    const query = `mutation ($i: CreateApiKeyInput!) { ${all.join(' ')} }`;
    const { data } = await server.graphql(query, { i: { name: 'camera', expiresInDays } }, accessToken);
    return Object.values(data) as { apiKey: { id: string } | null; userErrors: object[] }[];
  };
  await make(25, 1);
  const forever = await make(25);
  const full = { apiKey: null, userErrors: [{ code: 'INVALID', field: null }] };
  expect(await make(1)).toEqual([full]);
  await revoke('ADMIN', forever[0]?.apiKey?.id as string);
  expect(await make(2)).toEqual([{ apiKey: expect.anything(), userErrors: [] }, full]);
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 2 * dayMs });
  expect((await make(26)).map(({ apiKey }) => apiKey !== null)).toEqual([...Array(25).fill(true), false]);
});
