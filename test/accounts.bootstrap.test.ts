import { existsSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { adminName, adminPassword, type TestServer, withFolder, withServer } from './support/server.ts';

const mutation = 'mutation ($i: BootstrapInput!) { bootstrap(input: $i) { user { name role } userErrors { code field message } } }';
const fileOf = (dataDir: string) => join(dataDir, 'bootstrap-token');
const tokenOf = (dataDir: string) => readFileSync(fileOf(dataDir), 'utf8').trim();

const bootstrap = async ({ graphql, dataDir }: TestServer, input: object = {}) => {
  const token = existsSync(fileOf(dataDir)) ? tokenOf(dataDir) : 'none';
  const { data, errors } = await graphql(mutation, { i: { token, name: adminName, password: adminPassword, ...input } });
  expect(errors).toBeUndefined();
  return data.bootstrap;
};
const codes = (payload: { userErrors: { code: string }[] }) => payload.userErrors.map((e) => e.code);

test('a new server has no user that a password could be guessed of, and a token that only its owner can read', () =>
  withServer(async ({ dataDir, login }) => {
    for (const name of ['admin', 'root', 'whetstone']) {
      for (const password of ['', 'admin', 'password']) await expect(login(name, password)).rejects.toThrow();
    }
    expect(statSync(fileOf(dataDir)).mode & 0o777).toBe(0o600);
    expect(tokenOf(dataDir)).toMatch(/^[\w-]{32}$/);
  }));

test('the token makes the first administrator, whose file is gone then', () =>
  withServer(async (server) => {
    expect(await bootstrap(server)).toEqual({ user: { name: adminName, role: 'ADMIN' }, userErrors: [] });
    expect(existsSync(fileOf(server.dataDir))).toBe(false);
    const { accessToken } = await server.login(adminName, adminPassword);
    const { data } = await server.graphql('{ auditLog { nodes { action outcome actor { name } targetType } } }', {}, accessToken);
    expect(data.auditLog.nodes.at(-1)).toEqual({ action: 'bootstrap', outcome: 'OK', actor: { name: adminName }, targetType: 'User' });
  }));

test('its second use fails, with the same token or another', () =>
  withServer(async (server) => {
    const token = tokenOf(server.dataDir);
    await bootstrap(server);
    for (const again of [token, 'another'])
      expect(codes(await bootstrap(server, { token: again, name: 'eve' }))).toEqual(['BOOTSTRAP_CLOSED']);
    await expect(server.login('eve', adminPassword)).rejects.toThrow('wrong');
  }));

test('of two uses at the same time one succeeds', () =>
  withServer(async (server) => {
    const answers = await Promise.all([bootstrap(server, { name: 'first' }), bootstrap(server, { name: 'second' })]);
    expect(answers.map(codes).sort()).toEqual([[], ['BOOTSTRAP_CLOSED']]);
  }));

test('a wrong token is refused and leaves the right one valid', () =>
  withServer(async (server) => {
    for (const token of ['', 'x', `${tokenOf(server.dataDir)}x`, tokenOf(server.dataDir).toUpperCase()]) {
      expect(codes(await bootstrap(server, { token }))).toEqual(['BOOTSTRAP_TOKEN']);
    }
    expect(codes(await bootstrap(server))).toEqual([]);
  }));

test('a token expires after 24 hours', () =>
  withServer(async (server) => {
    const written = (hoursAgo: number) => utimesSync(fileOf(server.dataDir), new Date(), Date.now() / 1000 - hoursAgo * 3600);
    written(24.1);
    expect(codes(await bootstrap(server))).toEqual(['BOOTSTRAP_TOKEN']);
    written(23.9);
    expect(codes(await bootstrap(server))).toEqual([]);
  }));

test('a deleted token file closes the door until the next start', () =>
  withServer(async (server) => {
    writeFileSync(fileOf(server.dataDir), '');
    expect(codes(await bootstrap(server, { token: '' }))).toEqual(['BOOTSTRAP_TOKEN']);
  }));

test('a start makes a new token, voids the former one, and makes none when there is a user', () =>
  withFolder(async (WHETSTONE_DATA_DIR) => {
    const env = { WHETSTONE_DATA_DIR };
    const first = await withServer(async ({ dataDir }) => tokenOf(dataDir), env);
    await withServer(async (server) => {
      expect(tokenOf(server.dataDir)).not.toBe(first);
      expect(codes(await bootstrap(server, { token: first }))).toEqual(['BOOTSTRAP_TOKEN']);
      await bootstrap(server);
    }, env);
    // As if the process had died between the transaction and the removal of the file.
    writeFileSync(fileOf(WHETSTONE_DATA_DIR), first);
    await withServer(async ({ dataDir }) => expect(existsSync(fileOf(dataDir))).toBe(false), env);
  }));

test('a name or a password that will not do is refused with its field, and the token stays valid', () =>
  withServer(async (server) => {
    const refused = await bootstrap(server, { name: ' x', password: 'short' });
    expect(refused.user).toBeNull();
    expect(refused.userErrors).toEqual([
      { code: 'INVALID', field: ['name'], message: expect.stringContaining('1 to 64') },
      { code: 'INVALID', field: ['password'], message: expect.stringContaining('at least 12') },
    ]);
    expect(codes(await bootstrap(server))).toEqual([]);
  }));
