import {
  type GraphQLArgument,
  type GraphQLInputField,
  type GraphQLInputType,
  getNamedType,
  getNullableType,
  isEnumType,
  isInputObjectType,
  isLeafType,
  isListType,
  isNonNullType,
  isObjectType,
} from 'graphql';
import { describe, expect, test } from 'vitest';
import { schema } from '../src/graphql/schema.ts';
import { idOf, storeObjects } from './support/objects.ts';
import { sample } from './support/sample.ts';
import type { TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { ask, withConnection } from './support/socket.ts';

/*
 * Whatever stands in an argument, the answer is a result or an error that says what is wrong: INTERNAL is a defect. The documents are
 * generated from the schema, so that a new field is tried too.
 */

const encode = (text: string) => Buffer.from(text).toString('base64url');

const nodeTypes = schema.getPossibleTypes(schema.getType('Node') as never).map(({ name }) => name);

const texts = [
  '',
  ' ',
  '.',
  '..',
  '/',
  '%2e',
  '\0',
  'x\0y',
  '\ud800',
  'x\udc00',
  '🙂',
  '__proto__',
  'toString',
  '%%% no base64',
  '-1',
  'x'.repeat(100_000),
  // Cursors: JSON of another kind, or none.
  ...[
    '5',
    '-1',
    '1.5',
    '9007199254740993',
    '1e999',
    'null',
    'true',
    '{}',
    '[]',
    '[1]',
    '"x"',
    '""',
    '"\\u0000"',
    '"\\ud800"',
    '"1 "',
    '"x y"',
  ].map(encode),
  encode(`"${'x'.repeat(10_000)}"`),
  encode('\xff\xfe'),
  // Ids of each type.
  ...nodeTypes.flatMap((type) => [`${type}:`, `${type}:\0`, `${type}:x`].map(encode)),
  ...[
    'DatasetItem:DatasetVersion:',
    'DatasetItem:DatasetVersion:x',
    'DatasetItem:DatasetVersion:1e999',
    'DatasetItem:DatasetVersion:-1.5',
  ].map(encode),
];

const odd: Record<string, readonly unknown[]> = {
  String: texts,
  ID: texts,
  Int: [0, -1, 2 ** 31 - 1, -(2 ** 31)],
  SafeInt: [0, -1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER],
  Float: [0, -1, Number.MAX_VALUE, -Number.MAX_VALUE, 5e-324],
  Boolean: [true, false],
  DateTime: ['+275760-09-13T00:00:00.000Z', '-271821-04-20T00:00:00.000Z', '1970-01-01T00:00:00.000Z'],
  JSON: [{}, [], '', 0, -1, 'x\0', { '': null }, JSON.parse('{"__proto__": {"toString": 1}}'), [[[[[[{ a: [] }]]]]]]],
};

/** Values of a type that are odd in one place each, the rest as little as is required. */
function* oddValues(type: GraphQLInputType): Generator<unknown> {
  const bare = getNullableType(type);
  if (!isNonNullType(type)) yield null;
  if (isListType(bare)) {
    yield [];
    for (const value of oddValues(bare.ofType)) yield [value];
    yield Array(5).fill(sample(bare.ofType));
  } else if (isEnumType(bare)) for (const { name } of bare.getValues()) yield name;
  else if (isInputObjectType(bare)) {
    const usual = sample(bare) as object;
    for (const field of Object.values(bare.getFields())) {
      for (const value of oddValues(field.type)) yield bare.isOneOf ? { [field.name]: value } : { ...usual, [field.name]: value };
    }
  } else yield* odd[(bare as { name: string }).name] ?? [];
}

const needed = (args: readonly (GraphQLArgument | GraphQLInputField)[]) =>
  args.filter((arg) => isNonNullType(arg.type) && arg.defaultValue === undefined && ('default' in arg ? arg.default === undefined : true));

interface Place {
  name: string;
  /** The document's part before and behind the field. */
  open: string;
  close: string;
  args: readonly GraphQLArgument[];
  selection: string;
}

/** Every field with arguments: of a root, and of each object that `storeObjects` makes. */
const places: Place[] = Object.values(schema.getTypeMap()).flatMap((type) => {
  if (!isObjectType(type) || type.name.startsWith('__')) return [];
  const root = { Query: 'query', Mutation: 'mutation', Subscription: 'subscription' }[type.name];
  if (!root && !nodeTypes.includes(type.name)) return [];
  return Object.values(type.getFields()).flatMap(({ name, args, type: of }) => {
    const selection = isLeafType(getNamedType(of)) ? '' : root === 'mutation' ? ' { userErrors { field } }' : ' { __typename }';
    const inner = ['', ` { node(id: "${idOf(type.name)}") { ... on ${type.name}`];
    const [open, close] = root ? [` { `, ' }'] : [`${inner[1]} { `, ' } } }'];
    // The stored report has no content to export, and a format is one of three.
    return args.length === 0 || name === 'export'
      ? []
      : [{ name: `${type.name}.${name}`, open: `${root ?? 'query'}§${open}${name}`, close, args, selection }];
  });
});

/** The document of a place and its variables, with `value` for one of its arguments. */
function documentOf({ open, close, args, selection }: Place, odd: GraphQLArgument, value: unknown) {
  const given = new Set([...(needed(args) as GraphQLArgument[]), odd]);
  const declared = [...given].map(({ name, type }) => `$${name}: ${type}`).join(', ');
  const passed = [...given].map(({ name }) => `${name}: $${name}`).join(', ');
  const query = `${open.replace('§', ` (${declared})`)}(${passed})${selection}${close}`;
  const variables = Object.fromEntries([...given].map((arg) => [arg.name, arg === odd ? value : sample(arg.type)]));
  return { query, variables };
}

let server: TestServer;
withSharedServer((running) => {
  server = running;
  storeObjects(server);
});

interface ErrorLike {
  message: string;
  extensions: { code: string };
}
interface UserErrorLike {
  field: string[] | null;
}

/** Whether a path names something inside of an input of this type. */
function isPath([name, ...rest]: string[], type: GraphQLInputType): boolean {
  const bare = getNullableType(type);
  if (name === undefined) return true;
  if (isListType(bare)) return /^\d+$/.test(name) && isPath(rest, bare.ofType);
  // Of what is inside of a JSON value the schema says nothing.
  if (!isInputObjectType(bare)) return bare.toString() === 'JSON';
  const field = bare.getFields()[name];
  return field !== undefined && isPath(rest, field.type);
}

const defects = (errors: ErrorLike[] | undefined) => (errors ?? []).filter(({ extensions }) => extensions.code === 'INTERNAL');

describe('no value of an argument makes INTERNAL, and what is wrong with an input names an argument', () => {
  test.each(places.filter(({ name }) => !name.startsWith('Subscription.')).map((place) => [place.name, place] as const))(
    '%s',
    async (_name, place) => {
      const token = await server.as('ADMIN');
      const failed: unknown[] = [];
      for (const arg of place.args) {
        const tries = [...oddValues(arg.type)].map(async (value) => {
          const { query, variables } = documentOf(place, arg, value);
          const { errors, data } = await server.graphql(query, variables, token);
          const wrong = Object.values((data ?? {}) as Record<string, { userErrors?: UserErrorLike[] }>)
            .flatMap((payload) => payload?.userErrors ?? [])
            .filter(({ field }) => field !== null && !isPath(field, arg.type));
          if (defects(errors).length > 0 || wrong.length > 0) failed.push([query, JSON.stringify(variables).slice(0, 300), wrong]);
        });
        await Promise.all(tries);
      }
      expect(failed).toEqual([]);
    },
  );

  test.each(places.filter(({ name }) => name.startsWith('Subscription.')).map((place) => [place.name, place] as const))(
    '%s',
    async (_name, place) => {
      const failed: unknown[] = [];
      const token = await server.as('ADMIN');
      for (const arg of place.args) {
        for (const value of oddValues(arg.type)) {
          const { query, variables } = documentOf(place, arg, value);
          await withConnection(server.url, token, async (socket) => {
            const answered = ask(socket, 'odd', query, variables).then(({ type, payload }) =>
              type === 'error' ? payload : payload.errors,
            );
            answered.catch(() => {});
            // A refusal comes within one turn of the server.
            for (const later of ['1', '2', '3']) await ask(socket, later, '{ __typename }');
            const errors = await Promise.race([answered, Promise.resolve(undefined)]);
            if (defects(errors).length > 0) failed.push([query, JSON.stringify(variables).slice(0, 300)]);
          });
        }
      }
      expect(failed).toEqual([]);
    },
  );
});

test('a cursor of one list is refused by every other, and by the same list in another order', async () => {
  const token = await server.as('ADMIN');
  const lists = [
    'users',
    'auditLog',
    'apiKeys',
    'datasets(orderBy: NAME)',
    'datasets(orderBy: CREATED_AT)',
    'models(orderBy: NAME)',
    'models(orderBy: CREATED_AT)',
    'jobs(orderBy: NEWEST)',
    'jobs(orderBy: OLDEST)',
    'reports',
    'deployments',
    'dataset(name: "one") { versions',
    'dataset(name: "one") { version { items',
    'model(name: "one") { versions',
  ];
  await server.graphql('mutation { createApiKey(input: { name: "one" }) { secret } }', {}, token);
  const read = async (list: string, after: string) => {
    const closing = ' }'.repeat(list.split('{').length - 1);
    const field = list.endsWith(')') && !list.includes('{') ? list.replace(')', `, after: ${after})`) : `${list}(after: ${after})`;
    const { data, errors } = await server.graphql(`{ ${field} { pageInfo { startCursor } }${closing} }`, {}, token);
    return { cursor: /"startCursor":("[^"]*")/.exec(JSON.stringify(data ?? {}))?.[1], code: errors?.[0].extensions.code };
  };
  for (const one of lists) {
    const { cursor } = await read(one, 'null');
    expect(cursor, one).toBeDefined();
    for (const other of lists) {
      const expected = one === other ? undefined : 'NOT_FOUND';
      expect((await read(other, cursor as string)).code, `${one} in ${other}`).toBe(expected);
    }
  }
});

test('a cursor of another list, or of no list, is NOT_FOUND in every connection', async () => {
  const token = await server.as('ADMIN');
  const connections = places.filter(
    ({ name, args }) =>
      /^(Query|Model|Dataset|DatasetVersion)\./.test(name) && args.some((arg) => arg.name === 'after' && String(arg.type) === 'String'),
  );
  expect(connections.length).toBeGreaterThan(8);
  for (const place of connections) {
    const after = place.args.find(({ name }) => name === 'after') as GraphQLArgument;
    for (const text of ['%%%', encode('null'), encode('{}'), encode('[1]'), encode('true'), encode('1.5')]) {
      const { query, variables } = documentOf(place, after, text);
      const { errors } = await server.graphql(query, variables, token);
      expect(
        errors?.map((e) => e.extensions.code),
        `${place.name} ${text}`,
      ).toEqual(['NOT_FOUND']);
    }
    // Keys are texts or numbers: one of the two is of another list.
    const answers = ['5', '"x"'].map(async (key) => {
      const { query, variables } = documentOf(place, after, encode(key));
      return (await server.graphql(query, variables, token)).errors?.map((e) => e.extensions.code);
    });
    expect(await Promise.all(answers), place.name).toContainEqual(['NOT_FOUND']);
  }
});
