import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { withChild } from './support/process.ts';

const root = join(import.meta.dirname, '..');

test.each([
  ['classification', ['report.json', 'report.csv', 'report.md', 'report.html']],
  ['detection', ['report.json', 'report.csv', 'report.md', 'report.html', 'found.png']],
  ['classification --tune', ['report.json', 'report.csv', 'report.md', 'report.html', 'study.html']],
])('the demo of %s ends with the path of its report', async (task, files) => {
  await withChild(['src/main.ts', 'demo', '--task', ...task.split(' ')], {}, async (demo) => {
    const { code } = await demo.exit;
    const path = /^report: (.+)$/.exec(demo.lines.at(-1) ?? '')?.[1] ?? '';
    expect([code, path], demo.lines.slice(-20).join('\n')).toEqual([0, expect.stringMatching(/report\.md$/)]);
    if (task.includes('--tune')) {
      const said = demo.lines.join('\n');
      expect(said).toMatch(/trial \d, generation [01], COMPLETE: TOP1 0\.\d+, MACS \d+ with learningRate/);
      expect(said).toMatch(/version 3: INT8, [\d.]+ % of 240 validation images right, 1\d MB/);
      expect(Number(/^That took (\d+) s/m.exec(said)?.[1])).toBeLessThan(600);
    }
    for (const file of files) expect(existsSync(join(root, dirname(path), file)), file).toBe(true);
  });
});
