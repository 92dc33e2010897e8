import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { afterEach, expect, test, vi } from 'vitest';
import { type ApiKey, apiKey as apiKeys, type Role } from '../src/accounts/tables.ts';
import { claimsOf, currentViewer, secretHashOf, type Viewer } from '../src/accounts/viewer.ts';
import { watchAccess } from '../src/graphql/access.ts';
import { signedUrl } from '../src/storage/links.ts';
import { nextAnswer, withEvents } from './support/events.ts';
import type { Answer, TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { ask, withConnection } from './support/socket.ts';
import { post } from './support/storage.ts';

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

const fields = 'id name prefix scopes deployments owner { name } createdAt expiresAt lastUsedAt revokedAt';
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
    {
      action: 'createApiKey',
      actor: { name: 'engineer' },
      targetId: apiKey.id,
      detail: { name, prefix, scopes: ['INFER'], deployments: ['digits'] },
    },
  ]);
  expect(JSON.stringify(data)).not.toContain(secret);
});

test('a key without a list has the scope INFER alone; one of several scopes says so', async () => {
  expect((await create('ENGINEER', {})).apiKey.scopes).toEqual(['INFER']);
  expect((await create('ENGINEER', { scopes: ['RUN_JOBS', 'READ', 'READ'] })).apiKey.scopes).toEqual(['READ', 'RUN_JOBS']);
  expect((await create('VIEWER', { scopes: ['READ'] })).apiKey.scopes).toEqual(['READ']);
});

test.each([
  [
    'ENGINEER',
    ['READ', 'DELETE'],
    'Your role ENGINEER does not have DELETE. A key of yours can have: READ, UPLOAD, RUN_JOBS, DEPLOY, INFER.',
  ],
  ['VIEWER', null, 'Your role VIEWER does not have INFER. A key of yours can have: READ.'],
  ['ADMIN', ['TRY_DEPLOYMENTS'], 'TRY_DEPLOYMENTS is for people: the scope with which a program infers is INFER.'],
  ['ADMIN', [], 'A key needs a scope, or no list: then it has INFER alone.'],
] as const)('a key of %s with the scopes %j is refused: %s', async (role, scopes, message) => {
  const { apiKey, userErrors } = await create(role, { scopes });
  expect([apiKey, userErrors]).toEqual([null, [{ code: 'INVALID', field: ['scopes'], message }]]);
});

/** What a program meets with its key on each way in: 'ok', or the code of the error. */
async function waysIn(secret: string) {
  const authorization = `Bearer ${secret}`;
  const code = ({ errors }: Pick<Answer, 'errors'>): string => errors?.[0].extensions.code ?? 'ok';
  const upload = await fetch(`${server.url}/uploads?filename=a.zip`, { method: 'POST', headers: { authorization }, body: 'bytes' });
  return {
    query: code(await server.graphql('{ jobs { nodes { id } } }', {}, secret)),
    mutation: code(
      await server.graphql('mutation { deploy(input: {name: "a", modelVersionId: "bm90"}) { deployment { id } } }', {}, secret),
    ),
    events: await withEvents(server.url, 'subscription { system { version } }', secret, async (items) => code(await nextAnswer(items))),
    socket: await withConnection(server.url, secret, async (socket) =>
      code((await ask(socket, 'one', 'subscription { system { version } }')).payload),
    ).catch((error: Error) => error.message),
    upload: code((await upload.json()) as Answer),
  };
}

test('one key works for queries, mutations, uploads, event streams and sockets, each within its scopes', async () => {
  const refused = 'FORBIDDEN';
  const { secret: reads } = await create('ENGINEER', { scopes: ['READ'] });
  expect(await waysIn(reads)).toEqual({ query: 'ok', mutation: refused, events: 'ok', socket: 'ok', upload: refused });
  const { secret: writes } = await create('ENGINEER', { scopes: ['UPLOAD', 'DEPLOY'] });
  expect(await waysIn(writes)).toEqual({ query: refused, mutation: refused, events: refused, socket: refused, upload: 'ok' });
});

test('a key never does more than its owner: when their role sinks it has what is left, when they are disabled nothing', async () => {
  const input = { name: 'sinking', role: 'ADMIN', password: 'a password of some length' };
  const admin = await server.admin();
  const query = 'mutation ($i: CreateUserInput!) { createUser(input: $i) { user { id } } }';
  const { id } = (await server.graphql(query, { i: input }, admin)).data.createUser.user;
  const { accessToken } = await server.login(input.name, input.password);
  const scopes = ['READ', 'DEPLOY', 'INFER', 'MANAGE_USERS'];
  const { secret } = (await server.graphql(created, { i: { name: 'ci', scopes } }, accessToken)).data.createApiKey;
  const mayDo = async () => {
    const users = await server.graphql('{ users { nodes { id } } }', {}, secret);
    const { mutation, query } = await waysIn(secret);
    const infer = await server.graphql('mutation { infer(input: {deployment: "a", image: "AA"}) { prediction { revision } } }', {}, secret);
    return { users: users.errors?.[0].message ?? 'ok', mutation, query, infer: infer.errors?.[0].extensions.code };
  };
  const become = async (change: string) => {
    const { errors } = await server.graphql(`mutation ($id: ID!) { ${change} { user { id } } }`, { id }, admin);
    expect(errors).toBeUndefined();
  };
  expect(await mayDo()).toEqual({ users: 'ok', mutation: 'NOT_FOUND', query: 'ok', infer: 'UNAVAILABLE' });
  await become('updateUser(input: { userId: $id, role: ENGINEER })');
  const less = 'The role ENGINEER, which the owner of this API key has, does not allow this: it needs MANAGE_USERS.';
  expect(await mayDo()).toEqual({ users: less, mutation: 'NOT_FOUND', query: 'ok', infer: 'UNAVAILABLE' });
  await become('updateUser(input: { userId: $id, role: VIEWER })');
  expect(await mayDo()).toMatchObject({ mutation: 'FORBIDDEN', query: 'ok', infer: 'FORBIDDEN' });
  await become('disableUser(input: { userId: $id })');
  expect((await server.graphql('{ viewer { name } }', {}, secret)).status).toBe(401);
});

test('a key ends itself, but no other key and no session of its owner, and sees nothing of other users', async () => {
  const [ci, other] = [await create('ADMIN', { scopes: ['READ'] }), await create('ADMIN', {})];
  const as = (query: string, variables: object = {}) => server.graphql(query, variables, ci.secret);
  const codes = ({ errors }: Answer) => errors?.map((e) => e.extensions.code);
  const { data } = await as('{ viewer { name sessions { id current } } apiKeys { nodes { owner { name } } } }');
  expect(data.viewer.sessions.map((s: { current: boolean }) => s.current)).not.toContain(true);
  expect(new Set(data.apiKeys.nodes.map((k: { owner: { name: string } }) => k.owner.name))).toEqual(new Set(['admin']));
  const sessionId = data.viewer.sessions[0].id;
  const ended = await as('mutation ($i: RevokeSessionInput!) { revokeSession(input: $i) { session { id } } }', { i: { sessionId } });
  expect(codes(ended)).toEqual(['FORBIDDEN']);
  expect(codes(await as(revoked, { i: { apiKeyId: other.apiKey.id } }))).toEqual(['FORBIDDEN']);
  expect((await as(revoked, { i: { apiKeyId: ci.apiKey.id } })).data.revokeApiKey.apiKey.revokedAt).not.toBeNull();
  expect((await as('{ viewer { name } }')).status).toBe(401);
});

test('when a key is revoked, its open streams, sockets and links end, and the next request is 401', async () => {
  const { apiKey, secret } = await create('ENGINEER', { scopes: ['READ'] });
  const subscription = 'subscription { jobs { id } }';
  const path = '/files/0197a0c0-0000-7000-8000-000000000000';
  const link = signedUrl({ ...server.services, viewer: { by: 'API_KEY', key: findKey(secret) } }, path);
  expect((await fetch(server.url + link)).status, 'the link is good, and no such file').toBe(404);
  await withEvents(server.url, subscription, secret, (items) =>
    withConnection(server.url, secret, async (socket) => {
      await ask(socket, 'alive', '{ __typename }');
      await revoke('ENGINEER', apiKey.id);
      expect((await nextAnswer(items)).errors[0]).toMatchObject({
        message: expect.stringContaining('API key was revoked'),
        extensions: { code: 'UNAUTHENTICATED' },
      });
      expect(await socket.closed).toEqual({ code: 4403, reason: expect.stringContaining('API key was revoked') });
    }),
  );
  expect((await fetch(server.url + link)).status).toBe(403);
  const { status, errors } = await server.graphql('{ viewer { name } }', {}, secret);
  expect([status, errors?.[0].extensions.code]).toEqual([401, 'UNAUTHENTICATED']);
});

const findKey = (secret: string): ApiKey =>
  server.services.db
    .select()
    .from(apiKeys)
    .where(eq(apiKeys.secretHash, secretHashOf(secret)))
    .get() as ApiKey;

test('a stream stays open for a key that ends in ten years, and ends when a key expires', async () => {
  const viewerWith = async (expiresInDays: number): Promise<Viewer> => {
    const { secret } = await create('ENGINEER', { scopes: ['READ'], expiresInDays });
    return currentViewer(server.services.db, await claimsOf(server.services, secret));
  };
  const [long, short] = [await viewerWith(3650), await viewerWith(30)];
  vi.useFakeTimers();
  const watched = [long, short].map((viewer) => watchAccess(server.services, viewer));
  vi.advanceTimersByTime(30 * dayMs - 1000);
  expect(watched.map(({ signal }) => signal.aborted)).toEqual([false, false]);
  vi.advanceTimersByTime(2000);
  expect(watched.map(({ signal }) => signal.aborted && signal.reason.message)).toEqual([false, 'The API key has expired.']);
  vi.advanceTimersByTime(3650 * dayMs);
  expect(watched.map(({ signal }) => signal.aborted)).toEqual([true, true]);
});

test('a key says when it was last used, and the audit log which key has done what', async () => {
  const { apiKey, secret } = await create('ADMIN', { scopes: ['MANAGE_USERS'] });
  expect(apiKey.lastUsedAt).toBeNull();
  const input = { name: 'made.by.a.key', role: 'VIEWER', password: 'a password of some length' };
  const { data, errors } = await server.graphql(
    'mutation ($i: CreateUserInput!) { createUser(input: $i) { user { name } } }',
    { i: input },
    secret,
  );
  expect([data?.createUser.user, errors]).toEqual([{ name: input.name }, undefined]);
  expect((await list('ADMIN')).nodes[0]).toMatchObject({ id: apiKey.id, lastUsedAt: expect.any(String) });
  const log = await server.graphql('{ auditLog(first: 1) { nodes { action actor { name } apiKey { id } } } }', {}, await server.admin());
  expect(log.data.auditLog.nodes).toEqual([{ action: 'createUser', actor: { name: 'admin' }, apiKey: { id: apiKey.id } }]);
});

test('with a key for some deployments `infer` is for these alone', async () => {
  const { secret } = await create('ENGINEER', { deployments: ['digits'] });
  const infer = async (deployment: string) =>
    (
      await server.graphql(
        'mutation ($i: InferInput!) { infer(input: $i) { prediction { revision } } }',
        { i: { deployment, image: 'AA' } },
        secret,
      )
    ).errors?.[0];
  expect(await infer('boxes')).toMatchObject({ message: 'This API key is not for this deployment.', extensions: { code: 'FORBIDDEN' } });
  expect((await infer('digits')).extensions.code, 'nothing is deployed').toBe('UNAVAILABLE');
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

test('a mutation whose key may not read its result is refused before it begins, and carried out when it asks for none', async () => {
  const { secret } = await create('ENGINEER', { scopes: ['UPLOAD'] });
  const { json } = await post(server.url, secret, 'a.zip', Buffer.from('no zip'));
  const input = { name: 'unread', task: 'CLASSIFICATION', uploadId: json.uploadId, sha256: json.sha256 };
  const creating = (fields: string) =>
    server.graphql(
      `mutation ($i: CreateDatasetInput!) { createDataset(input: $i) { ${fields} userErrors { message } } }`,
      { i: input },
      secret,
    );
  const named = async () => (await server.graphql('{ dataset(name: "unread") { id } }', {}, await server.admin())).data.dataset;
  for (const fields of ['datasetVersion { id }', '...on CreateDatasetPayload { datasetVersion { id } }']) {
    const { data, errors } = await creating(fields);
    expect([data, errors?.[0]]).toMatchObject([
      undefined,
      { message: expect.stringContaining('Nothing was done. Leave out `datasetVersion`'), extensions: { code: 'FORBIDDEN' } },
    ]);
    expect(await named()).toBeNull();
  }
  expect((await creating('')).data.createDataset.userErrors).toEqual([]);
  expect(await named()).not.toBeNull();
});
