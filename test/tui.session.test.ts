import { mkdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { connect } from '../tui/session/connection.ts';
import { localServer } from '../tui/session/localServer.ts';
import { bootstrap, openSession, readServerState } from '../tui/session/session.ts';
import { configFolder, openStore } from '../tui/session/store.ts';
import { ViewerQuery } from '../tui/ui/App.tsx';
import { glyphsOf, themeOf } from '../tui/ui/theme.ts';
import { adminName, adminPassword, type TestServer, withFolder, withServer } from './support/server.ts';

const withSession = (use: (server: TestServer, folder: string) => Promise<void>) =>
  withServer(async (server) => {
    await server.admin();
    await withFolder((folder) => use(server, join(folder, 'whetstone')));
  });

test('the login is remembered for its user only, and the password is not', () =>
  withSession(async ({ url }, folder) => {
    await openSession(url, openStore(folder)).login(adminName, adminPassword);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(statSync(join(folder, 'tui.json')).mode & 0o777).toBe(0o600);
    expect(readFileSync(join(folder, 'tui.json'), 'utf8')).not.toContain(adminPassword);
    expect(openStore(folder).url()).toBe(url);
    expect(openSession(url, openStore(folder)).loggedIn()).toBe(true);
    expect(openSession('http://127.0.0.1:1', openStore(folder)).loggedIn()).toBe(false);
  }));

test('the folder is that of XDG, else ~/.config', () => {
  expect(configFolder({ XDG_CONFIG_HOME: '/somewhere' })).toBe('/somewhere/whetstone');
  expect(configFolder({})).toMatch(/\/\.config\/whetstone$/);
});

test('a damaged file is no login', () =>
  withFolder(async (folder) => {
    writeFileSync(join(folder, 'tui.json'), '{"sessions": ');
    expect(openStore(folder).credentials('http://127.0.0.1:1')).toBeUndefined();
  }));

test('an expired token is exchanged without anybody noticing, and two terminal UIs do not end each other’s session', () =>
  withSession(async ({ url }, folder) => {
    const first = openSession(url, openStore(folder));
    await first.login(adminName, adminPassword);
    const second = openSession(url, openStore(folder));
    const before = await first.accessToken();
    for (const session of [first, second]) session.distrust();
    const tokens = await Promise.all([first.accessToken(), second.accessToken(), first.accessToken()]);
    expect(tokens).not.toContain(before);
    const { client } = connect(second);
    expect((await client.query(ViewerQuery, {}).toPromise()).data?.viewer?.name).toBe(adminName);
  }));

test('a query whose token the server refuses is sent again with a new one', () =>
  withSession(async ({ url }, folder) => {
    const store = openStore(folder);
    await openSession(url, store).login(adminName, adminPassword);
    const kept = store.credentials(url);
    if (kept) store.remember(url, { ...kept, accessToken: 'not a token' });
    const session = openSession(url, store);
    const { client } = connect(session);
    expect((await client.query(ViewerQuery, {}).toPromise()).data?.viewer?.name).toBe(adminName);
  }));

test('a session that was ended elsewhere is told, and forgotten', () =>
  withSession(async (server, folder) => {
    const store = openStore(folder);
    const session = openSession(server.url, store);
    await session.login(adminName, adminPassword);
    let ends = 0;
    session.onEnd(() => {
      ends += 1;
    });
    const token = await session.accessToken();
    const { data } = await server.graphql('{ viewer { sessions { id current } } }', {}, token);
    const { id } = data.viewer.sessions.find(({ current }: { current: boolean }) => current);
    const mutation = 'mutation ($i: RevokeSessionInput!) { revokeSession(input: $i) { userErrors { message } } }';
    await server.graphql(mutation, { i: { sessionId: id } }, token);
    const { client } = connect(session);
    expect((await client.query(ViewerQuery, {}).toPromise()).error).toBeDefined();
    await expect(session.accessToken()).rejects.toThrow('Log in first.');
    expect(ends).toBe(1);
    expect(store.credentials(server.url)).toBeUndefined();
  }));

test('the lock of a terminal UI that was killed is taken over', () =>
  withFolder(async (folder) => {
    mkdirSync(folder, { recursive: true });
    const lock = join(folder, 'tui.json.lock');
    writeFileSync(lock, '');
    utimesSync(lock, new Date(0), new Date(0));
    expect(await openStore(folder).exclusively(async () => 'mine')).toBe('mine');
  }));

test('a server without a user is recognised, and gets its first administrator', () =>
  withServer(async ({ url, dataDir }) => {
    expect(await readServerState('http://127.0.0.1:1')).toBe('NONE');
    expect(await readServerState(url)).toBe('NEW');
    const input = { token: 'wrong', name: adminName, password: adminPassword };
    await expect(bootstrap(url, input)).rejects.toThrow('The bootstrap token is not the one');
    await bootstrap(url, { ...input, token: readFileSync(join(dataDir, 'bootstrap-token'), 'utf8').trim() });
    expect(await readServerState(url)).toBe('READY');
  }));

test('only a server of this machine can be started', () =>
  withFolder(async (folder) => {
    expect(localServer('http://lab.example:8080', folder, folder, {})).toBeNull();
    expect(localServer('https://127.0.0.1:8080', folder, folder, {})).toBeNull();
    const local = localServer('http://127.0.0.1:1', folder, folder, { PATH: process.env.PATH ?? '' });
    expect(local?.bootstrapToken()).toBeNull();
    await expect(local?.start()).rejects.toThrow(/The server did not start\. It ended with 1\.\n.*Cannot find module/s);
    expect(local?.farewell()).toBeNull();
  }));

test('colours follow the terminal: none, 16, light, dark', () => {
  expect(themeOf({ NO_COLOR: '1', COLORTERM: 'truecolor' }).bad).toBeUndefined();
  expect(themeOf({ TERM: 'xterm' }).bad).toBe('red');
  expect(themeOf({ TERM: 'xterm-256color', COLORFGBG: '0;15' })).not.toEqual(themeOf({ TERM: 'xterm-256color', COLORFGBG: '15;0' }));
  expect(themeOf({ COLORTERM: 'truecolor', WHETSTONE_THEME: 'light' })).toEqual(themeOf({ COLORTERM: 'truecolor', COLORFGBG: '0;15' }));
  expect(glyphsOf({ TERM: 'linux', LANG: 'C.UTF-8' })).toBe('blocks');
  expect(glyphsOf({ LANG: 'C' })).toBe('blocks');
  expect(glyphsOf({ LANG: 'de_DE.UTF-8' })).toBe('braille');
});
