import { builder, idOf, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import { page, pageArgs, textKey } from '../graphql/connection.ts';
import { type Context, sessionOf } from '../graphql/context.ts';
import { bootstrap } from './bootstrap.ts';
import { type Credentials, changePassword, login, logout, refresh, revokeSession } from './login.ts';
import { may } from './permissions.ts';
import { findSession, liveSessions } from './sessions.ts';
import { type Permission, permissionNames, type roles, type Session, type User } from './tables.ts';
import { createUser, findUser, listUsers, resetPassword, setUserDisabled, updateUser } from './users.ts';

const RoleType = builder.enumType('Role', {
  description: 'What a user may do.',
  values: {
    VIEWER: { description: 'Reads everything but users and the audit log, and tries deployments.' },
    ENGINEER: { description: 'Also uploads, starts and cancels jobs, deploys, and lets programs infer.' },
    ADMIN: { description: 'Also deletes, manages users and reads the audit log.' },
  } satisfies Record<(typeof roles)[number], unknown>,
});

export const PermissionType = builder.enumType('Permission', {
  description: 'One thing that a role allows, and a scope of API keys.',
  values: {
    READ: { description: 'Read datasets, models, jobs, reports.' },
    UPLOAD: { description: 'Upload files and make datasets and models of them.' },
    RUN_JOBS: { description: 'Start, cancel and retry jobs.' },
    DEPLOY: { description: 'Deploy models, roll back and undeploy.' },
    TRY_DEPLOYMENTS: {
      description:
        'Infer oneself: `infer`, `inferBatch`, and the inference host with an access token. No scope of API keys: that is INFER.',
    },
    INFER: { description: 'Let programs infer: with an API key that has this scope, on the server and on the inference host.' },
    DELETE: { description: 'Delete datasets, models and jobs.' },
    MANAGE_USERS: { description: 'Create, change and disable users, end their sessions.' },
    READ_AUDIT: { description: 'Read the audit log.' },
    CONFIGURE: { description: 'Create, change and delete webhooks, read their deliveries, change alert rules.' },
  } satisfies Record<Permission, unknown>,
});

/** The payload of a mutation that gives or takes access. When it is answered, the inference host decides by the change too. */
export const accessPayload = <T>({ supervisor }: Context, run: () => T | Promise<T>) =>
  payload(async () => {
    const result = await run();
    await supervisor.tellAccounts();
    return result;
  });

/** A mutation's payload grants this scope: users who may run the mutation may read its result. */
export const outcome = 'OUTCOME';

export const isSelfOrManager = (userId: string, { viewer }: Context) =>
  ({ $any: { can: viewer?.user.id === userId ? 'READ' : 'MANAGE_USERS', $granted: outcome } }) as const;

const SessionType = builder.node(builder.objectRef<Session>('Session'), {
  description: 'One login of a user, kept open by its refresh token. Seen by the user and by administrators.',
  id: { resolve: (s) => s.familyId, description: 'Opaque id: the same for the whole life of the session.' },
  loadOne: (familyId, { db }) => findSession(db, familyId),
  authScopes: (s, context) => isSelfOrManager(s.userId, context),
  fields: (t) => ({
    client: t.exposeString('client', { nullable: true, description: 'The User-Agent of the last refresh.' }),
    refreshedAt: t.expose('createdAt', { type: 'DateTime', description: 'When its tokens were last handed out.' }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', description: 'When it ends unless it is refreshed.' }),
    current: t.boolean({
      description: 'Whether this request belongs to it.',
      resolve: (s, _a, { viewer }) => viewer?.by === 'SESSION' && viewer.familyId === s.familyId,
    }),
  }),
});

export const UserType = builder.node(builder.objectRef<User>('User'), {
  description: 'A person who can log in. Seen by themselves and by administrators.',
  id: { resolve: (u) => u.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findUser(db, id),
  authScopes: (u, context) => isSelfOrManager(u.id, context),
  fields: (t) => ({
    name: t.exposeString('name', { description: 'Unique, whatever the case.' }),
    role: t.expose('role', { type: RoleType, description: 'What the user may do.' }),
    permissions: t.field({
      type: [PermissionType],
      description: 'What the role allows.',
      resolve: (u) => permissionNames.filter((permission) => may(u.role, permission)),
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When the user was created.' }),
    disabledAt: t.expose('disabledAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Since when the user cannot log in; null if they can.',
    }),
    sessions: t.field({
      type: [SessionType],
      description: 'Open sessions, newest first; at most 50.',
      extensions: { size: 10 },
      resolve: (u, _a, { db }) => liveSessions(db, u.id),
    }),
  }),
});

const UserConnection = builder.connectionObject(
  { type: UserType, name: 'UserConnection', description: 'A page of users.' },
  { description: 'A user in a page.' },
);
const UserFilter = builder.inputType('UserFilter', {
  description: 'Which users.',
  fields: (t) => ({
    nameContains: t.string({ description: 'Part of the name, whatever the case.' }),
    role: t.field({ type: RoleType, description: 'Only this role.' }),
    disabled: t.boolean({ description: 'Only users who cannot log in, or only those who can.' }),
  }),
});

builder.queryFields((t) => ({
  viewer: t.field({
    type: UserType,
    nullable: true,
    description: 'The user of the access token or API key; null without one.',
    authScopes: { public: true },
    resolve: (_root, _args, { viewer }) => viewer?.user,
  }),
  users: t.field({
    type: UserConnection,
    description: 'All users by name.',
    authScopes: { can: 'MANAGE_USERS' },
    args: { ...pageArgs(), filter: t.arg({ type: UserFilter, description: 'Which users.' }) },
    resolve: (_root, { filter, ...args }, { db }) =>
      page(
        'users',
        args,
        textKey,
        (limit, after) => listUsers(db, filter ?? {}, limit, after),
        (row) => row.name,
      ),
  }),
}));

const CredentialsType = builder.objectRef<Credentials>('Credentials').implement({
  description: 'What a login hands out.',
  fields: (t) => ({
    accessToken: t.exposeString('accessToken', {
      description: 'Send it as `Authorization: Bearer <access token>`, in a WebSocket as `authorization` of the connection parameters.',
    }),
    accessTokenExpiresAt: t.expose('accessTokenExpiresAt', { type: 'DateTime', description: 'When to refresh it at the latest.' }),
    refreshToken: t.exposeString('refreshToken', { description: 'Works once, in `refresh`. Keep it secret.' }),
    user: t.field({ type: UserType, grantScopes: [outcome], description: 'The user who is logged in.', resolve: (c) => c.user }),
  }),
});

const userPayload = {
  interfaces: [PayloadType],
  outputFields: (t: PayloadFields<User>) => ({
    user: t.field({
      type: UserType,
      nullable: true,
      grantScopes: [outcome],
      description: 'The user as it is now.',
      resolve: (p) => p.result,
    }),
  }),
};
const credentialsPayload = {
  interfaces: [PayloadType],
  outputFields: (t: PayloadFields<Credentials>) => ({
    credentials: t.field({ type: CredentialsType, nullable: true, description: 'Tokens of the new session.', resolve: (p) => p.result }),
  }),
};

const name = '1 to 64 letters from A to Z, digits, or . _ @ -';
const password = '12 to 128 characters.';

builder.relayMutationField(
  'bootstrap',
  {
    inputFields: (t) => ({
      token: t.string({ required: true, description: 'Content of the file `bootstrap-token` in the data folder.' }),
      name: t.string({ required: true, description: name }),
      password: t.string({ required: true, description: password }),
    }),
  },
  {
    description: 'Creates the first administrator with the bootstrap token that the server wrote at its start.',
    authScopes: { public: true },
    resolve: (_root, { input }, context) => accessPayload(context, () => bootstrap(context, context.actor, input)),
  },
  userPayload,
);

builder.relayMutationField(
  'login',
  {
    inputFields: (t) => ({
      name: t.string({ required: true, description: 'Name of the user, in any case.' }),
      password: t.string({ required: true, description: 'Password of the user.' }),
    }),
  },
  {
    description: 'Starts a session. Failures are counted for each name and each address: too many cost a growing delay (RATE_LIMITED).',
    authScopes: { public: true },
    resolve: (_root, { input }, context) => payload(() => login(context, context.actor, context, input)),
  },
  credentialsPayload,
);

const refreshToken = 'The refresh token of the last login or refresh.';

builder.relayMutationField(
  'refresh',
  { inputFields: (t) => ({ refreshToken: t.string({ required: true, description: refreshToken }) }) },
  {
    description: 'Exchanges a refresh token for new tokens. Used a second time, it ends the session: somebody else has it.',
    authScopes: { public: true },
    resolve: (_root, { input }, context) => payload(() => refresh(context, context.actor, context, input.refreshToken)),
  },
  credentialsPayload,
);

builder.relayMutationField(
  'logout',
  { inputFields: (t) => ({ refreshToken: t.string({ required: true, description: refreshToken }) }) },
  {
    description: 'Ends the session of a refresh token. A token that is none is no error.',
    authScopes: { public: true },
    resolve: (_root, { input }, context) => accessPayload(context, () => logout(context, context.actor, input.refreshToken)),
  },
  { interfaces: [PayloadType], outputFields: (_t: PayloadFields<void>) => ({}) },
);

builder.relayMutationField(
  'changePassword',
  {
    inputFields: (t) => ({
      currentPassword: t.string({ required: true, description: 'The password as it is.' }),
      newPassword: t.string({ required: true, description: password }),
    }),
  },
  {
    description: "Sets the viewer's own password and ends their other sessions.",
    authScopes: { $all: { can: 'READ', login: true } },
    resolve: (_root, { input }, context) =>
      accessPayload(context, () => changePassword(context, context.actor, sessionOf(context), context, input)),
  },
  userPayload,
);

builder.relayMutationField(
  'revokeSession',
  { inputFields: (t) => ({ sessionId: t.id({ required: true, description: 'The session to end.' }) }) },
  {
    description:
      "Ends a session at once: its tokens stop working and its subscriptions are closed. Others than one's own need an administrator.",
    authScopes: (_root, { input }, { db, viewer }) =>
      viewer?.by === 'SESSION' && findSession(db, idOf('Session', input.sessionId))?.userId === viewer.user.id
        ? true
        : { can: 'MANAGE_USERS' },
    resolve: (_root, { input }, context) =>
      accessPayload(context, () => revokeSession(context, context.actor, idOf('Session', input.sessionId))),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<Session>) => ({
      session: t.field({
        type: SessionType,
        nullable: true,
        grantScopes: [outcome],
        description: 'The session that ended.',
        resolve: (p) => p.result,
      }),
    }),
  },
);

const userId = 'The user to change.';

builder.relayMutationField(
  'createUser',
  {
    inputFields: (t) => ({
      name: t.string({ required: true, description: name }),
      role: t.field({ type: RoleType, required: true, description: 'What the user may do.' }),
      password: t.string({ required: true, description: password }),
    }),
  },
  {
    description: 'Creates a user who can log in.',
    authScopes: { can: 'MANAGE_USERS' },
    resolve: (_root, { input }, context) => accessPayload(context, () => createUser(context, context.actor, input)),
  },
  userPayload,
);

builder.relayMutationField(
  'updateUser',
  {
    inputFields: (t) => ({
      userId: t.id({ required: true, description: userId }),
      name: t.string({ description: `New name: ${name}` }),
      role: t.field({
        type: RoleType,
        description: 'New role. It counts from the next request on; open subscriptions of the user are closed.',
      }),
    }),
  },
  {
    description: 'Changes the name or the role of a user.',
    authScopes: { can: 'MANAGE_USERS' },
    resolve: (_root, { input }, context) =>
      accessPayload(context, () => updateUser(context, context.actor, idOf('User', input.userId), input)),
  },
  userPayload,
);

builder.relayMutationField(
  'disableUser',
  {
    inputFields: (t) => ({
      userId: t.id({ required: true, description: userId }),
      disabled: t.boolean({ defaultValue: true, required: true, description: 'False enables the user again.' }),
    }),
  },
  {
    description: 'Ends all sessions of a user and lets them log in no more, or again.',
    authScopes: { can: 'MANAGE_USERS' },
    resolve: (_root, { input }, context) =>
      accessPayload(context, () => setUserDisabled(context, context.actor, idOf('User', input.userId), input.disabled)),
  },
  userPayload,
);

builder.relayMutationField(
  'resetPassword',
  {
    inputFields: (t) => ({
      userId: t.id({ required: true, description: userId }),
      password: t.string({ required: true, description: password }),
    }),
  },
  {
    description: 'Sets the password of another user, ends their sessions and lifts a login delay. One’s own: `changePassword`.',
    authScopes: { can: 'MANAGE_USERS' },
    resolve: (_root, { input }, context) =>
      accessPayload(context, () => resetPassword(context, context.actor, idOf('User', input.userId), input.password)),
  },
  userPayload,
);
