import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { stopUnderLoad } from './support/drain.ts';
import { withModelFiles } from './support/inference.ts';
import { type Listening, withChild, withListening } from './support/process.ts';
import { withFolder } from './support/server.ts';

test.each([1, 2, 3])('SIGTERM under load, time %i: exit 0, and every request that had arrived gets its answer', stopUnderLoad);

test('a wrong configuration ends the process with what is wrong, each on a line', () =>
  withFolder(async (folder) => {
    const broken = join(folder, 'broken.json');
    writeFileSync(broken, JSON.stringify({ prot: 8000, models: 3 }));
    await withChild(['src/inference/main.ts', '--config', broken], {}, async (child) => {
      expect(await child.exit).toEqual({ code: 1, signal: null });
      expect(child.lines).toEqual(expect.arrayContaining([expect.stringContaining('prot'), expect.stringContaining('models')]));
    });
  }));

test('a host that was killed leaves folders that the next one removes, and that one leaves none', async () => {
  const { folder, settings } = await withModelFiles({ models: [{ name: 'one', model: 'identity' }] });
  const config = join(folder, 'models.json');
  writeFileSync(config, JSON.stringify(settings));
  const temporary = join(folder, 'temporary');
  mkdirSync(temporary);
  const runHost = (use: (host: Listening) => Promise<void>) =>
    withListening(['src/inference/main.ts', '--config', config], { TMPDIR: temporary }, 'inference host is ready', use);
  const owners = () => new Set(readdirSync(temporary).map((name) => name.split('-')[2]));
  try {
    await runHost(async (killed) => {
      killed.kill('SIGKILL');
      await killed.exit;
      expect(owners()).toEqual(new Set([String(killed.pid)]));
    });
    await runHost(async (next) => {
      expect(owners()).toEqual(new Set([String(next.pid)]));
      next.kill('SIGTERM');
      expect(await next.exit).toEqual({ code: 0, signal: null });
    });
    expect(readdirSync(temporary)).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
