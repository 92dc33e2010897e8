// What is on this machine that Whetstone needs: asked by the set-up and by `npm run doctor`, on whatever Node is there. So it is plain
// JavaScript without a package, and Node 20 must understand it.

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
export const within = (...names) => path.join(root, ...names);
export const config = JSON.parse(fs.readFileSync(within('scripts', 'setup.json'), 'utf8'));
export const venvPython = within('trainer', '.venv', 'bin', 'python');
export const nativeAddon = within('inference-native', 'build', 'whetstone.node');

// Under `npm test` the environment is that of the script: its own settings for npm are the user's and stay, what describes
// the running script goes, and so does what forbids Python to keep what it compiles. node_modules/.bin leaves the path because `npm ci` deletes the Node that is in there.
export const env = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) =>
      !/^(npm_(lifecycle|package)_|npm_config_(local_)?prefix$|npm_(command|execpath|node_execpath)$|INIT_CWD$|PYTHONDONTWRITEBYTECODE$)/.test(
        name,
      ),
  ),
);
const folders = (env.PATH ?? '').split(':').filter((folder) => !folder.endsWith('/node_modules/.bin'));
Object.assign(env, {
  PATH: [...folders, path.dirname(process.execPath)].join(':'),
  // The CUDA libraries come from a host that may be out of reach, and the installation fails without it.
  ONNXRUNTIME_NODE_INSTALL: env.ONNXRUNTIME_NODE_INSTALL ?? 'skip',
  // The proof that the Python packages work loads the engine too.
  ORT_DISABLE_TELEMETRY: '1',
  // Warnings: packages want a newer Node than the one that installs them; they run on the one that is installed.
  npm_config_loglevel: 'error',
});

export const runs = (command, args) => spawnSync(command, args, { env, stdio: 'ignore' }).status === 0;

export function platformProblem() {
  const here = `${process.platform} ${process.arch}`;
  if (!['linux x64', 'linux arm64', 'darwin arm64'].includes(here)) {
    return `This is ${here}: Whetstone runs on Linux (x64, arm64) and, for development, on macOS (arm64).`;
  }
  if (process.platform === 'darwin') return undefined;
  const glibc = process.report.getReport().header.glibcVersionRuntime;
  if (glibc && newerOrSame(glibc, '2.28')) return undefined;
  return `glibc 2.28 or newer is needed (Debian 10, Ubuntu 20.04, RHEL 8 and later); this system has ${glibc ?? 'none'}.`;
}

const PYTHON_PROBE = `
import importlib.util, json, platform, sys
print(json.dumps([sys.executable, platform.python_version(), importlib.util.find_spec("ensurepip") is not None]))`;

/** The first interpreter that will do, or the line that says why none does. */
export function findPython() {
  const { oldest, newest } = config.python;
  const chosen = process.env.WHETSTONE_PYTHON;
  const wanted = `Python ${oldest} to ${newest} is needed`;
  const remedy = chosen ? 'correct WHETSTONE_PYTHON.' : 'install one, or set WHETSTONE_PYTHON to its path.';
  let problem = chosen ? `${wanted}, and ${chosen} does not run: ${remedy}` : `${wanted}, and there is none: ${remedy}`;
  for (const name of chosen ? [chosen] : ['python3.13', 'python3.12', 'python3.11', 'python3', 'python']) {
    const probe = spawnSync(name, ['-c', PYTHON_PROBE], { encoding: 'utf8', env });
    if (probe.status !== 0) continue;
    const [executable, version, hasEnsurepip] = JSON.parse(probe.stdout);
    if (!newerOrSame(version, oldest) || !newerOrSame(newest, version.split('.').slice(0, 2).join('.'))) {
      problem = `${wanted}, and ${name} is ${version}: ${remedy}`;
    } else if (!hasEnsurepip && !runs('uv', ['--version'])) {
      problem = `${name} (${version}) has no ensurepip: install it (Debian, Ubuntu: the package python3-venv).`;
    } else {
      return { executable, version };
    }
  }
  return { problem };
}

/** The compiler to build the native runtime with; undefined where none knows C++17. */
export const findCompiler = () =>
  (env.CXX ? [env.CXX] : ['c++', 'g++', 'clang++']).find(
    (name) => spawnSync(name, ['-std=c++17', '-fsyntax-only', '-x', 'c++', '-'], { env, input: '#include <optional>' }).status === 0,
  );

/** Why there is no native runtime. Everything works without it. */
export function nativeLacks() {
  if (process.env.WHETSTONE_SKIP_NATIVE === '1') return 'WHETSTONE_SKIP_NATIVE is 1: models run on onnxruntime-node.';
  const cmake = spawnSync('cmake', ['--version'], { encoding: 'utf8', env }).stdout?.match(/\d+\.\d+/)?.[0];
  const missing = [
    ...(cmake && newerOrSame(cmake, config.cmake) ? [] : [`CMake ${config.cmake} or newer`]),
    ...(runs('make', ['--version']) || runs('ninja', ['--version']) ? [] : ['make or Ninja']),
    ...(findCompiler() ? [] : ['a C++17 compiler']),
  ];
  if (missing.length === 0) return undefined;
  const packages = 'Debian, Ubuntu: the packages cmake, make and g++';
  return `Missing: ${missing.join(', ')} (${packages}). Models run on onnxruntime-node.`;
}

export const existing = (folder) => (fs.existsSync(folder) ? folder : existing(path.dirname(folder)));

export function freeBytes(folder) {
  const { bavail, bsize } = fs.statfsSync(folder);
  return bavail * bsize;
}

export function newerOrSame(version, than) {
  const [a, b] = [version, than].map((text) => text.split('.').map(Number));
  const first = b.findIndex((part, i) => (a[i] ?? 0) !== part);
  return first === -1 || (a[first] ?? 0) > b[first];
}
