import fc from 'fast-check';
import { getNamedType, isInterfaceType, isLeafType, isNonNullType, isObjectType } from 'graphql';
import { describe, expect, test } from 'vitest';
import { may, permissions } from '../src/accounts/permissions.ts';
import { type Permission, permissionNames, type Role } from '../src/accounts/tables.ts';
import { schema } from '../src/graphql/schema.ts';
import { withEvents } from './support/events.ts';
import { idOf, storeObjects } from './support/objects.ts';
import { sample } from './support/sample.ts';
import { adminName, adminPassword, type TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { ask, withConnection } from './support/socket.ts';

/*
 * The whole of who may do what, written down a second time: what the server does is held against this file. A new root field or
 * Node type fails the first test until it has its line here; a line without its field fails too.
 */

const encode = (text: string) => Buffer.from(text).toString('base64url');

const everybody = ['anonymous', 'VIEWER', 'ENGINEER', 'ADMIN'] as const;
type Who = (typeof everybody)[number];

/** The roles that have each permission. */
const allowed = {
  public: everybody,
  READ: ['VIEWER', 'ENGINEER', 'ADMIN'],
  UPLOAD: ['ENGINEER', 'ADMIN'],
  RUN_JOBS: ['ENGINEER', 'ADMIN'],
  DEPLOY: ['ENGINEER', 'ADMIN'],
  TRY_DEPLOYMENTS: ['VIEWER', 'ENGINEER', 'ADMIN'],
  INFER: ['ENGINEER', 'ADMIN'],
  DELETE: ['ADMIN'],
  MANAGE_USERS: ['ADMIN'],
  READ_AUDIT: ['ADMIN'],
  CONFIGURE: ['ADMIN'],
  /** READ, with a session: no API key has it. */
  LOGIN: ['VIEWER', 'ENGINEER', 'ADMIN'],
} as const satisfies Record<string, readonly Who[]>;
type Need = keyof typeof allowed;

/** What a test's arguments may be made of. */
interface World {
  server: TestServer;
  /** Opaque ids of the user and the session of the one who asks; of the administrator's for anonymous. */
  own: { user: string; session: string };
}

/** What a root field needs, and its arguments where made-up ones would be refused for another reason than the caller's role. */
type Line = Need | [Need, (world: World) => object | Promise<object>];

const fields: Record<string, Line> = {
  'Query.viewer': 'public',
  'Query.node': ['READ', ({ own }) => ({ id: own.user })],
  'Query.nodes': ['READ', ({ own }) => ({ ids: [own.user] })],
  'Query.users': 'MANAGE_USERS',
  'Query.auditLog': 'READ_AUDIT',
  'Query.apiKeys': 'READ',
  'Query.datasets': 'READ',
  'Query.dataset': 'READ',
  'Query.models': 'READ',
  'Query.model': 'READ',
  'Query.modelVersions': 'READ',
  'Query.jobs': 'READ',
  'Query.job': 'READ',
  'Query.system': 'READ',
  'Query.engines': 'READ',
  'Query.deployment': 'READ',
  'Query.deployments': 'READ',
  'Query.inferenceHealth': 'READ',
  'Query.presets': 'READ',
  'Query.compareReports': 'READ',
  'Query.compareJobs': 'READ',
  'Query.augmentationPreview': 'READ',
  'Query.exportJobs': 'READ',
  'Query.exportPackage': 'READ',
  'Query.report': 'READ',
  'Query.reports': 'READ',
  'Query.regressions': 'READ',
  'Query.studies': 'READ',
  'Query.study': 'READ',
  'Query.alerts': 'READ',
  'Query.alertRules': 'READ',
  'Query.webhooks': 'CONFIGURE',

  'Mutation.bootstrap': 'public',
  'Mutation.login': ['public', () => ({ input: { name: adminName, password: adminPassword } })],
  'Mutation.refresh': [
    'public',
    async ({ server }) => ({ input: { refreshToken: (await server.login(adminName, adminPassword)).refreshToken } }),
  ],
  'Mutation.logout': 'public',
  'Mutation.changePassword': 'LOGIN',
  'Mutation.revokeSession': ['MANAGE_USERS', () => ({ input: { sessionId: encode('Session:of nobody') } })],
  'Mutation.createApiKey': 'LOGIN',
  'Mutation.revokeApiKey': ['MANAGE_USERS', () => ({ input: { apiKeyId: encode('ApiKey:of nobody') } })],
  'Mutation.createUser': 'MANAGE_USERS',
  'Mutation.updateUser': 'MANAGE_USERS',
  'Mutation.disableUser': 'MANAGE_USERS',
  'Mutation.resetPassword': 'MANAGE_USERS',
  'Mutation.createDataset': 'UPLOAD',
  'Mutation.updateDataset': 'UPLOAD',
  'Mutation.deleteDataset': 'DELETE',
  'Mutation.deleteDatasetVersion': 'DELETE',
  'Mutation.createModel': 'UPLOAD',
  'Mutation.describeModelVersion': 'UPLOAD',
  'Mutation.updateModel': 'RUN_JOBS',
  'Mutation.setModelAlias': 'RUN_JOBS',
  'Mutation.setTags': ['RUN_JOBS', () => ({ input: { subjectId: encode('Model:none'), tags: [{ key: 'a' }] } })],
  'Mutation.setJobPriority': 'RUN_JOBS',
  'Mutation.deleteModel': 'DELETE',
  'Mutation.deleteModelVersion': 'DELETE',
  'Mutation.startBenchmark': 'RUN_JOBS',
  'Mutation.startLoadTest': 'RUN_JOBS',
  'Mutation.startTraining': 'RUN_JOBS',
  'Mutation.startCompression': 'RUN_JOBS',
  'Mutation.startConversion': 'RUN_JOBS',
  'Mutation.startEvaluation': 'RUN_JOBS',
  'Mutation.deploy': 'DEPLOY',
  'Mutation.rollback': 'DEPLOY',
  'Mutation.undeploy': 'DEPLOY',
  'Mutation.infer': 'TRY_DEPLOYMENTS',
  'Mutation.inferBatch': 'TRY_DEPLOYMENTS',
  'Mutation.cancelJob': 'RUN_JOBS',
  'Mutation.retryJob': 'RUN_JOBS',
  'Mutation.deleteJob': 'DELETE',
  'Mutation.cancelJobs': 'RUN_JOBS',
  'Mutation.deleteJobs': 'DELETE',
  'Mutation.deleteModels': 'DELETE',
  'Mutation.deleteModelVersions': 'DELETE',
  'Mutation.deleteDatasets': 'DELETE',
  'Mutation.deleteDatasetVersions': 'DELETE',
  'Mutation.startTuning': 'RUN_JOBS',
  'Mutation.pauseStudy': 'RUN_JOBS',
  'Mutation.resumeStudy': 'RUN_JOBS',
  'Mutation.extendStudy': 'RUN_JOBS',
  'Mutation.deleteStudy': 'DELETE',
  'Mutation.createWebhook': 'CONFIGURE',
  'Mutation.updateWebhook': ['CONFIGURE', () => ({ input: { webhookId: encode('Webhook:nothing') } })],
  'Mutation.rotateWebhookSecret': ['CONFIGURE', () => ({ input: { webhookId: encode('Webhook:nothing') } })],
  'Mutation.testWebhook': ['CONFIGURE', () => ({ input: { webhookId: encode('Webhook:nothing') } })],
  'Mutation.deleteWebhook': ['CONFIGURE', () => ({ input: { webhookId: encode('Webhook:nothing') } })],
  'Mutation.redeliverWebhook': ['CONFIGURE', () => ({ input: { deliveryId: encode('WebhookDelivery:nothing') } })],
  'Mutation.updateAlertRule': 'CONFIGURE',

  'Subscription.jobEvents': ['READ', () => ({ id: idOf('Job') })],
  'Subscription.jobProgress': ['READ', () => ({ id: idOf('Job') })],
  'Subscription.jobLogs': ['READ', () => ({ id: idOf('Job') })],
  'Subscription.jobs': 'READ',
  'Subscription.studyEvents': ['READ', () => ({ id: idOf('Study') })],
  'Subscription.inferenceStats': 'READ',
  'Subscription.system': 'READ',
  'Subscription.alertEvents': 'READ',
};

/** For each Node type: what it needs, the id of one that belongs to nobody who asks, and the other ways to the same object. */
const nodes: Record<string, { needs: Need; id: (world: World) => Promise<string>; otherWays: string[] }> = {
  User: {
    needs: 'MANAGE_USERS',
    id: async ({ server }) => (await bystander(server)).id,
    otherWays: ['{ users(filter: { nameContains: "bystander" }) { nodes { id } } }'],
  },
  Session: {
    needs: 'MANAGE_USERS',
    id: async ({ server }) => (await bystander(server)).sessions[0]?.id as string,
    otherWays: ['{ users(filter: { nameContains: "bystander" }) { nodes { sessions { id } } } }'],
  },
  ApiKey: { needs: 'MANAGE_USERS', id: async ({ server }) => bystandersKey(server), otherWays: [] },
  Dataset: { needs: 'READ', id: stored('Dataset'), otherWays: ['{ dataset(name: "one") { id } }', '{ datasets { nodes { id } } }'] },
  DatasetVersion: { needs: 'READ', id: stored('DatasetVersion'), otherWays: ['{ dataset(name: "one") { versions { nodes { id } } } }'] },
  DatasetItem: {
    needs: 'READ',
    id: stored('DatasetItem'),
    otherWays: ['{ dataset(name: "one") { versions { nodes { items { nodes { id } } } } } }'],
  },
  Model: { needs: 'READ', id: stored('Model'), otherWays: ['{ model(name: "one") { id } }', '{ models { nodes { id } } }'] },
  ModelVersion: { needs: 'READ', id: stored('ModelVersion'), otherWays: ['{ model(name: "one") { versions { nodes { id } } } }'] },
  Evaluation: {
    needs: 'READ',
    id: stored('Evaluation'),
    otherWays: [
      '{ model(name: "one") { versions { nodes { evaluations { id } } } } }',
      `{ job(id: "${idOf('Job')}") { evaluation { id } } }`,
    ],
  },
  Deployment: {
    needs: 'READ',
    id: stored('Deployment'),
    otherWays: ['{ deployment(name: "one") { id } }', '{ deployments { nodes { id } } }'],
  },
  Report: {
    needs: 'READ',
    id: stored('Report'),
    otherWays: [
      `{ report(id: "${idOf('Report')}") { id } }`,
      '{ reports { nodes { id } } }',
      `{ job(id: "${idOf('Job')}") { report { id } } }`,
    ],
  },
  Study: {
    needs: 'READ',
    id: stored('Study'),
    otherWays: [`{ study(id: "${idOf('Study')}") { id } }`, '{ studies { nodes { id } } }'],
  },
  Webhook: { needs: 'CONFIGURE', id: stored('Webhook'), otherWays: ['{ webhooks { nodes { id } } }'] },
  WebhookDelivery: {
    needs: 'CONFIGURE',
    id: stored('WebhookDelivery'),
    otherWays: ['{ webhooks { nodes { deliveries { nodes { id } } } } }'],
  },
  Job: { needs: 'READ', id: stored('Job'), otherWays: [`{ job(id: "${idOf('Job')}") { id } }`, '{ jobs { nodes { id } } }'] },
};

/** Fields that need more than the Node they belong to. */
const innerFields: Record<string, Need> = {
  'Report.verified': 'RUN_JOBS',
};

function stored(type: string) {
  return async () => idOf(type);
}

/** A user who is none of those who ask. */
async function bystander(server: TestServer): Promise<{ id: string; sessions: { id: string }[] }> {
  const input = { name: 'bystander', role: 'ENGINEER', password: adminPassword };
  const created = 'mutation ($i: CreateUserInput!) { createUser(input: $i) { user { id } } }';
  const { data } = await server.graphql(created, { i: input }, await server.admin());
  if (data.createUser.user) await server.login(input.name, input.password);
  const found = '{ users(filter: { nameContains: "bystander" }) { nodes { id sessions { id } } } }';
  return (await server.graphql(found, {}, await server.admin())).data.users.nodes[0];
}

async function bystandersKey(server: TestServer): Promise<string> {
  await bystander(server);
  const { accessToken } = await server.login('bystander', adminPassword);
  const created = 'mutation { createApiKey(input: { name: "camera" }) { apiKey { id } } }';
  return (await server.graphql(created, {}, accessToken)).data.createApiKey.apiKey.id;
}

const operations = { Query: 'query', Mutation: 'mutation', Subscription: 'subscription' } as const;
const rootFields = Object.keys(operations).flatMap((root) => {
  const type = schema.getType(root);
  return isObjectType(type) ? Object.values(type.getFields()).map((field) => ({ root, field, name: `${root}.${field.name}` })) : [];
});
const nodeTypes = schema.getPossibleTypes(schema.getType('Node') as never).map((type) => type.name);

test('every root field and every Node type has its line in the table, and every line its field', () => {
  expect(Object.keys(fields).sort()).toEqual(rootFields.map(({ name }) => name).sort());
  expect(Object.keys(nodes).sort()).toEqual([...nodeTypes].sort());
  expect(Object.keys(innerFields).sort()).toEqual(fieldsWithScopes.sort());
});

/** The fields of objects, roots aside, for which the code names a scope. */
const fieldsWithScopes = Object.values(schema.getTypeMap()).flatMap((type) =>
  isObjectType(type) && !(type.name in operations)
    ? Object.values(type.getFields()).flatMap((field) => {
        const options = field.extensions.pothosOptions as { authScopes?: unknown } | undefined;
        return options?.authScopes ? [`${type.name}.${field.name}`] : [];
      })
    : [],
);

/** A document of one root field with its arguments as variables. */
async function documentOf({ root, field, name }: (typeof rootFields)[number], world: World) {
  const line = fields[name];
  const given = Array.isArray(line) ? ((await line[1](world)) as Record<string, unknown>) : {};
  const needed = field.args.filter((arg) => arg.name in given || (isNonNullType(arg.type) && arg.defaultValue === undefined));
  const declared = needed.map((arg) => `$${arg.name}: ${arg.type}`).join(', ');
  const passed = needed.map((arg) => `${arg.name}: $${arg.name}`).join(', ');
  const query =
    `${operations[root as keyof typeof operations]} ${declared && `(${declared})`} { ${field.name}${passed && `(${passed})`}` +
    `${isLeafType(getNamedType(field.type)) ? '' : ' { __typename }'} }`;
  const variables = Object.fromEntries(needed.map((arg) => [arg.name, given[arg.name] ?? sample(arg.type)]));
  return { query, variables };
}

type Verdict = 'UNAUTHENTICATED' | 'FORBIDDEN' | 'allowed';

/** What the errors of an answer say of the caller; an error of another kind means that the caller got past the scope. */
function verdictOf(errors: { extensions: { code: string } }[] | undefined): Verdict {
  const denied = errors?.map((e) => e.extensions.code).find((code) => code === 'UNAUTHENTICATED' || code === 'FORBIDDEN');
  return (denied as Verdict | undefined) ?? 'allowed';
}

const expected = (who: Who, needs: Need): Verdict =>
  (allowed[needs] as readonly Who[]).includes(who) ? 'allowed' : who === 'anonymous' ? 'UNAUTHENTICATED' : 'FORBIDDEN';
const expectedOfAll = (needs: Need) => Object.fromEntries(everybody.map((who) => [who, expected(who, needs)]));

/** The verdict on each one who asks. */
async function verdicts(ask: (token: string | undefined, who: Who) => Promise<Verdict>) {
  const found: Partial<Record<Who, Verdict>> = {};
  for (const who of everybody) found[who] = await ask(who === 'anonymous' ? undefined : await server.as(who), who);
  return found;
}

async function worldOf(who: Who): Promise<World> {
  const { data } = await server.graphql('{ viewer { id sessions { id } } }', {}, await server.as(who === 'anonymous' ? 'ADMIN' : who));
  return { server, own: { user: data.viewer.id, session: data.viewer.sessions[0].id } };
}

let server: TestServer;
withSharedServer((running) => {
  server = running;
  storeObjects(server);
});

const needOf = (name: string): Need => [fields[name] ?? 'READ'].flat()[0] as Need;

describe('each query and mutation is for exactly those who have its permission', () => {
  const plain = rootFields.filter(({ root }) => root !== 'Subscription');
  test.each(plain.map((root) => [root.name, needOf(root.name), root] as const))('%s: %s', async (_name, needs, root) => {
    const found = await verdicts(async (token, who) => {
      const { query, variables } = await documentOf(root, await worldOf(who));
      const { errors, status } = await server.graphql(query, variables, token);
      const verdict = verdictOf(errors);
      // The error of a root field decides the status too.
      if (verdict !== 'allowed') expect(status).toBe(verdict === 'FORBIDDEN' ? 403 : 401);
      expect(errors?.map((e) => e.extensions.code) ?? []).not.toContain('INTERNAL');
      expect(errors?.map((e) => e.extensions.code) ?? [], 'the generated document fits the schema').not.toContain('INVALID_DOCUMENT');
      return verdict;
    });
    expect(found).toEqual(expectedOfAll(needs));
  });
});

const subscriptions = rootFields.filter(({ root }) => root === 'Subscription');
test.for(subscriptions.map((root) => [root.name, needOf(root.name), root] as const))(
  '%s: %s, over SSE and over WebSocket',
  async ([, needs, root]) => {
    const overSse = await verdicts(async (token, who) => {
      const { query, variables } = await documentOf(root, await worldOf(who));
      return withEvents(server.url, query, token, async (items) => verdictOf(await firstErrors(items)), variables);
    });
    const overSocket = await verdicts(async (token, who) => {
      const { query, variables } = await documentOf(root, await worldOf(who));
      return withConnection(server.url, token, async (socket) => {
        const answered = ask(socket, 'subscription', query, variables).then(({ type, payload }) =>
          verdictOf(type === 'error' ? payload : payload.errors),
        );
        answered.catch(() => {});
        // A refusal comes within one turn of the server: a subscription that is silent after three more answers was accepted.
        for (const later of ['1', '2', '3']) await ask(socket, later, '{ __typename }');
        return Promise.race([answered, Promise.resolve('allowed' as const)]);
      });
    });
    expect(overSse).toEqual(expectedOfAll(needs));
    expect(overSocket).toEqual(expectedOfAll(needs));
  },
);

/** An administrator's API keys, by their scopes. */
const keys = new Map<string, Promise<string>>();
function keyWith(scopes: readonly Permission[]): Promise<string> {
  const name = scopes.join();
  const made = keys.get(name) ?? makeKey(name, scopes);
  keys.set(name, made);
  return made;
}
async function makeKey(name: string, scopes: readonly Permission[]): Promise<string> {
  const query = 'mutation ($i: CreateApiKeyInput!) { createApiKey(input: $i) { secret userErrors { message } } }';
  const { data } = await server.graphql(query, { i: { name, scopes } }, await server.as('ADMIN'));
  expect(data.createApiKey.userErrors).toEqual([]);
  return data.createApiKey.secret;
}
const everyScope = permissionNames.filter((name) => name !== 'TRY_DEPLOYMENTS');

describe('an API key of an administrator opens each field with the scope of its permission alone, and with all others not', () => {
  const scoped = rootFields.filter(({ name }) => needOf(name) !== 'public');
  test.each(scoped.map((root) => [root.name, needOf(root.name), root] as const))('%s: %s', async (_name, needs, root) => {
    const verdict = async (key: string) => {
      const { query, variables } = await documentOf(root, await worldOf('ADMIN'));
      if (root.root !== 'Subscription') return (await server.graphql(query, variables, key)).errors;
      return withEvents(server.url, query, key, (items) => firstErrors(items), variables);
    };
    if (needs === 'LOGIN') {
      const errors = await verdict(await keyWith(everyScope));
      expect(errors?.[0]).toMatchObject({ message: 'An API key does not allow this: log in.', extensions: { code: 'FORBIDDEN' } });
      return;
    }
    const scope = needs === 'TRY_DEPLOYMENTS' ? 'INFER' : (needs as Permission);
    expect(verdictOf(await verdict(await keyWith([scope])))).toBe('allowed');
    const errors = await verdict(await keyWith(everyScope.filter((other) => other !== scope)));
    expect(errors?.[0]).toMatchObject({ message: expect.stringContaining(`the scope ${scope}`), extensions: { code: 'FORBIDDEN' } });
  });
});

/** A subscription that is refused says so at once; two signs of life without a refusal mean that it is open. */
async function firstErrors(items: AsyncIterableIterator<{ type: string; payload?: { errors?: never[] } }>): Promise<never[] | undefined> {
  let pings = 0;
  for await (const { type, payload } of items) {
    if (type === 'next') return payload?.errors;
    if (type === 'complete') return undefined;
    pings += 1;
    if (pings > 2) return undefined;
  }
  throw new Error('The stream ended without a word.');
}

describe('an object is seen by the same people by node id, by a list of ids and by every other way', () => {
  test.each(Object.entries(nodes))('%s', async (_name, { needs, id: idIn, otherWays }) => {
    const id = await idIn(await worldOf('ADMIN'));
    const ways: [string, unknown][] = [
      ['query ($id: ID!) { node(id: $id) { id } }', { id }],
      ['query ($id: ID!) { nodes(ids: [$id]) { id } }', { id }],
      ...otherWays.map((query): [string, unknown] => [query, {}]),
    ];
    for (const [query, variables] of ways) {
      const found = await verdicts(async (token) => {
        const { data, errors } = await server.graphql(query, variables, token);
        const verdict = verdictOf(errors);
        expect(JSON.stringify(data ?? null).includes(id), `${query} shows the object exactly to those who may`).toBe(verdict === 'allowed');
        return verdict;
      });
      expect(found, query).toEqual(expectedOfAll(needs));
    }
  });
});

test.each(Object.entries(innerFields))('%s: %s', async (name, needs) => {
  const [type = '', field = ''] = name.split('.');
  const query = `query ($id: ID!) { node(id: $id) { ... on ${type} { ${field} } } }`;
  expect(await verdicts(async (token) => verdictOf((await server.graphql(query, { id: idOf(type) }, token)).errors))).toEqual(
    expectedOfAll(needs),
  );
});

test('everybody who is logged in sees themselves and their own sessions, by every way', async () => {
  for (const role of ['VIEWER', 'ENGINEER', 'ADMIN'] as const) {
    const token = await server.as(role);
    const { own } = await worldOf(role);
    const query = `query ($user: ID!, $session: ID!) {
      viewer { id name sessions { id client } } node(id: $user) { id ... on User { name } }
      nodes(ids: [$user, $session]) { id ... on Session { client } }
    }`;
    const { data, errors } = await server.graphql(query, own, token);
    expect(errors).toBeUndefined();
    expect([data.viewer.id, data.node.id, data.nodes[0].id, data.nodes[1].id]).toEqual([own.user, own.user, own.user, own.session]);
    expect(data.node.name).toBe(data.viewer.name);
  }
});

test('what a mutation hands back, whoever may carry it out may read', async () => {
  const created = 'mutation ($i: LoginInput!) { login(input: $i) { credentials { user { id name role } } } }';
  const { data, errors } = await server.graphql(created, { i: { name: adminName, password: adminPassword } });
  expect(errors).toBeUndefined();
  expect(data.login.credentials.user).toMatchObject({ name: adminName, role: 'ADMIN' });
  const further = 'mutation ($i: LoginInput!) { login(input: $i) { credentials { user { sessions { id } } } } }';
  const beyond = await server.graphql(further, { i: { name: adminName, password: adminPassword } });
  expect(verdictOf(beyond.errors), 'and nothing behind it').toBe('UNAUTHENTICATED');
});

test('an id that names nothing is NOT_FOUND or null, to everybody alike, and never a defect', async () => {
  for (const id of [
    '',
    'x',
    '🙂',
    encode('User'),
    encode('User:'),
    encode('Nothing:1'),
    encode('PageInfo:1'),
    encode('Query:1'),
    encode('__Type:1'),
    encode('toString:1'),
    encode('__proto__:1'),
  ]) {
    for (const query of ['query ($id: ID!) { node(id: $id) { id } }', 'query ($id: ID!) { nodes(ids: [$id]) { id } }']) {
      const { errors, status } = await server.graphql(query, { id }, await server.as('VIEWER'));
      expect([status, errors?.map((e) => e.extensions.code)], `${query} of ${id}`).toEqual([404, ['NOT_FOUND']]);
    }
  }
  for (const type of Object.keys(nodes)) {
    const id = encode(`${type}:0197a0c0-0000-7000-8000-000000000000`);
    const { data, errors } = await server.graphql(
      'query ($id: ID!) { node(id: $id) { id } nodes(ids: [$id]) { id } }',
      { id },
      await server.as('VIEWER'),
    );
    expect([data, errors], type).toEqual([{ node: null, nodes: [null] }, undefined]);
  }
});

test('at most 100 ids are looked up at once', async () => {
  const { own } = await worldOf('VIEWER');
  const query = 'query ($ids: [ID!]!) { nodes(ids: $ids) { id } }';
  const of = async (count: number) =>
    server.graphql(query, { ids: Array.from({ length: count }, () => own.user) }, await server.as('VIEWER'));
  expect((await of(100)).data.nodes).toHaveLength(100);
  expect((await of(101)).errors?.[0].extensions.code).toBe('LIMIT');
});

test('no object type shows a column of a secret', () => {
  const secret = /password|secret|token|refreshHash|nameHash|signingKey|linkKey/i;
  const shown = Object.values(schema.getTypeMap()).flatMap((type) =>
    (isObjectType(type) || isInterfaceType(type)) &&
    !type.name.startsWith('__') &&
    !['Mutation', 'Credentials', 'CreateApiKeyPayload', 'CreateWebhookPayload', 'RotateWebhookSecretPayload'].includes(type.name)
      ? Object.keys(type.getFields())
          .filter((field) => secret.test(field))
          .map((field) => `${type.name}.${field}`)
      : [],
  );
  expect(shown).toEqual([]);
});

test('whatever roles a user is given one after the other, each request is judged by the role of its moment', async () => {
  const input = { name: 'walker', role: 'VIEWER', password: adminPassword };
  const admin = await server.admin();
  const { data } = await server.graphql('mutation ($i: CreateUserInput!) { createUser(input: $i) { user { id } } }', { i: input }, admin);
  const userId = data.createUser.user.id;
  const { accessToken } = await server.login(input.name, input.password);
  const readable = rootFields.filter(({ root }) => root === 'Query');
  const world = await worldOf('VIEWER');
  const documents = await Promise.all(
    readable.map(async (root) => ({ ...(await documentOf(root, { ...world, own: { ...world.own, user: userId } })), name: root.name })),
  );
  const roles = ['VIEWER', 'ENGINEER', 'ADMIN'] as const satisfies readonly Role[];
  const step = fc.record({ role: fc.constantFrom(...roles), document: fc.constantFrom(...documents) });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
      for (const { role, document } of steps) {
        const update = 'mutation ($i: UpdateUserInput!) { updateUser(input: $i) { user { role } userErrors { code } } }';
        const updated = await server.graphql(update, { i: { userId, role } }, admin);
        expect(updated.data.updateUser.user.role).toBe(role);
        const { errors } = await server.graphql(document.query, document.variables, accessToken);
        expect(verdictOf(errors), `${role} asks for ${document.name}`).toBe(expected(role, needOf(document.name)));
      }
    }),
    { numRuns: 25, seed: 3 },
  );
});

test('every permission of the code is in the table with the same roles, and a higher role has all of a lower one', () => {
  fc.assert(
    fc.property(fc.constantFrom('VIEWER', 'ENGINEER', 'ADMIN'), fc.constantFrom(...Object.keys(permissions)), (role, permission) => {
      expect(may(role as Role, permission as keyof typeof permissions)).toBe(
        (allowed[permission as Need] as readonly Who[]).includes(role as Who),
      );
      if (may('VIEWER', permission as never)) expect(may('ENGINEER', permission as never)).toBe(true);
      if (may('ENGINEER', permission as never)) expect(may('ADMIN', permission as never)).toBe(true);
    }),
  );
  expect(Object.keys(allowed).sort()).toEqual([...Object.keys(permissions), 'public', 'LOGIN'].sort());
});
