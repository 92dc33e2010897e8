/** The units of `deploy/systemd`, as systemd reads them. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { withFolder } from './support/server.ts';

const root = join(import.meta.dirname, '..');
const units = readdirSync(join(root, 'deploy', 'systemd'));
const analyze = (...args: string[]) => spawnSync('systemd-analyze', args, { encoding: 'utf8' });
const missing = analyze('--version').status === 0 ? '' : ' (skipped: systemd-analyze is not installed)';

test.skipIf(missing)(`the units are valid, and the server has few rights${missing}`, () =>
  withFolder(async (folder) => {
    // The program stands somewhere else here, maybe in a folder with a space in its name.
    const program = join(folder, 'program');
    symlinkSync(root, program);
    for (const unit of units) {
      const text = readFileSync(join(root, 'deploy', 'systemd', unit), 'utf8').replaceAll('/opt/whetstone', program);
      writeFileSync(join(folder, unit), text);
    }
    const paths = units.map((unit) => join(folder, unit));
    const { stdout, stderr, status } = analyze('verify', '--man=no', ...paths);
    expect([stdout, stderr, status]).toEqual(['', '', 0]);
    // 2.5 of 10: what is left is the network, and the devices of GPUs.
    const security = analyze('security', '--offline=true', '--threshold=25', join(folder, 'whetstone.service'));
    expect(security.status, security.stdout).toBe(0);
  }),
);
