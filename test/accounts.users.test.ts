import { expect, test } from 'vitest';
import { type Answer, adminName, type TestServer, withServer } from './support/server.ts';

const password = 'a password of some length';

type Input = Record<string, unknown>;

/** Runs a mutation of this name as the first administrator, or as `token`. */
async function mutate(server: TestServer, name: string, input: Input, token?: string): Promise<Answer> {
  const type = `${name[0]?.toUpperCase()}${name.slice(1)}Input`;
  const result = name === 'revokeSession' ? 'session { id current }' : 'user { id name role disabledAt }';
  const query = `mutation ($i: ${type}!) { ${name}(input: $i) { ${result} userErrors { code field message } } }`;
  return server.graphql(query, { i: input }, token ?? (await server.admin()));
}
const codesOf = ({ data, errors }: Answer): string[] =>
  errors?.map((e) => e.extensions.code) ?? Object.values<{ userErrors: { code: string }[] }>(data)[0]?.userErrors.map((e) => e.code) ?? [];

const create = async (server: TestServer, name: string, role = 'ENGINEER') =>
  (await mutate(server, 'createUser', { name, role, password })).data.createUser.user as { id: string; name: string };
const users = async (server: TestServer, args = '') =>
  (await server.graphql(`{ users${args} { nodes { name } pageInfo { endCursor hasNextPage hasPreviousPage } } }`, {}, await server.admin()))
    .data.users;
const namesOf = ({ nodes }: { nodes: { name: string }[] }) => nodes.map((n) => n.name);
const statusOf = async (server: TestServer, token: string) => (await server.graphql('{ viewer { id } }', {}, token)).status;
const idOf = async (server: TestServer, token: string): Promise<string> =>
  (await server.graphql('{ viewer { id } }', {}, token)).data.viewer.id;

test('an administrator creates a user, who can log in and sees what the role allows', () =>
  withServer(async (server) => {
    const { data } = await mutate(server, 'createUser', { name: 'grace', role: 'ENGINEER', password });
    expect(data.createUser).toEqual({
      user: { id: expect.any(String), name: 'grace', role: 'ENGINEER', disabledAt: null },
      userErrors: [],
    });
    const { accessToken } = await server.login('grace', password);
    const seen = await server.graphql('{ viewer { name permissions sessions { current client } } }', {}, accessToken);
    expect(seen.data.viewer).toEqual({
      name: 'grace',
      permissions: ['READ', 'UPLOAD', 'RUN_JOBS', 'DEPLOY', 'TRY_DEPLOYMENTS', 'INFER'],
      sessions: [{ current: true, client: 'node' }],
    });
  }));

test('a name is taken in any case; a name or a password that will not do is refused with its field', () =>
  withServer(async (server) => {
    await create(server, 'grace');
    const refused = async (input: Input) => (await mutate(server, 'createUser', { role: 'VIEWER', password, ...input })).data.createUser;
    expect(await refused({ name: 'GRACE' })).toMatchObject({ user: null, userErrors: [{ code: 'TAKEN', field: ['name'] }] });
    for (const name of ['', ' grace', 'gr ace', '-grace', 'grâce', '../grace', 'x'.repeat(65), 'a\u0000b']) {
      expect(await refused({ name }), name).toMatchObject({ user: null, userErrors: [{ code: 'INVALID', field: ['name'] }] });
    }
    for (const short of ['', 'x'.repeat(11), 'x'.repeat(129)]) {
      expect(await refused({ name: 'new', password: short })).toMatchObject({ userErrors: [{ code: 'INVALID', field: ['password'] }] });
    }
    expect(namesOf(await users(server))).toEqual([adminName, 'grace']);
  }));

test('users are listed by name, filtered, and paged without a gap while others come and go', () =>
  withServer(async (server) => {
    for (const name of ['bob', 'Carol', 'dave', 'Eve']) await create(server, name, name === 'Eve' ? 'VIEWER' : 'ENGINEER');
    expect(namesOf(await users(server))).toEqual([adminName, 'bob', 'Carol', 'dave', 'Eve']);
    expect(namesOf(await users(server, '(filter: { nameContains: "AR" })'))).toEqual(['Carol']);
    expect(namesOf(await users(server, '(filter: { nameContains: "%" })'))).toEqual([]);
    expect(namesOf(await users(server, '(filter: { role: VIEWER })'))).toEqual(['Eve']);

    const first = await users(server, '(first: 2)');
    expect(first.pageInfo).toEqual({ endCursor: expect.any(String), hasNextPage: true, hasPreviousPage: false });
    await create(server, 'aaron');
    await create(server, 'bobby');
    const second = await users(server, `(first: 2, after: "${first.pageInfo.endCursor}")`);
    expect(namesOf(second)).toEqual(['bobby', 'Carol']);
    const third = await users(server, `(first: 2, after: "${second.pageInfo.endCursor}")`);
    expect(namesOf(third)).toEqual(['dave', 'Eve']);
    expect(third.pageInfo).toMatchObject({ hasNextPage: false, hasPreviousPage: true });
  }));

test.each([
  ['first: 0', 'LIMIT'],
  ['first: -1', 'LIMIT'],
  ['first: 101', 'LIMIT'],
  ['after: "x"', 'NOT_FOUND'],
  ['after: "e30"', 'NOT_FOUND'],
])('a page of users(%s) is %s', (args, code) =>
  withServer(async (server) => {
    const answer = await server.graphql(`{ users(${args}) { nodes { id } } }`, {}, await server.admin());
    expect(codesOf(answer)).toEqual([code]);
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.status).toBeLessThan(500);
  }),
);

test('a user is renamed, also to another case of the same name, and gets another role', () =>
  withServer(async (server) => {
    const { id: userId } = await create(server, 'grace');
    await create(server, 'bob');
    expect((await mutate(server, 'updateUser', { userId, name: 'Grace' })).data.updateUser.user).toMatchObject({ name: 'Grace' });
    expect(codesOf(await mutate(server, 'updateUser', { userId, name: 'BOB' }))).toEqual(['TAKEN']);
    const { data } = await mutate(server, 'updateUser', { userId, name: 'hopper', role: 'ADMIN' });
    expect(data.updateUser.user).toMatchObject({ name: 'hopper', role: 'ADMIN' });
    await server.login('hopper', password);
    await expect(server.login('grace', password)).rejects.toThrow('wrong');
  }));

test('a disabled user is out at once and cannot log in until enabled again', () =>
  withServer(async (server) => {
    const { id: userId } = await create(server, 'grace');
    const { accessToken, refreshToken } = await server.login('grace', password);
    const { data } = await mutate(server, 'disableUser', { userId });
    const { disabledAt } = data.disableUser.user;
    expect(disabledAt).toEqual(expect.any(String));
    expect(await statusOf(server, accessToken)).toBe(401);
    const refreshed = await server.graphql('mutation ($t: String!) { refresh(input: { refreshToken: $t }) { userErrors { code } } }', {
      t: refreshToken,
    });
    expect(refreshed.status).toBe(401);
    await expect(server.login('grace', password)).rejects.toThrow('wrong');
    expect(namesOf(await users(server, '(filter: { disabled: true })'))).toEqual(['grace']);
    expect((await mutate(server, 'disableUser', { userId })).data.disableUser.user.disabledAt, 'a second time changes nothing').toBe(
      disabledAt,
    );

    await mutate(server, 'disableUser', { userId, disabled: false });
    expect(namesOf(await users(server, '(filter: { disabled: false })'))).toEqual([adminName, 'grace']);
    expect(await statusOf(server, accessToken), 'the old sessions stay closed').toBe(401);
    await server.login('grace', password);
  }));

test.each(['disableUser', 'updateUser'])('the last active administrator stays one: %s', (name) =>
  withServer(async (server) => {
    const first = await idOf(server, await server.admin());
    const demote = (userId: string) => mutate(server, name, name === 'disableUser' ? { userId } : { userId, role: 'VIEWER' });
    expect(codesOf(await demote(first))).toEqual(['LAST_ADMIN']);
    const { id: second } = await create(server, 'second', 'ADMIN');
    await mutate(server, 'disableUser', { userId: second });
    expect(codesOf(await demote(first)), 'a disabled administrator does not count').toEqual(['LAST_ADMIN']);
    await mutate(server, 'disableUser', { userId: second, disabled: false });
    const both = await Promise.all([demote(second), demote(first)]);
    expect(
      both.filter((answer) => codesOf(answer).length === 0),
      'of two at the same time one remains',
    ).toHaveLength(1);
  }),
);

test('a reset password ends all sessions of the user and lifts a login delay', () =>
  withServer(async (server) => {
    const { id: userId } = await create(server, 'grace');
    const { accessToken } = await server.login('grace', password);
    for (let i = 0; i < 5; i++) await expect(server.login('grace', 'not the password')).rejects.toThrow('wrong');
    await expect(server.login('grace', 'not the password')).rejects.toThrow('Too many failed logins');

    expect(codesOf(await mutate(server, 'resetPassword', { userId, password: 'short' }))).toEqual(['INVALID']);
    expect(codesOf(await mutate(server, 'resetPassword', { userId, password: 'another password' }))).toEqual([]);
    expect(await statusOf(server, accessToken)).toBe(401);
    await expect(server.login('grace', password)).rejects.toThrow('wrong');
    await server.login('grace', 'another password');
  }));

test('a user changes the own password: the other sessions end, this one goes on', () =>
  withServer(async (server) => {
    await create(server, 'grace');
    const mine = (await server.login('grace', password)).accessToken;
    const other = (await server.login('grace', password)).accessToken;
    const change = (input: Input) =>
      mutate(server, 'changePassword', { currentPassword: password, newPassword: 'another password', ...input }, mine);
    expect((await change({ currentPassword: 'not the password' })).data.changePassword.userErrors).toMatchObject([
      { code: 'WRONG_PASSWORD', field: ['currentPassword'] },
    ]);
    expect(codesOf(await change({ newPassword: 'short' }))).toEqual(['INVALID']);
    expect([await statusOf(server, mine), await statusOf(server, other)]).toEqual([200, 200]);

    expect(codesOf(await change({}))).toEqual([]);
    expect([await statusOf(server, mine), await statusOf(server, other)]).toEqual([200, 401]);
    await expect(server.login('grace', password)).rejects.toThrow('wrong');
    await server.login('grace', 'another password');
  }));

test('guesses of the current password are throttled like logins and stand in the audit log', () =>
  withServer(async (server) => {
    await create(server, 'grace');
    const { accessToken } = await server.login('grace', password);
    const guess = () => mutate(server, 'changePassword', { currentPassword: 'not the password', newPassword: password }, accessToken);
    for (let i = 0; i < 5; i++) expect(codesOf(await guess())).toEqual(['WRONG_PASSWORD']);
    expect(codesOf(await guess())).toEqual(['RATE_LIMITED']);
    const query = '{ auditLog(filter: { action: "changePassword", outcome: DENIED }) { nodes { actor { name } } } }';
    const { data } = await server.graphql(query, {}, await server.admin());
    // The last one too: at the address of the own session one is checked in 5 seconds.
    expect(data.auditLog.nodes).toEqual(Array.from({ length: 6 }, () => ({ actor: { name: 'grace' } })));
  }));

test('a password change that an administrator overtakes by ending the session is not carried out', () =>
  withServer(async (server) => {
    const { id: userId } = await create(server, 'grace');
    const { accessToken } = await server.login('grace', password);
    const change = mutate(server, 'changePassword', { currentPassword: password, newPassword: 'the password of a thief' }, accessToken);
    const disable = mutate(server, 'disableUser', { userId });
    expect([await change, await disable].map(codesOf)).toEqual([['UNAUTHENTICATED'], []]);
    await mutate(server, 'disableUser', { userId, disabled: false });
    await server.login('grace', password);
  }));

test('a session is ended by its user or by an administrator, by nobody else', () =>
  withServer(async (server) => {
    await create(server, 'grace');
    await create(server, 'bob');
    const mine = (await server.login('grace', password)).accessToken;
    const other = (await server.login('grace', password)).accessToken;
    const bobs = (await server.login('bob', password)).accessToken;
    const sessions = async (token: string): Promise<{ id: string; current: boolean }[]> =>
      (await server.graphql('{ viewer { sessions { id current } } }', {}, token)).data.viewer.sessions;
    const otherId = (await sessions(mine)).find((s) => !s.current)?.id as string;
    const mineId = (await sessions(mine)).find((s) => s.current)?.id as string;

    expect(codesOf(await mutate(server, 'revokeSession', { sessionId: otherId }, bobs))).toEqual(['FORBIDDEN']);
    const ended = await mutate(server, 'revokeSession', { sessionId: otherId }, mine);
    expect(ended.data.revokeSession).toEqual({ session: { id: otherId, current: false }, userErrors: [] });
    expect([await statusOf(server, other), await statusOf(server, mine)]).toEqual([401, 200]);
    expect(await sessions(mine)).toEqual([{ id: mineId, current: true }]);
    expect(codesOf(await mutate(server, 'revokeSession', { sessionId: mineId }))).toEqual([]);
    expect([await statusOf(server, mine), await statusOf(server, bobs)]).toEqual([401, 200]);
  }));

const idFields: Record<string, string> = {
  updateUser: 'userId',
  disableUser: 'userId',
  resetPassword: 'userId',
  revokeSession: 'sessionId',
};
const rest: Input = { resetPassword: { password } };

test.each(Object.entries(idFields))('%s of something that does not exist is NOT_FOUND', (name, field) =>
  withServer(async (server) => {
    const encode = (text: string) => Buffer.from(text).toString('base64url');
    const type = field === 'userId' ? 'User' : 'Session';
    const wrongType = field === 'userId' ? 'Session' : 'User';
    for (const id of ['', 'x', '🙂', encode(`${type}:none`), encode(`${wrongType}:none`), encode('Nothing:1'), encode('User:')]) {
      const answer = await mutate(server, name, { [field]: id, ...(rest[name] as Input) });
      expect([answer.status, codesOf(answer)], id).toEqual([404, ['NOT_FOUND']]);
    }
  }),
);

test('every change is in the audit log with its author and what was changed, newest first, and no password is', () =>
  withServer(async (server) => {
    const { id: userId } = await create(server, 'grace');
    await mutate(server, 'updateUser', { userId, name: 'hopper', role: 'VIEWER' });
    await mutate(server, 'disableUser', { userId });
    await mutate(server, 'disableUser', { userId, disabled: false });
    await mutate(server, 'resetPassword', { userId, password: 'another password' });
    const adminId = await idOf(server, await server.admin());
    const read = async (args: string) => {
      const query = `{ auditLog(${args}) { nodes { seq action outcome actor { id } targetType targetId detail requestId } pageInfo { endCursor } } }`;
      return (await server.graphql(query, {}, await server.admin())).data.auditLog;
    };
    const log = await read('first: 100');
    expect(log.nodes.map((n: { action: string }) => n.action)).toEqual([
      'resetPassword',
      'enableUser',
      'disableUser',
      'updateUser',
      'createUser',
      'login',
      'bootstrap',
    ]);
    for (const { actor } of log.nodes) expect(actor).toEqual({ id: adminId });
    const seqs = log.nodes.map((n: { seq: number }) => n.seq);
    expect(seqs).toEqual([...seqs].sort((a, b) => b - a));
    expect(log.nodes[3]).toMatchObject({
      targetType: 'User',
      targetId: userId,
      outcome: 'OK',
      requestId: expect.any(String),
      detail: { from: { name: 'grace', role: 'ENGINEER' }, to: { name: 'hopper', role: 'VIEWER' } },
    });
    expect(JSON.stringify(log)).not.toContain('password of');
    expect(JSON.stringify(log)).not.toContain('another password');

    const page = await read('first: 2');
    expect((await read(`first: 2, after: "${page.pageInfo.endCursor}"`)).nodes).toEqual(log.nodes.slice(2, 4));
    expect((await read(`filter: { actorId: "${userId}" }`)).nodes).toEqual([]);
    expect((await read('filter: { action: "createUser" }')).nodes).toHaveLength(1);
    expect((await read('filter: { outcome: DENIED }')).nodes).toEqual([]);
  }));
