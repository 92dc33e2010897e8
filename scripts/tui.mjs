// Runs the terminal UI. Node does not run JSX, so it is bundled first, whenever a file has changed: into one that loads faster than 300 do.
// In JavaScript: for a file in TypeScript Node would first load a compiler, which takes longer than everything else here.
import { readdirSync, statSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

if (process.argv.some((argument) => ['-h', '--help'].includes(argument))) {
  // The help has more than the program needs, such as the settings.
  process.argv = [...process.argv.slice(0, 2), 'help', 'tui'];
  await import('../src/main.ts');
}

const root = join(import.meta.dirname, '..');
const outfile = join(root, '.setup', 'tui', 'main.mjs');

/** @param {string} file */
const timeOf = (file) => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
const sources = ['tui', 'client'].flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true }).map((name) => join(root, folder, String(name))),
);
const newest = Math.max(...[...sources, join(root, 'package-lock.json'), import.meta.filename].map(timeOf));

if (timeOf(outfile) < newest) {
  const { build } = await import('esbuild');
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
// The second start does not compile again.
enableCompileCache(join(root, '.setup', 'tui', 'cache'));
await import(outfile);

/** The garbage of loading goes back to the system, when the first screen is there: V8 alone keeps it. */
const giveBack = () => {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')({ type: 'major', execution: 'sync', flavor: 'last-resort' });
};
setTimeout(giveBack, 3000).unref();
