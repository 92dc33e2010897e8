import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { stopUnderLoad } from './support/drain.ts';
import { withChild } from './support/process.ts';
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
