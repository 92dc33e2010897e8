import { once } from 'node:events';
import { mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { describedSettings, describeSettings, readClientConfig, readConfig } from '../src/config.ts';
import { originCheck } from '../src/http.ts';
import { withChild } from './support/process.ts';
import { withFolder } from './support/server.ts';

test('without a variable the server listens on this machine only, port 8080, with its data in ./data and two slots', () => {
  expect(readConfig({})).toMatchObject({
    host: '127.0.0.1',
    port: 8080,
    dataDir: resolve('data'),
    allowedOrigins: [],
    slots: 2,
    logLevel: 'info',
    production: false,
  });
});

test('an empty variable is as good as none', () => {
  expect(readConfig({ WHETSTONE_PORT: '', WHETSTONE_ALLOWED_ORIGINS: '' })).toEqual(readConfig({}));
});

test('variables are read and lists are split', () => {
  const config = readConfig({
    WHETSTONE_PORT: '0',
    WHETSTONE_SLOTS: '4',
    WHETSTONE_ALLOWED_ORIGINS: ' https://a.example,, http://b.example:81 ',
  });
  expect(config).toMatchObject({ port: 0, slots: 4, allowedOrigins: ['https://a.example', 'http://b.example:81'] });
});

test('the configuration cannot be changed afterwards', () => {
  expect(Object.isFrozen(readConfig({}))).toBe(true);
});

test.each([
  ['WHETSTONE_PORT', '65536'],
  ['WHETSTONE_PORT', '-1'],
  ['WHETSTONE_PORT', '80.5'],
  ['WHETSTONE_PORT', 'http'],
  ['WHETSTONE_SLOTS', '0'],
  ['WHETSTONE_SLOTS', '65'],
  ['WHETSTONE_SLOTS', 'two'],
  ['WHETSTONE_LOG_LEVEL', 'verbose'],
  ['WHETSTONE_REPLICA_TOKEN', 'a'.repeat(31)],
  ['WHETSTONE_REPLICA_TOKEN', `${'a'.repeat(20)} ${'b'.repeat(20)}`],
  ['WHETSTONE_PUBLIC_URL', 'whetstone.example'],
  ['WHETSTONE_PUBLIC_URL', 'ftp://whetstone.example'],
  ['WHETSTONE_TRUSTED_PROXIES', 'proxy.example'],
  ['WHETSTONE_TRUSTED_PROXIES', '10.0.0.1, 10.0.0.0/33'],
  ['WHETSTONE_AUDIT_DAYS', '1'],
  ['WHETSTONE_JOB_LOG_DAYS', '0'],
  ['WHETSTONE_ALLOWED_ORIGINS', 'lab.example'],
  ['WHETSTONE_ALLOWED_ORIGINS', 'https://a.example,*'],
])('%s=%s is refused by the name of the variable', (variable, value) => {
  expect(() => readConfig({ [variable]: value })).toThrow(new RegExp(`^The configuration is wrong\\.\n${variable}: .+\\.$`));
});

test('settings that make no sense together are refused by the name of one', () =>
  withFolder(async (folder) => {
    const link = join(folder, 'link');
    mkdirSync(join(folder, 'data'));
    symlinkSync(join(folder, 'data'), link);
    const inside = ['', '/backups', '/a/../b', '/..backups'].map((end) => join(folder, 'data') + end);
    for (const WHETSTONE_BACKUP_FOLDER of [...inside, join(link, 'backups')]) {
      const env = { WHETSTONE_DATA_DIR: join(folder, 'data'), WHETSTONE_BACKUP_FOLDER };
      expect(() => readConfig(env)).toThrow(/^The configuration is wrong\.\nWHETSTONE_BACKUP_FOLDER: .+ is inside of the data folder/);
    }
    for (const WHETSTONE_BACKUP_FOLDER of [folder, join(folder, 'data-backups'), join(folder, 'data', '..', 'b')]) {
      readConfig({ WHETSTONE_DATA_DIR: join(folder, 'data'), WHETSTONE_BACKUP_FOLDER });
    }
    expect(() => readConfig({ WHETSTONE_PORT: '8000' })).toThrow(/\nWHETSTONE_INFERENCE_PORT: 8000 is the port of the server too/);
    readConfig({ WHETSTONE_PORT: '0', WHETSTONE_INFERENCE_PORT: '0' });
  }));

test('everything that is wrong is named at once', () => {
  const wrong = { WHETSTONE_PORT: 'x', WHETSTONE_SLOTS: '0', WHETSTONE_DATADIR: '/x' };
  for (const variable of Object.keys(wrong)) expect(() => readConfig(wrong)).toThrow(variable);
});

test('a variable with our prefix that is no setting is named: it is most likely misspelt', () => {
  expect(() => readConfig({ WHETSTONE_PROT: '80' })).toThrow('WHETSTONE_PROT is not a setting of Whetstone. Did you mean WHETSTONE_PORT?');
  expect(() => readConfig({ WHETSTONE_DATADIR: 'x' })).toThrow(/Did you mean WHETSTONE_DATA_DIR\?$/);
  expect(() => readConfig({ WHETSTONE_SIGNING_KEYFILE: 'x' })).toThrow(/Did you mean WHETSTONE_SIGNING_KEY_FILE\?$/);
  expect(() => readConfig({ WHETSTONE_COFFEE_MACHINE: 'x' })).toThrow(/is not a setting of Whetstone\.$/);
  expect(() => readConfig({ WHETSTONE_PYTHON: 'python3', OTHER_PROT: '80' })).not.toThrow();
});

test('production needs a signing key, and the refusal says how to make one', () => {
  expect(() => readConfig({ NODE_ENV: 'production' })).toThrow(/WHETSTONE_SIGNING_KEY_FILE.*openssl genpkey -algorithm ed25519/s);
  expect(readConfig({ NODE_ENV: 'production', WHETSTONE_SIGNING_KEY_FILE: 'key.pem' })).toMatchObject({ production: true });
});

test.each([
  ['production without a key', { NODE_ENV: 'production' }, 'openssl genpkey -algorithm ed25519'],
  ['a misspelt variable', { WHETSTONE_PROT: '80' }, 'WHETSTONE_PROT is not a setting of Whetstone.'],
  ['a port that is no number', { WHETSTONE_PORT: 'x' }, 'WHETSTONE_PORT: '],
  ['a signing key that is not there', { WHETSTONE_SIGNING_KEY_FILE: 'none.pem' }, 'is not an Ed25519 private key'],
  ['a data folder that cannot be made', { WHETSTONE_DATA_DIR: '/proc/x' }, 'The data folder /proc/x (WHETSTONE_DATA_DIR) cannot be made'],
  ['a data folder below a file', { WHETSTONE_DATA_DIR: '/etc/passwd/x' }, '(WHETSTONE_DATA_DIR) cannot be made or written (ENOTDIR)'],
  ['a data folder that is a file', { WHETSTONE_DATA_DIR: '/etc/passwd' }, '(WHETSTONE_DATA_DIR) cannot be made or written'],
  ['an address that the machine has not', { WHETSTONE_HOST: '192.0.2.1' }, 'Set WHETSTONE_HOST'],
])('the server does not start with %s: one message, no stack, exit 1', (_what, env, message) =>
  withFolder((WHETSTONE_DATA_DIR) =>
    withChild(['src/main.ts', 'serve'], { WHETSTONE_PORT: '0', WHETSTONE_DATA_DIR, ...(env as Record<string, string>) }, async (child) => {
      expect(await child.exit).toEqual({ code: 1, signal: null });
      const text = child.lines.join('\n');
      expect(text).toContain(message);
      expect(text).not.toMatch(/^\s+at /m);
    }),
  ),
);

test('the server does not start on a port that is in use: one message with the setting, exit 1', () =>
  withFolder(async (WHETSTONE_DATA_DIR) => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as AddressInfo;
    await withChild(['src/main.ts', 'serve'], { WHETSTONE_PORT: String(port), WHETSTONE_DATA_DIR }, async (child) => {
      expect(await child.exit).toEqual({ code: 1, signal: null });
      expect(child.lines).toEqual([`Port ${port} of 127.0.0.1 is in use. Stop what listens there, or set WHETSTONE_PORT to another port.`]);
    });
    taken.close();
  }));

test.each([
  [['serve', '--help'], 'WHETSTONE_DATA_DIR=data'],
  [['watch', '--help'], 'WHETSTONE_REFRESH_TOKEN'],
])('%j lists the settings', (args, line) =>
  withChild(['src/main.ts', ...args], {}, async (child) => {
    expect((await child.exit).code).toBe(0);
    expect(child.lines).toContain(line);
  }),
);

test('a misspelt flag is answered with the nearest', () =>
  withChild(['src/main.ts', 'watch', 'x', '--ulr', 'http://x'], {}, async (child) => {
    expect((await child.exit).code).not.toBe(0);
    expect(child.lines).toContain('(Did you mean --url?)');
  }));

// Node's own limit lets the objects that die young have 130 MB.
test.each(['package.json', 'Dockerfile', 'whetstone', 'tui/session/localServer.ts'])(
  '%s starts the server with its limit of memory',
  (file) => expect(readFileSync(file, 'utf8')).toMatch(/--max-semi-space-size=16\W+src\/main\.ts/),
);

test('the help describes every setting with its default', () => {
  const text = describeSettings(Object.values(describedSettings).flat()).replace(/^\n.*\n/, '');
  const lines = text.split('\n');
  expect(lines).toContain('WHETSTONE_PORT=8080');
  expect(lines).toContain('WHETSTONE_DATA_DIR=data');
  for (let i = 0; i < lines.length; i += 2) {
    expect(lines[i]).toMatch(/^((WHETSTONE|OTEL)_[A-Z_]+|NODE_ENV)(=.+)?$/);
    expect(lines[i + 1]).toMatch(/^ {4}[A-Z1`].+\.$/);
  }
  expect(text).not.toContain(process.cwd());
});

test('a job inherits what programs need of the environment and no secret of the server', () => {
  const secrets = { WHETSTONE_SIGNING_KEY_FILE: 'key.pem', WHETSTONE_REPLICA_TOKEN: 'a'.repeat(32), AWS_SECRET_ACCESS_KEY: 'x' };
  const { childEnv } = readConfig({ PATH: '/bin', HOME: '/home/x', ...secrets });
  expect(childEnv).toEqual({ PATH: '/bin', HOME: '/home/x' });
});

test('the commands that talk to a server read where it is, and refuse what is wrong', () => {
  expect(readClientConfig({}).url).toBe('http://127.0.0.1:8080');
  expect(readClientConfig({ WHETSTONE_URL: 'https://w.example', WHETSTONE_TOKEN: 't', INIT_CWD: '/x' })).toEqual({
    url: 'https://w.example',
    token: 't',
    folder: '/x',
  });
  expect(() => readClientConfig({ WHETSTONE_URL: 'w.example' })).toThrow('WHETSTONE_URL');
});

test('an origin is allowed when it is the own address, the public one or a configured one, to the letter', () => {
  const allowed = originCheck(
    readConfig({ WHETSTONE_PUBLIC_URL: 'https://w.example/app', WHETSTONE_ALLOWED_ORIGINS: 'https://lab.example:443/' }),
    () => 8080,
  );
  for (const origin of [
    undefined,
    'https://w.example',
    'https://lab.example',
    'http://localhost:8080',
    'http://127.0.0.1:8080',
    'http://[::1]:8080',
  ]) {
    expect(allowed(origin), origin).toBe(true);
  }
  for (const origin of [
    'null',
    '',
    '*',
    'http://w.example',
    'https://w.example:444',
    'https://lab.example.evil',
    'http://localhost:8081',
    'https://localhost:8080',
    'http://127.0.0.2:8080',
  ]) {
    expect(allowed(origin), origin).toBe(false);
  }
});
