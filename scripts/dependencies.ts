/**
 * Every package that is installed for the product is in scripts/dependencies.json: with what in its files could reach the network (`traces`),
 * and what a person found that this is for (`note`). Fails for a package that nobody has reviewed, and for one that has new traces. With
 * --write it records packages and traces; the notes are left to be written.
 */
import { existsSync, globSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const listPath = join(root, 'scripts', 'dependencies.json');

type Review = 'no traces' | 'not installed here' | { traces: string; note: string };

/** Where programs report to. */
const collectors =
  /events\.data\.microsoft\.com|google-analytics\.com|sentry\.io|segment\.io|amplitude\.com|mixpanel\.com|posthog\.com|scarf\.sh/g;

/** Patterns whose group, or else whose name here, is the trace. */
const patterns: Record<'js' | 'py', [RegExp, string][]> = {
  js: [
    [/(?:require\(|from |import\()\s*['"](?:node:)?(http|https|http2|net|tls|dns|dgram)(?:\/promises)?['"]/g, ''],
    [/(?<![\w.$])(?:globalThis\.)?fetch\(/g, 'fetch'],
    [/new (XMLHttpRequest|WebSocket|EventSource)\b/g, ''],
    [/telemetry|analytics|update-notifier/gi, 'telemetry'],
  ],
  py: [
    [/^\s*(?:import|from) (socket|ssl|http|urllib\.request|urllib3|requests|httpx|aiohttp|ftplib|smtplib|xmlrpc)\b/gm, ''],
    [/^\s*from urllib import .*\brequest\b/gm, 'urllib.request'],
    [/telemetry|analytics/gi, 'telemetry'],
  ],
};

/** Libraries beyond this are not searched, which is a trace too. They are PyTorch's and CUDA's. */
const libraryBytesMax = 100 * 2 ** 20;

function tracesIn(files: string[]): string[] {
  const found = new Set<string>();
  for (const file of files) {
    if (/\/(tests?|testing|docs|examples?|bench)\//.test(file.slice(root.length))) continue;
    const language = /\.[cm]?js$/.test(file) ? 'js' : file.endsWith('.py') ? 'py' : null;
    if (language === null && !/\.(node|so|dylib|dll|wasm)$|\.so\.\d/.test(file)) continue;
    if (statSync(file).size > libraryBytesMax) {
      found.add('a large library');
      continue;
    }
    const text = readFileSync(file, 'latin1');
    for (const [host] of text.matchAll(collectors)) found.add(host);
    for (const [pattern, name] of language ? patterns[language] : []) {
      for (const match of text.matchAll(pattern)) found.add(match[1] ?? name);
    }
  }
  return [...found];
}

/** Traces of each package of the lock file; null where none is installed, as those of other platforms. */
function npmPackages(): Map<string, string[] | null> {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; hasInstallScript?: boolean }>;
  };
  const found = new Map<string, string[] | null>();
  for (const [path, { dev, hasInstallScript }] of Object.entries(packages)) {
    if (path === '' || dev) continue;
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    const folder = join(root, path);
    const files = globSync('**', { cwd: folder, exclude: ['node_modules/**'] }).map((file) => join(folder, file));
    const traces = existsSync(folder) ? [...tracesIn(files), ...(hasInstallScript ? ['install script'] : [])] : null;
    // The same package may be there in several versions.
    const others = found.get(name) ?? null;
    found.set(name, traces || others ? [...(traces ?? []), ...(others ?? [])] : null);
  }
  return found;
}

const plainName = (name: string): string => name.toLowerCase().replaceAll(/[-_.]+/g, '-');

/** Of the packages of a lock file that are installed in a folder. */
function pythonPackages(lockFile: string, packages: string): Map<string, string[] | null> {
  const lock = readFileSync(join(root, lockFile), 'utf8');
  const folders = existsSync(packages) ? readdirSync(packages).filter((name) => name.endsWith('.dist-info')) : [];
  const folderOf = new Map(folders.map((folder) => [plainName(folder.split('-')[0] as string), folder]));
  const names = [...lock.matchAll(/^([A-Za-z0-9][\w.-]*)==/gm)].map((match) => plainName(match[1] as string));
  return new Map(
    names.map((name) => {
      const folder = folderOf.get(name);
      if (!folder) return [name, null];
      const record = readFileSync(join(packages, folder, 'RECORD'), 'utf8');
      const files = record.split('\n').map((line) => join(packages, line.split(',')[0] as string));
      return [name, tracesIn(files.filter((file) => existsSync(file)))];
    }),
  );
}

const reviewed = JSON.parse(readFileSync(listPath, 'utf8')) as Record<string, Record<string, Review>>;
const problems: string[] = [];
const written: typeof reviewed = {};
const [sitePackages = ''] = globSync('trainer/.venv/lib/python*/site-packages', { cwd: root });
const python = [
  ...pythonPackages('trainer/requirements.lock', join(root, sitePackages)),
  ...pythonPackages('inference-native/openvino.lock', join(root, 'inference-native', 'openvino')),
  ...pythonPackages('trainer/timm.lock', join(root, 'trainer', 'extras')),
];
for (const [ecosystem, packages] of Object.entries({ npm: npmPackages(), python: new Map(python) })) {
  const reviews: Record<string, Review> = {};
  for (const [name, found] of [...packages].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const review = Object.hasOwn(reviewed[ecosystem] ?? {}, name) ? reviewed[ecosystem]?.[name] : undefined;
    const known = typeof review === 'object' ? review.traces.split(', ') : [];
    const note = typeof review === 'object' ? review.note : '';
    const traces = found ? [...new Set(found)].sort() : known;
    const fresh = traces.filter((trace) => !known.includes(trace));
    if (!review || fresh.length > 0)
      problems.push(`${name} (${ecosystem}) is not reviewed. In its files there is: ${fresh.join(', ') || 'nothing that we look for'}.`);
    else if (traces.length > 0 && note === '')
      problems.push(`${name} (${ecosystem}) has no note on what it uses ${traces.join(', ')} for.`);
    reviews[name] = traces.length > 0 ? { traces: traces.join(', '), note } : found ? 'no traces' : 'not installed here';
  }
  written[ecosystem] = reviews;
}

if (process.argv.includes('--write')) {
  writeFileSync(listPath, `${JSON.stringify(written, null, 2)}\n`);
} else if (problems.length > 0) {
  console.error(problems.join('\n'));
  console.error('Find out whether the package sends anything by itself; if it does, switch that off in every process, or do without it.');
  console.error('Then run `npm run review:dependencies`, and write what you found into its note in scripts/dependencies.json.');
  process.exit(1);
}
