import SchemaBuilder from '@pothos/core';
import RelayPlugin from '@pothos/plugin-relay';
import ScopeAuthPlugin, { type AuthFailure, AuthScopeFailureType } from '@pothos/plugin-scope-auth';
import { GraphQLError, GraphQLScalarType, type GraphQLSchema, isObjectType, Kind, type ValueNode } from 'graphql';
import type { Permission } from '../accounts/tables.ts';
import { allows, forbidden } from '../accounts/viewer.ts';
import { ApiError, errorCodes, InputError, type UserError } from '../errors.ts';
import { opaqueId } from '../naming.ts';
import type { Context } from './context.ts';

interface SchemaTypes {
  Context: Context;
  AuthScopes: { can: Permission; login: boolean; public: boolean };
  DefaultFieldNullability: false;
  DefaultEdgesNullability: false;
  DefaultNodeNullability: false;
  Scalars: {
    DateTime: { Input: number; Output: number };
    JSON: { Input: unknown; Output: unknown };
    SafeInt: { Input: number; Output: number };
    ID: { Input: string; Output: string };
  };
}

/** Every field has a scope: `can` a permission, or `public`. `login`: beside a permission, what a person does and no API key. */
export const builder = new SchemaBuilder<SchemaTypes>({
  plugins: [ScopeAuthPlugin, RelayPlugin],
  defaultFieldNullability: false,
  scopeAuth: {
    authorizeOnSubscribe: true,
    authScopes: ({ viewer }) => ({
      can: (permission) => viewer !== null && allows(viewer, permission),
      login: viewer?.by === 'SESSION',
      public: true,
    }),
    unauthorizedError: (_parent, { viewer }, _info, { failure }) =>
      viewer === null
        ? new ApiError('UNAUTHENTICATED', 'This needs a login: send `Authorization: Bearer <access token or API key>`.')
        : forbidden(viewer, permissionOf(failure)),
  },
  relay: {
    clientMutationId: 'omit',
    cursorType: 'String',
    nodeTypeOptions: { description: 'Anything that `node` finds by its id.' },
    idFieldOptions: { description: 'Opaque id, unique over all types.' },
    nodeQueryOptions: {
      description: 'One object by its id; null when there is none.',
      nullable: true,
      authScopes: { can: 'READ' },
      args: { id: { description: 'The id of the object.' } },
      resolve: (_root, { id }, _context, { schema }, resolveNode) => {
        requireNodeType(schema, id.typename);
        return resolveNode(id);
      },
    },
    nodesQueryOptions: {
      description: 'Several objects by their ids, at most 100, in the order of the ids; null for each that does not exist.',
      nullable: { list: false, items: true },
      authScopes: { can: 'READ' },
      args: { ids: { description: 'The ids of the objects.' } },
      resolve: (_root, { ids }, _context, { schema }, resolveNodes) => {
        if (ids.length > 100) throw new ApiError('LIMIT', 'At most 100 ids can be asked for at once.');
        for (const { typename } of ids) requireNodeType(schema, typename);
        return resolveNodes(ids);
      },
    },
    encodeGlobalID: (type, id) => opaqueId(type, String(id)),
    decodeGlobalID: decodeId,
    defaultMutationInputTypeOptions: { description: 'What the mutation of this name needs.' },
    defaultPayloadTypeOptions: { description: 'What the mutation of this name answers.' },
    mutationInputArgOptions: { description: 'What the mutation needs.' },
    pageInfoTypeOptions: { description: 'Where a page of a list stands in the whole.' },
    hasNextPageFieldOptions: { description: 'Whether there is more after this page.' },
    hasPreviousPageFieldOptions: { description: 'Whether there is something before this page.' },
    startCursorFieldOptions: { description: 'Cursor of the first item of this page.' },
    endCursorFieldOptions: { description: 'Cursor of the last item: the `after` of the next page.' },
    cursorFieldOptions: { description: 'The place of this item: an `after` that starts behind it.' },
    nodeFieldOptions: { description: 'The item.', nullable: false },
    edgesFieldOptions: { description: 'The items of this page with their cursors.', nullable: false },
    nodesOnConnection: { description: 'The items of this page.' },
    pageInfoFieldOptions: { description: 'Where this page stands.' },
  },
});

/** The permission that was missing; null where it was a login. */
function permissionOf(failure: AuthFailure): Permission | null {
  if ('failures' in failure) return failure.failures.map(permissionOf).find((permission) => permission !== null) ?? null;
  return failure.kind === AuthScopeFailureType.AuthScope && failure.scope === 'can' ? (failure.parameter as Permission) : null;
}

builder.queryType({ description: 'Everything that can be read.' });
builder.mutationType({ description: 'Everything that can be changed.' });
builder.subscriptionType({ description: 'Everything that can be followed, over WebSocket (graphql-transport-ws) or server-sent events.' });

/** The parts of an opaque id; no type's when it is of another form. It is read before the caller's scope is known: it does not throw. */
function decodeId(id: string): { typename: string; id: string } {
  const [, typename = '', key = ''] = /^([A-Za-z]+):(.+)$/s.exec(Buffer.from(id, 'base64url').toString()) ?? [];
  return { typename, id: key };
}

/** An id is only text: it may name any type, or none. */
function requireNodeType(schema: GraphQLSchema, typename: string): void {
  const type = schema.getType(typename);
  if (!isObjectType(type) || !type.getInterfaces().some(({ name }) => name === 'Node')) {
    throw new ApiError('NOT_FOUND', 'This is not an id that this server gave out.');
  }
}

/** The database id inside an opaque id; NOT_FOUND when it is of another type. */
export const idOf = (type: string, opaque: string): string => typedIdOf([type], opaque).id;

/** The type and the database id inside an opaque id; NOT_FOUND when it is of none of the types. */
export function typedIdOf<T extends string>(types: readonly T[], opaque: string): { type: T; id: string } {
  const { typename, id } = decodeId(opaque);
  const type = types.find((one) => one === typename);
  if (!type) throw new ApiError('NOT_FOUND', `This is not the id of a ${types.join(', ')}.`);
  return { type, id };
}

const refuseValue = (message: string): never => {
  throw new GraphQLError(message);
};

/** A scalar whose literals are read like its variables. */
function scalar(name: string, description: string, parse: (value: unknown) => unknown, serialize: (value: unknown) => unknown) {
  return new GraphQLScalarType({
    name,
    description,
    serialize,
    parseValue: parse,
    parseLiteral: (node: ValueNode) => {
      if (node.kind === Kind.INT || node.kind === Kind.FLOAT) return parse(Number(node.value));
      return node.kind === Kind.STRING || node.kind === Kind.BOOLEAN ? parse(node.value) : refuseValue(`${name} cannot be a ${node.kind}.`);
    },
  });
}

builder.addScalarType(
  'DateTime',
  scalar(
    'DateTime',
    'A moment as an ISO 8601 string in UTC with milliseconds.',
    (value) => {
      const time = typeof value === 'string' ? Date.parse(value) : Number.NaN;
      return Number.isNaN(time) ? refuseValue('A DateTime is a string like 2026-01-31T12:00:00.000Z.') : time;
    },
    (value) => new Date(value as number).toISOString(),
  ),
);
builder.addScalarType(
  'SafeInt',
  scalar(
    'SafeInt',
    'An integer between -(2⁵³ - 1) and 2⁵³ - 1: bytes, nanoseconds, sequence numbers.',
    (value) => (Number.isSafeInteger(value) ? value : refuseValue('A SafeInt is an integer of at most 53 bits.')),
    (value) => value,
  ),
);
builder.addScalarType(
  'JSON',
  new GraphQLScalarType({ name: 'JSON', description: 'Any JSON value.', serialize: (value) => value, parseValue: (value) => value }),
);

const ErrorCodeType = builder.enumType('ErrorCode', {
  description: 'What went wrong: `extensions.code` of a top-level error, or `code` of a user error.',
  values: Object.fromEntries(Object.entries(errorCodes).map(([code, { description }]) => [code, { description }])),
});

export const UserErrorType = builder.objectRef<UserError>('UserError').implement({
  description: 'Something in the input that its author can correct.',
  fields: (t) => ({
    code: t.field({ type: ErrorCodeType, description: 'The kind of error.', resolve: (e) => e.code }),
    message: t.exposeString('message', { description: 'What is wrong and what to do.' }),
    field: t.exposeStringList('field', { nullable: true, description: 'Path of the field inside the input; null for the whole.' }),
  }),
});

/** What a mutation answers: its result, or null and the user errors. */
export interface Payload<T> {
  result: T | null;
  userErrors: UserError[];
}

/** The builder of the fields of a payload beside `userErrors`. */
export type PayloadFields<T> = PothosSchemaTypes.ObjectFieldBuilder<typeof builder.$inferSchemaTypes, Payload<T>>;

/** Every mutation's payload. */
export const PayloadType = builder.interfaceRef<Payload<unknown>>('Payload').implement({
  description: 'What a mutation answers.',
  fields: (t) => ({
    userErrors: t.field({
      type: [UserErrorType],
      description: 'What is wrong with the input; empty when the mutation was carried out.',
      extensions: { size: 5 },
      resolve: (p) => p.userErrors,
    }),
  }),
});

/** Runs a mutation and turns an InputError into the payload's `userErrors`. */
export async function payload<T>(run: () => T | Promise<T>): Promise<Payload<T>> {
  try {
    return { result: await run(), userErrors: [] };
  } catch (error) {
    if (error instanceof InputError) return { result: null, userErrors: error.userErrors };
    throw error;
  }
}

/** The values of an enum from their descriptions: a value of `T` without one does not compile. */
export const enumValues = <T extends string>(descriptions: Record<T, string>) =>
  Object.fromEntries(Object.entries<string>(descriptions).map(([name, description]) => [name, { description }])) as Record<
    T,
    { description: string }
  >;
