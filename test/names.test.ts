import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '..');
const textOf = (file: string) => readFileSync(join(root, file), 'utf8');

/** Names that mean the same in both files, and why they are in two. */
const meantTwice: Record<string, string> = {
  jobStates: 'The command line may import no tables; `cli.test.ts` compares both.',
  plural: 'That of the reports writes no commas: a stored report must be the same bytes when it is made again.',
  splits: 'The child that imports a dataset may import no tables.',
};

/** The files that define each exported name. */
function definitions(): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  for (const file of globSync('src/**/*.ts', { cwd: root })) {
    const text = readFileSync(join(root, file), 'utf8');
    for (const [, name = ''] of text.matchAll(/^export (?:async )?(?:function\*?|class|interface|type|const|let) (\w+)/gm))
      found.set(name, (found.get(name) ?? new Set()).add(file));
  }
  return found;
}

test('an exported name means one thing: no two files of src/ define the same', () => {
  const all = definitions();
  expect(all.size).toBeGreaterThan(500);
  const twice = [...all].filter(([, files]) => files.size > 1);
  expect(twice.filter(([name]) => !Object.hasOwn(meantTwice, name)).map(([name, files]) => `${name}: ${[...files].join(', ')}`)).toEqual(
    [],
  );
  expect(twice.map(([name]) => name).sort()).toEqual(Object.keys(meantTwice).sort());
});

test('a command to copy takes its token from WHETSTONE_TOKEN, or the key of a deployment from KEY, wherever it stands', () => {
  const files = ['README.md', ...globSync(['docs/**/*.md', 'src/**/*.ts', 'client/**/*.ts', 'tui/**/*.{ts,tsx}'], { cwd: root })];
  const used = files.flatMap((file) =>
    [...textOf(file).matchAll(/Bearer (?:\\?\$\{)?(?:process\.env\.|os\.environ\[')?\$?([A-Z][A-Z_]+)/g)].map(([, name = '']) => ({
      file,
      name,
    })),
  );
  expect(used.length).toBeGreaterThan(10);
  expect(used.filter(({ name }) => name !== 'WHETSTONE_TOKEN' && name !== 'KEY')).toEqual([]);
  expect(files.filter((file) => /\$(TOKEN|SERVER)\b/.test(textOf(file)))).toEqual([]);
});
