import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { withChild } from './support/process.ts';

const root = join(import.meta.dirname, '..');

test.each([
  ['classification', ['report.json', 'report.csv', 'report.md', 'report.html']],
  ['detection', ['report.json', 'report.csv', 'report.md', 'report.html', 'found.png']],
])('the demo of %s ends with the path of its report', async (task, files) => {
  await withChild(['src/main.ts', 'demo', '--task', task], {}, async (demo) => {
    const { code } = await demo.exit;
    const path = /^report: (.+)$/.exec(demo.lines.at(-1) ?? '')?.[1] ?? '';
    expect([code, path], demo.lines.slice(-20).join('\n')).toEqual([0, expect.stringMatching(/report\.md$/)]);
    for (const file of files) expect(existsSync(join(root, dirname(path), file)), file).toBe(true);
  });
});
