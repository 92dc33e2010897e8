import { builder, idOf, type PayloadFields, PayloadType } from '../graphql/builder.ts';
import { page, pageArgs, textKey } from '../graphql/connection.ts';
import { viewerOf } from '../graphql/context.ts';
import { createApiKey, findApiKey, listApiKeys, revokeApiKey } from './apiKeys.ts';
import { may } from './permissions.ts';
import { accessPayload, isSelfOrManager, UserType } from './schema.ts';
import type { ApiKey, User } from './tables.ts';
import { findUser } from './users.ts';

const ApiKeyType = builder.node(builder.objectRef<ApiKey>('ApiKey'), {
  description: 'A secret with which a program infers in the name of its owner. Seen by the owner and by administrators.',
  id: { resolve: (k) => k.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findApiKey(db, id),
  authScopes: (k, context) => isSelfOrManager(k.userId, context),
  fields: (t) => ({
    name: t.exposeString('name', { description: 'What its owner calls it.' }),
    prefix: t.exposeString('prefix', { description: 'The part behind `wsk_` with which its secret begins: it tells keys apart.' }),
    owner: t.field({
      type: UserType,
      description: 'The user who made it. It works while they are not disabled and have the permission INFER.',
      resolve: (k, _a, { db }) => findUser(db, k.userId) as User,
    }),
    deployments: t.field({
      type: ['String'],
      nullable: true,
      description: 'Names of the deployments that it is for; null is all of them.',
      resolve: (k) => k.deploymentsJson,
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was made.' }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', nullable: true, description: 'From when on it does not work; null is never.' }),
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
      const { user } = viewerOf(context);
      const ownerId = may(user.role, 'MANAGE_USERS') ? null : user.id;
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
      deployments: t.stringList({
        description:
          'Names of the deployments that it is for; null is all, also later ones. Where there are replicas, a name may be theirs.',
      }),
      expiresInDays: t.int({ description: 'Days until it works no more, 1 to 3650; null is never.' }),
    }),
  },
  {
    description: 'Makes an API key of the viewer for the inference host; at most 50 of a user work at the same time.',
    authScopes: { can: 'INFER' },
    resolve: (_root, { input }, context) =>
      accessPayload(context, () => createApiKey(context, context.actor, viewerOf(context).user, input)),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<ReturnType<typeof createApiKey>>) => ({
      apiKey: t.field({ type: ApiKeyType, nullable: true, description: 'The new key.', resolve: (p) => p.result?.row }),
      secret: t.string({
        nullable: true,
        description: 'Shown this once. Send it as `Authorization: Bearer <secret>` to the inference host.',
        resolve: (p) => p.result?.secret,
      }),
    }),
  },
);

builder.relayMutationField(
  'revokeApiKey',
  { inputFields: (t) => ({ apiKeyId: t.id({ required: true, description: 'The key to revoke.' }) }) },
  {
    description: "Ends an API key for good. Others than one's own need an administrator.",
    authScopes: (_root, { input }, { db, viewer }) =>
      viewer !== null && findApiKey(db, idOf('ApiKey', input.apiKeyId))?.userId === viewer.user.id ? true : { can: 'MANAGE_USERS' },
    resolve: (_root, { input }, context) =>
      accessPayload(context, () => revokeApiKey(context, context.actor, idOf('ApiKey', input.apiKeyId))),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<ApiKey>) => ({
      apiKey: t.field({ type: ApiKeyType, nullable: true, description: 'The key as it is now.', resolve: (p) => p.result }),
    }),
  },
);
