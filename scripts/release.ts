/**
 * Makes the release of the version in package.json in the folder release/: the archive of the last commit, the packages that it installs as
 * CycloneDX documents, the notes, and their checksums. The same commit gives the same bytes. This needs git; what is in the archive does not.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import pkg from '../package.json' with { type: 'json' };

const root = join(import.meta.dirname, '..');
const folder = join(root, 'release');
const name = `whetstone-${pkg.version}`;
const archiveBytesMax = 2 ** 30;

const output = (command: string, ...args: string[]): Buffer =>
  execFileSync(command, args, { cwd: root, maxBuffer: archiveBytesMax, stdio: ['ignore', 'pipe', 'inherit'] });
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

function fail(message: string): never {
  console.error(message);
  process.exit(1);
}

/** What `CHANGELOG.md` says of this version. */
function notes(): string {
  const sections = read('CHANGELOG.md').split(/^(?=## )/m);
  const section = sections.find((text) => text.startsWith(`## ${pkg.version} `));
  return section ?? fail(`CHANGELOG.md has no section "## ${pkg.version} - <date>". Write one.`);
}

/** Git sorts the files, gives them to root, and dates them by the commit, whose hash it puts into the archive. */
function archive(): Buffer {
  const tar = output('git', '-c', 'tar.umask=0022', 'archive', '--format=tar', `--prefix=${name}/`, 'HEAD');
  return gzipSync(tar, { level: 9 });
}

/** npm's CycloneDX document of a package.json and its lock file. */
function packagesOf(product: object, lock: object): string {
  const own = mkdtempSync(join(tmpdir(), 'whetstone-release-'));
  try {
    writeFileSync(join(own, 'package-lock.json'), JSON.stringify(lock));
    writeFileSync(join(own, 'package.json'), JSON.stringify(product));
    return String(output('npm', 'sbom', '--prefix', own, '--sbom-format', 'cyclonedx', '--package-lock-only'));
  } finally {
    rmSync(own, { recursive: true });
  }
}

/**
 * Of the lock file without what is for development alone: npm itself would leave out what is for development too, as graphql. Without what is
 * not of the commit: a random number, the time, and the name of this folder.
 */
function npmPackages(timestamp: string): object {
  const lock = JSON.parse(read('package-lock.json')) as { packages: Record<string, { dev?: true; devDependencies?: object }> };
  for (const [path, { dev }] of Object.entries(lock.packages)) if (dev) delete lock.packages[path];
  delete lock.packages['']?.devDependencies;
  const { devDependencies: _, ...product } = pkg;
  const made = JSON.parse(packagesOf(product, lock));
  delete made.serialNumber;
  const component = { ...made.metadata.component, type: 'application', name: pkg.name };
  return { ...made, metadata: { ...made.metadata, timestamp, component } };
}

/** A package of a lock file of uv: its version, the condition under which it is installed, and the hashes of its files. */
const locked = /^([\w.-]+)==(\S+)(?: ; (.+?))? \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)/gm;

function pythonPackages(timestamp: string): object {
  const componentsOf = (lock: string, scope: 'required' | 'optional') =>
    [...read(lock).matchAll(locked)].map(([, package_, version, condition, hashes = '']) => {
      const purl = `pkg:pypi/${package_}@${version}`;
      return {
        'bom-ref': purl,
        type: 'library',
        name: package_,
        version,
        purl,
        scope,
        // Of each file of the package: which one is installed depends on the platform.
        hashes: [...hashes.matchAll(/[0-9a-f]{64}/g)].map(([content]) => ({ alg: 'SHA-256', content })),
        ...(condition ? { properties: [{ name: 'whetstone:condition', value: condition }] } : {}),
      };
    });
  return {
    $schema: 'http://cyclonedx.org/schema/bom-1.5.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: {
      timestamp,
      component: { type: 'application', 'bom-ref': 'whetstone-trainer', name: 'whetstone-trainer', version: pkg.version },
    },
    components: [
      ...componentsOf('trainer/requirements.lock', 'required'),
      ...['inference-native/openvino.lock', 'trainer/timm.lock'].flatMap((lock) => componentsOf(lock, 'optional')),
    ],
  };
}

const changed = String(output('git', 'status', '--porcelain')).trim();
if (changed) fail(`A release is made of a commit. Commit these changes, or stash them:\n${changed}`);
const timestamp = new Date(1000 * Number(output('git', 'log', '-1', '--format=%ct'))).toISOString();
const json = (value: object): string => `${JSON.stringify(value, null, 2)}\n`;
const files: Record<string, Buffer | string> = {
  [`${name}.tar.gz`]: archive(),
  [`${name}.npm.cdx.json`]: json(npmPackages(timestamp)),
  [`${name}.python.cdx.json`]: json(pythonPackages(timestamp)),
  [`${name}.notes.md`]: notes(),
};
const sums = Object.entries(files).map(([file, content]) => `${createHash('sha256').update(content).digest('hex')}  ${file}\n`);
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder);
for (const [file, content] of Object.entries({ ...files, SHA256SUMS: sums.join('') })) writeFileSync(join(folder, file), content);
console.log(`release/ has ${Object.keys(files).join(', ')} and SHA256SUMS.`);
