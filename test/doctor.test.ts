/** `npm run doctor`, as a person runs it: what it finds on this machine, and on one that lacks something. */
import { execFile, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { describedSettings } from '../src/config.ts';
import { withFolder, withServer } from './support/server.ts';

const root = join(import.meta.dirname, '..');
const script = join(root, 'scripts', 'doctor.mjs');

interface Check {
  name: string;
  state: 'OK' | 'WARNING' | 'MISSING';
  found: string;
  mend: string | null;
}

function examine(env: Record<string, string> = {}, ...args: string[]) {
  const ports = { WHETSTONE_PORT: '0', WHETSTONE_INFERENCE_PORT: '0' };
  const { PATH = '', HOME = '' } = process.env;
  return spawnSync(process.execPath, [script, ...args], { encoding: 'utf8', env: { PATH, HOME, ...ports, ...env } });
}

/** The checks by name. */
function checksIn(stdout: string): Record<string, Check> {
  return Object.fromEntries((JSON.parse(stdout).checks as Check[]).map((check) => [check.name, check]));
}

test('where the product runs, it says what is here and exits with 0; what is missing has a command', () => {
  const { stdout, status } = examine({}, '--json');
  const checks = checksIn(stdout);
  expect([status, JSON.parse(stdout).ok]).toEqual([0, true]);
  const names = ['System', 'Node.js', 'npm', 'Node packages', 'Python', 'Python packages', 'Native runtime', 'GPU', 'Data folder', 'Disk'];
  expect(Object.keys(checks)).toEqual([...names, 'Server port', 'Inference port', 'Open files', 'Clock']);
  expect(checks['Python packages']).toMatchObject({ state: 'OK', found: expect.stringMatching(/PyTorch \d/) });
  for (const { state, mend } of Object.values(checks)) expect(mend === null).toBe(state === 'OK');
  expect(examine().stdout).toMatch(/✓ Node\.js +\d+[\s\S]*\nThe server can run: npm start\n$/);
});

test('without Python and npm it exits with 1 and names the packages; without a compiler it only warns', () =>
  withFolder(async (folder) => {
    const { stdout, status } = examine({ PATH: folder }, '--json');
    const { npm, Python } = checksIn(stdout);
    expect(status).toBe(1);
    expect(npm).toMatchObject({ state: 'MISSING', mend: 'sudo apt-get install npm' });
    expect(Python).toMatchObject({ state: 'MISSING', mend: 'sudo apt-get install python3 python3-venv' });
    expect(examine({ PATH: folder }).stdout).toContain('The server cannot run yet');
  }));

test('a port that something else listens on is named with its setting; one with Whetstone on it is right', async () => {
  const silent = createServer().listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port } = silent.address() as AddressInfo;
  await withServer(async (server) => {
    const env = { WHETSTONE_PORT: String(port), WHETSTONE_INFERENCE_PORT: new URL(server.url).port };
    // Not `examine`: the two answer from this process.
    const ran = promisify(execFile)(process.execPath, [script, '--json'], { env: { ...process.env, ...env } });
    const { stdout, code } = (await ran.catch((error: unknown) => error)) as { stdout: string; code?: number };
    const { 'Server port': taken, 'Inference port': own } = checksIn(stdout);
    const mend = expect.stringContaining('WHETSTONE_PORT');
    expect([code, taken]).toEqual([1, { name: 'Server port', state: 'MISSING', found: `127.0.0.1:${port} is in use`, mend }]);
    expect(own).toMatchObject({ state: 'OK', found: expect.stringContaining('Whetstone runs there') });
  });
  silent.close();
});

test('too little disk for the reserve is missing, and an argument that it does not know is 2', () => {
  const { stdout, status } = examine({ WHETSTONE_DISK_RESERVE_BYTES: '9000000000000000' }, '--json');
  expect([status, checksIn(stdout).Disk]).toEqual([
    1,
    expect.objectContaining({ state: 'MISSING', mend: expect.stringContaining('WHETSTONE_DATA_DIR') }),
  ]);
  const unknown = examine({}, '--fix');
  expect([unknown.status, unknown.stderr]).toEqual([2, expect.stringContaining("unknown option '--fix'")]);
  expect(examine({}, '--help').stdout).toContain('Exits with 1');
});

test('its defaults are those of the server', () => {
  const fallback = (variable: string) => describedSettings.server.find((setting) => setting.variable === variable)?.fallback;
  expect(
    ['WHETSTONE_HOST', 'WHETSTONE_PORT', 'WHETSTONE_INFERENCE_PORT', 'WHETSTONE_DATA_DIR', 'WHETSTONE_DISK_RESERVE_BYTES'].map(fallback),
  ).toEqual(['127.0.0.1', '8080', '8000', 'data', String(1024 ** 3)]);
});
