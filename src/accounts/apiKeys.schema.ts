import { builder, idOf, type PayloadFields, PayloadType } from '../graphql/builder.ts';
import { page, pageArgs, textKey } from '../graphql/connection.ts';
import { sessionOf, viewerOf } from '../graphql/context.ts';
import { createApiKey, findApiKey, listApiKeys, revokeApiKey } from './apiKeys.ts';
import { accessPayload, isSelfOrManager, outcome, PermissionType, UserType } from './schema.ts';
import type { ApiKey, User } from './tables.ts';
import { findUser } from './users.ts';
import { allows } from './viewer.ts';

export const ApiKeyType = builder.node(builder.objectRef<ApiKey>('ApiKey'), {
  description: 'A secret with which a program acts in the name of its owner. Seen by the owner and by administrators.',
  id: { resolve: (k) => k.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findApiKey(db, id),
  authScopes: (k, context) => isSelfOrManager(k.userId, context),
  fields: (t) => ({
    name: t.exposeString('name', { description: 'What its owner calls it.' }),
    prefix: t.exposeString('prefix', { description: 'The part behind `wsk_` with which its secret begins: it tells keys apart.' }),
    owner: t.field({
      type: UserType,
      description: 'The user who made it. It works while they are not disabled, within what their role allows at that moment.',
      resolve: (k, _a, { db }) => findUser(db, k.userId) as User,
    }),
    scopes: t.field({ type: [PermissionType], description: 'What it may do, within the role of its owner.', resolve: (k) => k.scopesJson }),
    deployments: t.field({
      type: ['String'],
      nullable: true,
      description: 'Names of the deployments that it infers with; null is all of them.',
      resolve: (k) => k.deploymentsJson,
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was made.' }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', nullable: true, description: 'From when on it does not work; null is never.' }),
    lastUsedAt: t.expose('lastUsedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was last used, to a minute; null is never.',
    }),
    revokedAt: t.expose('revokedAt', { type: 'DateTime', nullable: true, description: 'When it was revoked; null if it was not.' }),
  }),
});

const ApiKeyConnection = builder.connectionObject(
  { type: ApiKeyType, name: 'ApiKeyConnection', description: 'A page of API keys.' },
  { description: 'An API key in a page.' },
);

builder.queryField('apiKeys', (t) =>
  t.field({
    type: ApiKeyConnection,
    description: "The viewer's API keys, newest first, also those that work no more; an administrator sees everybody's.",
    authScopes: { can: 'READ' },
    args: pageArgs(),
    resolve: (_root, args, context) => {
      const viewer = viewerOf(context);
      const ownerId = allows(viewer, 'MANAGE_USERS') ? null : viewer.user.id;
      return page(
        'apiKeys',
        args,
        textKey,
        (limit, after) => listApiKeys(context.db, ownerId, limit, after),
        (row) => row.id,
      );
    },
  }),
);

builder.relayMutationField(
  'createApiKey',
  {
    inputFields: (t) => ({
      name: t.string({ required: true, description: 'What uses it, for example: 1 to 100 characters.' }),
      scopes: t.field({
        type: [PermissionType],
        description: 'What it may do: permissions that your own role has. Null is INFER alone. TRY_DEPLOYMENTS is none.',
      }),
      deployments: t.stringList({
        description:
          'Names of the deployments that it infers with; null is all, also later ones. Where there are replicas, a name may be theirs.',
      }),
      expiresInDays: t.int({ description: 'Days until it works no more, 1 to 3650; null is never.' }),
    }),
  },
  {
    description:
      'Makes an API key of the viewer, for the server and for the inference host; at most 50 of a user work at the same time. Not with an API key.',
    authScopes: { $all: { can: 'READ', login: true } },
    resolve: (_root, { input }, context) =>
      accessPayload(context, () => createApiKey(context, context.actor, sessionOf(context).user, input)),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<ReturnType<typeof createApiKey>>) => ({
      apiKey: t.field({ type: ApiKeyType, nullable: true, description: 'The new key.', resolve: (p) => p.result?.row }),
      secret: t.string({
        nullable: true,
        description: 'Shown this once. Send it as `Authorization: Bearer <secret>` to the server or to the inference host.',
        resolve: (p) => p.result?.secret,
      }),
    }),
  },
);

builder.relayMutationField(
  'revokeApiKey',
  { inputFields: (t) => ({ apiKeyId: t.id({ required: true, description: 'The key to revoke.' }) }) },
  {
    description: "Ends an API key for good. Others than one's own need an administrator; an API key can end itself.",
    authScopes: (_root, { input }, { db, viewer }) => {
      const id = idOf('ApiKey', input.apiKeyId);
      const isOwn = viewer?.by === 'API_KEY' ? viewer.key.id === id : viewer !== null && findApiKey(db, id)?.userId === viewer.user.id;
      return isOwn ? true : { can: 'MANAGE_USERS' };
    },
    resolve: (_root, { input }, context) =>
      accessPayload(context, () => revokeApiKey(context, context.actor, idOf('ApiKey', input.apiKeyId))),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<ApiKey>) => ({
      apiKey: t.field({
        type: ApiKeyType,
        nullable: true,
        grantScopes: [outcome],
        description: 'The key as it is now.',
        resolve: (p) => p.result,
      }),
    }),
  },
);
