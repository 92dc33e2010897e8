import {
  type GraphQLFieldConfig,
  GraphQLID,
  GraphQLInt,
  GraphQLList,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLSchema,
  GraphQLString,
  getIntrospectionQuery,
} from 'graphql';
import { describe, expect, test } from 'vitest';
import type { ApiError } from '../src/errors.ts';
import { checkDocument, parseLimited } from '../src/graphql/limits.ts';
import { adminName, adminPassword, postGraphql, type TestServer, withServer } from './support/server.ts';
import { ask, withConnection } from './support/socket.ts';

const times = (count: number, make: (i: number) => string, separator = ' ') =>
  Array.from({ length: count }, (_, i) => make(i)).join(separator);
const nested = (depth: number, open: string, innermost: string) => `${open.repeat(depth)}${innermost}${'}'.repeat(depth)}`;
const loginField = 'login(input: { name: "a", password: "b" }) { userErrors { code } }';

/** Documents that cost more than they are worth, and the code that each gets. */
const hostile: Record<string, [code: string, document: string]> = {
  '5,000 levels': ['LIMIT', `{${nested(5000, 'a{', 'b')}}`],
  '40 levels': ['LIMIT', `{ __schema { types { ${nested(40, 'ofType { ', 'name')} } } }`],
  '40 levels of which each is a fragment': [
    'LIMIT',
    `{ viewer { ...F0 } } ${times(40, (i) => `fragment F${i} on User { sessions { ...F${i + 1} } }`)}`,
  ],
  '5,000 fields': ['LIMIT', `{ ${times(5000, (i) => `a${i}`)} }`],
  '301 times the same field': ['LIMIT', `{ viewer { ${'id '.repeat(301)} } }`],
  '200 aliases': ['LIMIT', `{ ${times(200, (i) => `a${i}: viewer { id }`)} }`],
  '64 aliases by fragments': ['LIMIT', `{ viewer { ...A ...A ...A ...A } } fragment A on User { ${times(16, (i) => `a${i}: id`)} }`],
  '50 aliased logins': ['LIMIT', `mutation { ${times(50, (i) => `a${i}: ${loginField}`)} }`],
  'two logins': ['LIMIT', `mutation { ${loginField} b: ${loginField} }`],
  'two logins in fragments': ['LIMIT', `mutation { ...on Mutation { ${loginField} } ...L } fragment L on Mutation { b: ${loginField} }`],
  'two logins in nested fragments': [
    'LIMIT',
    `mutation { ${loginField} ...A } fragment A on Mutation { ...B } fragment B on Mutation { b: ${loginField} }`,
  ],
  'a login and a refresh': ['LIMIT', `mutation { ${loginField} refresh(input: { refreshToken: "x" }) { userErrors { code } } }`],
  '30 × 30 overlapping inline fragments': ['LIMIT', `{ viewer { ${`... on User { ${'... on User { id } '.repeat(30)} } `.repeat(30)} } }`],
  '400 overlapping fragments that nothing uses': ['LIMIT', `{ viewer { id } } fragment F on User { ${'...{ id } '.repeat(395)} }`],
  'fragments that double 30 times': [
    'LIMIT',
    `{ viewer { ...F0 } } ${times(30, (i) => `fragment F${i} on User { ...F${i + 1} ...F${i + 1} }`)} fragment F30 on User { id }`,
  ],
  'fragments that call each other in a tangle': [
    'LIMIT',
    `{ viewer { ...F0 } } ${times(40, (i) => `fragment F${i} on User { ${times(10, (j) => `...F${(i * 7 + j * 3 + 1) % 40}`)} }`)}`,
  ],
  '50 times the curves of 100 jobs': ['LIMIT', `{ jobs(first: 100) { nodes { ${times(50, (i) => `a${i}: metrics { values }`)} } } }`],
  'the curves of 100 jobs with all their points': ['LIMIT', '{ jobs(first: 100) { nodes { metrics(maxPoints: 5000) { values } } } }'],
  'curves with so few points that they cost less than nothing': [
    'LIMIT',
    '{ jobs(first: 100) { nodes { a: metrics(maxPoints: -5000) { values } b: metrics(maxPoints: 5000) { values } } } }',
  ],
  '50 times the classes of 20 dataset versions': [
    'LIMIT',
    `{ datasets { nodes { versions { nodes { ${times(50, (i) => `a${i}: classes { name }`)} } } } } }`,
  ],
  '50 times the log of 100 jobs': ['LIMIT', `{ jobs(first: 100) { nodes { ${times(50, (i) => `a${i}: logs(after: 9) { n }`)} } } }`],
  '1,000 lines of the logs of 100 jobs': ['LIMIT', '{ jobs(first: 100) { nodes { logs(first: 1000) { text } } } }'],
  '50 times the evaluations of 400 model versions': [
    'LIMIT',
    `{ models { nodes { versions { nodes { ${times(50, (i) => `a${i}: evaluations { top1 }`)} } } } } }`,
  ],
  '50 times whether 20 reports are right': [
    'LIMIT',
    `{ nodes(ids: [${times(20, () => '"x"', ', ')}]) { ${times(50, (i) => `... on Report { a${i}: verified }`)} } }`,
  ],
  'a fragment inside itself': ['INVALID_DOCUMENT', '{ viewer { ...F } } fragment F on User { ...F }'],
  'fragments in a circle': [
    'INVALID_DOCUMENT',
    '{ viewer { ...A } } fragment A on User { ...B } fragment B on User { ...C } fragment C on User { ...A id }',
  ],
  'a circle that nothing uses': ['INVALID_DOCUMENT', '{ viewer { id } } fragment A on User { ...B } fragment B on User { ...A }'],
  'an unknown fragment': ['INVALID_DOCUMENT', '{ viewer { ...Nothing } }'],
  '2,001 tokens': ['LIMIT', `{ viewer { id ${'@x '.repeat(1000)} } }`],
  'a list of 900 levels as an argument': ['LIMIT', `{ users(filter: ${'['.repeat(1000)}${']'.repeat(1000)}) { nodes { id } } }`],
  'a comment of 70,000 characters': ['LIMIT', `# ${'x'.repeat(70_000)}\n{ viewer { id } }`],
  '300 unknown fields': ['INVALID_DOCUMENT', `{ ${times(299, (i) => `viewr${i}`)} }`],
  '600 arguments': ['INVALID_DOCUMENT', `{ users(${times(600, (i) => `a${i}: 1`)}) { nodes { id } } }`],
  '300 variables': ['INVALID_DOCUMENT', `query (${times(300, (i) => `$v${i}: Int`)}) { viewer { id } }`],
  '300 directives': ['INVALID_DOCUMENT', `{ viewer { id ${'@include(if: true) '.repeat(280)} } }`],
  '250 operations': ['INVALID_DOCUMENT', times(250, (i) => `query a${i} { viewer { id } }`)],
  'an empty document': ['INVALID_DOCUMENT', ''],
  'a document of white space': ['INVALID_DOCUMENT', ' '.repeat(60_000)],
  'no operation': ['INVALID_DOCUMENT', 'fragment F on User { id }'],
  'a NUL': ['INVALID_DOCUMENT', '{ viewer { id\u0000 } }'],
  'half a document': ['INVALID_DOCUMENT', '{ viewer { '],
  'a type definition': ['INVALID_DOCUMENT', 'type Query { a: Int }'],
  'an unknown operation type': ['INVALID_DOCUMENT', 'delete { users }'],
};

describe('a hostile document gets its code and a 4xx, over HTTP twice and over a socket, and the server goes on', () => {
  test.each(Object.entries(hostile))('%s', (_what, [code, document]) =>
    withServer(async (server) => {
      for (let i = 0; i < 2; i++) {
        const response = await fetch(`${server.url}/graphql`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', accept: 'application/graphql-response+json' },
          body: JSON.stringify({ query: document }),
        });
        const { data, errors } = (await response.json()) as { data?: unknown; errors: { extensions: { code: string } }[] };
        expect(data).toBeUndefined();
        expect([response.status, errors[0]?.extensions.code]).toEqual([400, code]);
        expect(new Set(errors.map((e) => e.extensions.code)).size, 'one kind of error').toBe(1);
      }
      await withConnection(server.url, undefined, async (socket) => {
        const { type, payload } = await ask(socket, 'hostile', document);
        expect(type).toBe('error');
        expect(payload[0].extensions).toMatchObject({ code, retryable: false, requestId: expect.any(String) });
        expect((await ask(socket, 'good', '{ __typename }')).payload).toEqual({ data: { __typename: 'Query' } });
      });
    }),
  );
});

test('no refused login was tried: a document of many costs no hash and counts as no failure', () =>
  withServer(async (server) => {
    await server.admin();
    const many = `mutation ($i: LoginInput!) { ${times(50, (i) => `a${i}: login(input: $i) { userErrors { code } }`)} }`;
    for (let i = 0; i < 10; i++) {
      const { errors } = await server.graphql(many, { i: { name: adminName, password: 'wrong' } });
      expect(errors?.[0].extensions.code).toBe('LIMIT');
    }
    await server.login(adminName, adminPassword);
  }));

test('one login beside other fields is no abuse', () =>
  withServer(async (server) => {
    await server.admin();
    const one =
      'mutation ($i: LoginInput!) { login(input: $i) { userErrors { code } } logout(input: { refreshToken: "x" }) { userErrors { code } } }';
    expect((await server.graphql(one, { i: { name: adminName, password: adminPassword } })).errors).toBeUndefined();
  }));

/** Bodies that are JSON, or nearly, and no request. */
const bodies: Record<string, string> = {
  'no JSON': '{"query": ',
  'an empty body': '',
  null: 'null',
  'a number': '7',
  'a string': '"{ viewer { id } }"',
  'a batch': '[{"query":"{ viewer { id } }"},{"query":"{ viewer { id } }"}]',
  'no query': '{}',
  'a query that is no string': '{"query": {"a": 1}}',
  'variables that are no object': '{"query": "{ __typename }", "variables": [1]}',
  'an operation name that is no string': '{"query": "{ __typename }", "operationName": 7}',
  'an unknown parameter': '{"query": "{ __typename }", "token": "x"}',
  'variables of 100,000 levels': `{"query": "query ($i: UserFilter) { users(filter: $i) { nodes { id } } }", "variables": {"i": ${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}}}`,
  'a list of 100,000 levels': `{"query": "query ($i: UserFilter) { users(filter: $i) { nodes { id } } }", "variables": {"i": ${'['.repeat(100_000)}${']'.repeat(100_000)}}}`,
  'a name of 1 MB': JSON.stringify({
    query: 'query ($i: Role) { users(filter: { role: $i }) { nodes { id } } }',
    variables: { i: 'x'.repeat(1_000_000) },
  }),
  'an operation that is not in the document': '{"query": "query a { __typename }", "operationName": "b"}',
  'an invalid encoding': '{"query": "\ud800"}',
};

test.each(Object.entries(bodies))('a body with %s is 400', (_what, body) =>
  withServer(async ({ url }) => {
    const response = await fetch(`${url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/graphql-response+json' },
      body,
    });
    const { errors } = (await response.json()) as { errors: { message: string; extensions: { code: string } }[] };
    expect([response.status, errors[0]?.extensions.code]).toEqual([400, 'INVALID_DOCUMENT']);
    expect(errors[0]?.message.length, 'the message does not echo the body').toBeLessThan(2000);
  }),
);

test('names that mean something to JavaScript mean nothing here', () =>
  withServer(async (server) => {
    const query =
      'query ($v: UserFilter) { __proto__: viewer { constructor: id } toString: __typename hasOwnProperty: users(filter: $v) { nodes { id } } }';
    const { data, errors } = await server.graphql(query, { v: {}, __proto__: { a: 1 }, constructor: 1 }, await server.admin());
    expect(errors).toBeUndefined();
    expect(Object.keys(data).sort()).toEqual(['__proto__', 'hasOwnProperty', 'toString']);
    expect(({} as { a?: number }).a).toBeUndefined();
  }));

test('what GraphiQL and other tools ask first is within the limits, with every option', () =>
  withServer(async (server) => {
    const all = {
      descriptions: true,
      specifiedByUrl: true,
      directiveIsRepeatable: true,
      schemaDescription: true,
      inputValueDeprecation: true,
      oneOf: true,
    };
    const { data, errors } = await server.graphql(getIntrospectionQuery(all));
    expect(errors).toBeUndefined();
    expect(data.__schema.types.length).toBeGreaterThan(20);
  }));

describe('the objects that lists can return are multiplied', () => {
  const things = (): GraphQLFieldConfig<unknown, unknown> => ({
    type: new GraphQLNonNull(Things),
    args: { first: { type: new GraphQLNonNull(GraphQLInt), defaultValue: 20 } },
  });
  const Thing: GraphQLObjectType = new GraphQLObjectType({
    name: 'Thing',
    fields: () => ({ things: things(), name: { type: GraphQLString } }),
  });
  const Things = new GraphQLObjectType({ name: 'Things', fields: { nodes: { type: new GraphQLList(Thing) } } });
  const ids = { type: new GraphQLList(Thing), args: { ids: { type: new GraphQLList(GraphQLID) } } };
  const schema = new GraphQLSchema({ query: new GraphQLObjectType({ name: 'Query', fields: { things: things(), ids } }) });
  const within = (document: string, variables: Record<string, unknown> = {}): boolean => {
    try {
      checkDocument(schema, parseLimited(document), variables);
      return true;
    } catch (error) {
      expect((error as ApiError).message).toContain('20000 are allowed');
      return false;
    }
  };
  const levels = (...firsts: string[]) =>
    `${firsts.map((first) => `{ things${first} { nodes `).join('')}{ name }${' } }'.repeat(firsts.length)}`;

  test.each<[what: string, within: boolean, document: string, variables?: Record<string, unknown>]>([
    ['100 × 100', true, levels('(first: 100)', '(first: 100)')],
    ['100 × 201', false, levels('(first: 100)', '(first: 201)')],
    ['one list of 20,001', false, levels('(first: 20001)')],
    ['three levels with the default of 20', true, levels('', '', '')],
    ['four levels with the default of 20', false, levels('', '', '', '')],
    [
      'lists beside each other are added',
      false,
      `{ a: things(first: 10001) { nodes { name } } b: things(first: 10000) { nodes { name } } }`,
    ],
    ['by a variable', false, `query ($n: Int!) ${levels('(first: $n)', '(first: $n)')}`, { n: 200 }],
    ['by a small variable', true, `query ($n: Int!) ${levels('(first: $n)', '(first: $n)')}`, { n: 2 }],
    ["by a variable's default", false, `query ($n: Int! = 200) ${levels('(first: $n)', '(first: $n)')}`],
    ['a given variable instead of the default', true, `query ($n: Int! = 200) ${levels('(first: $n)', '(first: $n)')}`, { n: 2 }],
    [
      'in fragments',
      false,
      `{ things(first: 200) { ...A } } fragment A on Things { nodes { ... on Thing { things(first: 200) { nodes { name } } } } }`,
    ],
    [
      'defaults in fragments',
      false,
      `{ things { nodes { ...A } } } fragment A on Thing { things { nodes { things { nodes { things { nodes { name } } } } } } }`,
    ],
    [
      'ids as a variable',
      false,
      'query ($i: [ID!]!) { ids(ids: $i) { things(first: 100) { nodes { name } } } }',
      { i: Array(201).fill('x') },
    ],
    ['ids as a list', false, `{ ids(ids: [${times(201, () => '"x"')}]) { things(first: 100) { nodes { name } } } }`],
    ['a cached document with larger variables', false, `query ($n: Int!) ${levels('(first: $n)', '(first: $n)')}`, { n: 100_000 }],
  ])('%s: %s', (_what, expected, document, variables) => {
    expect(within(document, variables)).toBe(expected);
  });
});

test('a document that was accepted is measured again with other variables', () =>
  withServer(async (server) => {
    const query = 'query ($ids: [ID!]!) { nodes(ids: $ids) { id } }';
    const { data } = await server.graphql('{ viewer { id } }', {}, await server.admin());
    const of = async (count: number) => server.graphql(query, { ids: Array(count).fill(data.viewer.id) }, await server.admin());
    expect((await of(1)).errors).toBeUndefined();
    expect((await of(20_001)).errors?.[0]).toMatchObject({
      message: expect.stringContaining('20000 are allowed'),
      extensions: { code: 'LIMIT' },
    });
  }));

test('the health check answers while 20 hostile documents are on their way', () =>
  withServer(async (server: TestServer) => {
    const answered: string[] = [];
    // As costly as the limits allow: each is validated pair by pair, and none is in the cache.
    const costly = (n: number) => `{ viewer { ${`... { sessions { id } } `.repeat(98)} x${n}: id } }`;
    const documents = Array.from({ length: 20 }, async (_, n) => {
      const { status } = await postGraphql(server.url, costly(n));
      answered.push(`document ${status}`);
    });
    const health = fetch(`${server.url}/health`).then(({ status }) => answered.push(`health ${status}`));
    await Promise.all([...documents, health]);
    expect(answered.filter((line) => line === 'document 200')).toHaveLength(20);
    expect(answered).toContain('health 200');
  }));

test('a document at the limits costs less than 15 times a small one', () => {
  // The ratio of CPU times of one run, about 4.5 with the 300 selections that are allowed. Of each the least: compiling and collecting garbage fall anywhere.
  const cost = async (server: TestServer, document: string) => {
    const startedAt = process.cpuUsage();
    await server.graphql(document);
    const { user, system } = process.cpuUsage(startedAt);
    return user + system;
  };
  return withServer(async (server) => {
    const costs: { small: number; large: number }[] = [];
    // Another name each time, so that none is in the cache.
    for (let n = 0; n < 40; n += 1) {
      costs.push({
        small: await cost(server, `{ viewer { x${n}: id } }`),
        large: await cost(server, `{ ${'viewer { id } '.repeat(148)} x${n}: __typename }`),
      });
    }
    expect(Math.min(...costs.map(({ large }) => large))).toBeLessThan(15 * Math.min(...costs.map(({ small }) => small)));
  });
});
