/** `npm run release` on a clone of the last commit, and its archive as a stranger uses it. */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import pkg from '../package.json' with { type: 'json' };
import { withListening } from './support/process.ts';
import { postGraphql, withFolder } from './support/server.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '..');
const name = `whetstone-${pkg.version}`;

/** Without what npm and Vitest add for this folder. */
const env = Object.fromEntries(
  Object.entries(process.env).filter(([key]) => !/^(npm_(package|lifecycle|config_local)|VITEST|NODE_ENV|INIT_CWD)/.test(key)),
) as Record<string, string>;
env.PATH = (env.PATH ?? '')
  .split(':')
  .filter((path) => !path.endsWith('/node_modules/.bin'))
  .join(':');

test.skipIf(!existsSync(join(root, '.git')))('the archive runs in an empty folder without git', () =>
  withFolder(async (folder) => {
    const clone = join(folder, 'clone');
    await run('git', ['clone', '--quiet', root, clone]);
    const release = join(clone, 'release');
    const make = async (): Promise<string> => {
      await run(process.execPath, ['scripts/release.ts'], { cwd: clone, env });
      return readFileSync(join(release, 'SHA256SUMS'), 'utf8');
    };
    const sums = await make();
    expect(await make()).toBe(sums);
    await run('sha256sum', ['-c', '--quiet', 'SHA256SUMS'], { cwd: release });
    const text = (file: string) => readFileSync(join(release, `${name}.${file}`), 'utf8');
    expect(text('notes.md').split('\n')[0]).toMatch(`## ${pkg.version} - `);
    const named = (file: string): string[] => JSON.parse(text(file)).components.map((one: { name: string }) => one.name);
    const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as { packages: Record<string, { dev?: true }> };
    const product = Object.entries(packages).filter(([path, { dev }]) => path !== '' && !dev);
    const names = product.map(([path]) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length));
    expect(new Set(named('npm.cdx.json'))).toEqual(new Set(names));
    expect(JSON.parse(text('npm.cdx.json')).metadata.component.name).toBe('whetstone');
    const locks = ['trainer/requirements.lock', 'inference-native/openvino.lock', 'trainer/timm.lock'];
    const locked = locks.flatMap((lock) => readFileSync(join(root, lock), 'utf8').match(/^[\w.-]+==/gm) ?? []);
    expect(named('python.cdx.json')).toHaveLength(locked.length);

    const parent = join(folder, 'my programs');
    mkdirSync(parent);
    await run('tar', ['-xzf', join(release, `${name}.tar.gz`), '-C', parent]);
    const own = join(parent, name);
    const start = ['-c', 'cd "$1" && exec npm start', 'sh', own];
    const settings = { ...env, WHETSTONE_PORT: '0', WHETSTONE_INFERENCE_PORT: '0' };
    await withListening(
      start,
      settings,
      'whetstone is ready',
      async ({ url, kill, exit }) => {
        expect((await postGraphql(url, '{ presets { name } }')).errors?.[0].extensions.code).toBe('UNAUTHENTICATED');
        const { info } = (await (await fetch(`${url}/openapi.json`)).json()) as { info: { version: string } };
        expect(info.version).toBe(pkg.version);
        kill('SIGTERM');
        await exit;
      },
      'sh',
    );
    await run('npm', ['run', 'check'], { cwd: own, env });
  }),
);
