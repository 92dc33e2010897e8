// Runs the terminal UI. Node does not run JSX, so it is bundled first, whenever a file has changed: into one that loads faster than 300 do.
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

const root = join(import.meta.dirname, '..');
const outfile = join(root, '.setup', 'tui', 'main.mjs');

const timeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
const sources = readdirSync(join(root, 'tui'), { recursive: true }).map((name) => join(root, 'tui', String(name)));
const newest = Math.max(...[...sources, join(root, 'package-lock.json'), import.meta.filename].map(timeOf));

if (timeOf(outfile) < newest) {
  await build({
    entryPoints: [join(root, 'tui', 'main.tsx')],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    jsx: 'automatic',
    // React's own development build is slow, and keeps a record of everything that it has rendered.
    define: { 'process.env.NODE_ENV': '"production"', 'process.env.DEV': '"false"' },
    // Ink's developer tools want a package that is not here; sharp has native code.
    external: ['*/devtools.js', 'sharp'],
    // Packages of CommonJS ask for Node's modules by `require`.
    banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    logLevel: 'warning',
  });
}
await import(outfile);
