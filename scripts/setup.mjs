// Brings a clone to where its npm scripts can run: the Node packages, the trainer's Python packages, and the native runtime
// where there is a compiler. It runs before each of them, on whatever Node is there, so it is plain JavaScript without a
// package, and Node 20 must understand it.
//
// Each step leaves a stamp in .setup/:
//   (none)            never begun: the free disk is checked first
//   started <hash>    interrupted or failed: its folder is deleted and made again, as a half-made one looks whole to
//                     npm and uv; what was downloaded is in their caches
//   done <hash>       nothing to do while the hash is that of today's inputs and the result works
//   left out <hash>   nothing to do while the machine still lacks what the step needs
//
// `node scripts/setup.mjs node native` takes these steps only: the image makes them in different stages (Dockerfile).
//
// Settings: WHETSTONE_PYTHON (the interpreter to use), WHETSTONE_SKIP_DISK_CHECK=1, WHETSTONE_SKIP_NATIVE=1, CXX,
// WHETSTONE_OPENVINO=1, WHETSTONE_TIMM=1, and those of npm, pip and uv.

import { spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  config,
  env,
  existing,
  findCompiler,
  findPython,
  freeBytes,
  nativeAddon,
  nativeLacks,
  newerOrSame,
  platformProblem,
  root,
  runs,
  venvPython,
  within,
} from './machine.mjs';

/** What stops the set-up through no fault of the script: its text is all that the user sees. */
class SetupError extends Error {}

// ------------------------------------------------------------------------------------------------------------- steps

const STEPS = [
  {
    name: 'node',
    title: 'Node packages',
    folder: 'node_modules',
    inputs: () => {
      const { scripts, ...manifest } = JSON.parse(fs.readFileSync(within('package.json'), 'utf8'));
      // What is left out decides what is installed: `npm start --omit=dev` must not satisfy `npm test`.
      const { npm_config_omit, npm_config_include, NODE_ENV } = process.env;
      const omitted = [npm_config_omit, npm_config_include, NODE_ENV === 'production'];
      return [JSON.stringify(manifest), contents('package-lock.json'), JSON.stringify(omitted)];
    },
    works: () => runs(within('node_modules', '.bin', 'node'), ['--version']),
    needs: () => [
      { folder: root, bytes: config.diskBytes.node.project },
      { folder: process.env.npm_config_cache ?? path.join(os.homedir(), '.npm'), bytes: config.diskBytes.node.cache },
    ],
    problem: () => (runs('npm', ['--version']) ? undefined : 'npm is missing: install it (it comes with Node.js).'),
    // From a lock file npm compiles every package with a binding.gyp, though it brings its binary: that needs make, Python and Node's headers.
    commands: () => [
      ['npm', 'ci', '--ignore-scripts'],
      ['npm', 'rebuild', 'node', 'onnxruntime-node'],
    ],
  },
  {
    name: 'python',
    title: 'Python packages',
    folder: path.join('trainer', '.venv'),
    // A virtual environment holds its own path, so a moved clone needs a new one.
    inputs: () => [contents('trainer/requirements.in'), contents('trainer/requirements.lock'), process.env.WHETSTONE_PYTHON ?? '', root],
    works: () => runs(venvPython, ['-c', '']),
    needs: () => {
      const cache = process.env.UV_CACHE_DIR ?? path.join(process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'uv');
      const needs = [{ folder: root, bytes: config.diskBytes.python.project }];
      // On one file system uv links the files out of its cache, and they take their place once.
      return device(cache) === device(root) ? needs : [...needs, { folder: cache, bytes: config.diskBytes.python.cache }];
    },
    problem: () => findPython().problem,
    commands: () => {
      const { executable } = findPython();
      const hostUv = runs('uv', ['--version']);
      return [
        [executable, '-m', 'venv', ...(hostUv ? ['--without-pip'] : []), within('trainer', '.venv')],
        ...(hostUv ? [] : [[venvPython, '-m', 'pip', 'install', '--disable-pip-version-check', `uv==${config.uv}`]]),
        [
          findUv(),
          ...['pip', 'install', '--python', venvPython],
          // Not the lock itself: as a constraint it gives the same versions and hashes, but lets UV_TORCH_BACKEND drop CUDA.
          ...['-r', within('trainer', 'requirements.in'), '-c', within('trainer', 'requirements.lock')],
        ],
        // Proves that they work here, and compiles them: a trainer's first start takes 5 s then, not 15 to 20.
        [venvPython, '-c', `import ${config.pythonImports}`],
      ];
    },
  },
  {
    name: 'native',
    title: 'Native runtime',
    folder: path.join('inference-native', 'build'),
    inputs: () => {
      const sources = fs.readdirSync(within('inference-native', 'src')).sort();
      const { dependencies } = JSON.parse(contents('package.json'));
      const { CXX = '', WHETSTONE_SKIP_NATIVE = '' } = process.env;
      return [
        contents('inference-native/CMakeLists.txt'),
        ...sources.flatMap((name) => [name, contents(`inference-native/src/${name}`)]),
        ...[dependencies['node-addon-api'], dependencies['node-api-headers']],
        ...[process.platform, process.arch, CXX, WHETSTONE_SKIP_NATIVE],
      ];
    },
    works: () => fs.existsSync(nativeAddon),
    needs: () => [],
    problem: () => undefined,
    lacks: nativeLacks,
    commands: () => {
      const build = within('inference-native', 'build');
      const generator = runs('make', ['--version']) ? [] : ['-G', 'Ninja'];
      return [
        ['cmake', '-S', within('inference-native'), '-B', build, ...generator, `-DCMAKE_CXX_COMPILER=${findCompiler()}`],
        ['cmake', '--build', build],
        [within('node_modules', '.bin', 'node'), '-e', 'process.dlopen({ exports: {} }, process.argv[1])', nativeAddon],
      ];
    },
    advice:
      'The native runtime does not build with this compiler. Set CXX to another one, or WHETSTONE_SKIP_NATIVE=1 to do without: everything ' +
      'works on onnxruntime-node then.',
  },
  // In a folder of its own, since only its libraries are used: what its Python package depends on sends telemetry.
  extra({
    name: 'openvino',
    title: 'OpenVINO',
    folder: 'inference-native/openvino',
    lock: 'inference-native/openvino.lock',
    made: 'openvino/libs',
  }),
  // What it depends on is there, but for the client of a hub of weights, which nothing here uses.
  extra({ name: 'timm', title: 'timm', folder: 'trainer/extras', lock: 'trainer/timm.lock', made: 'timm' }),
];

/** A Python package that is installed when its setting asks for it, into a folder of its own and without what it depends on. */
function extra({ name, title, folder, lock, made }) {
  return {
    name,
    title,
    folder,
    // Once it is there, it stays and is kept up to date.
    wanted: () => process.env[`WHETSTONE_${name.toUpperCase()}`] === '1' || fs.existsSync(within(folder)),
    inputs: () => [contents(lock)],
    works: () => fs.existsSync(within(folder, made)),
    needs: () => [{ folder: root, bytes: config.diskBytes[name] }],
    problem: () => undefined,
    commands: () => [
      [
        findUv(),
        ...['pip', 'install', '--python', venvPython, '--target', within(folder), '--no-deps', '--require-hashes'],
        ...['-r', within(lock)],
      ],
    ],
  };
}

const findUv = () => (runs('uv', ['--version']) ? 'uv' : within('trainer', '.venv', 'bin', 'uv'));

const contents = (file) => fs.readFileSync(within(file), 'utf8');
const hash = (step) => createHash('sha256').update(JSON.stringify(step.inputs())).digest('hex');
const stampFile = (step) => within('.setup', step.name);
const stamp = (step) => (fs.existsSync(stampFile(step)) ? fs.readFileSync(stampFile(step), 'utf8') : undefined);
const leftOut = (step) => stamp(step) === `left out ${hash(step)}` && step.lacks() !== undefined;
const due = (step) => step.wanted?.() !== false && !leftOut(step) && (stamp(step) !== `done ${hash(step)}` || !step.works());

async function perform(step) {
  const inputs = hash(step);
  const lack = step.lacks?.();
  if (lack !== undefined) {
    await fs.promises.rm(within(step.folder), { recursive: true, force: true });
    write(stampFile(step), `left out ${inputs}`);
    say(`${step.title}: left out. ${lack}`);
    return;
  }
  const commands = step.commands();
  write(stampFile(step), `started ${inputs}`);
  const progress = showProgress(step.title);
  try {
    await fs.promises.rm(within(step.folder), { recursive: true, force: true });
    for (const command of commands) await run(command, progress, step.advice ?? downloadAdvice);
    if (!step.works()) throw new SetupError(`${step.title}: ${step.folder} does not work after its installation.`);
  } finally {
    progress.stop();
  }
  write(stampFile(step), `done ${inputs}`);
  say(`${step.title}: done in ${progress.elapsed()}.`);
}

/** Whole or not at all, whenever the process is killed. */
function write(file, text) {
  fs.writeFileSync(`${file}.new`, text);
  fs.renameSync(`${file}.new`, file);
}

// ----------------------------------------------------------------------------------------------------- prerequisites

function diskProblems(steps) {
  if (process.env.WHETSTONE_SKIP_DISK_CHECK === '1') return [];
  const places = new Map();
  for (const { folder, bytes } of steps.flatMap((step) => step.needs())) {
    const place = places.get(device(folder)) ?? { folder: existing(folder), bytes: 0 };
    places.set(device(folder), { ...place, bytes: place.bytes + bytes });
  }
  return [...places.values()]
    .filter(({ folder, bytes }) => freeBytes(folder) < bytes)
    .map(
      ({ folder, bytes }) =>
        `Too little disk: ${inGb(bytes)} are needed and ${inGb(freeBytes(folder))} are free in ${folder}. ` +
        'Make room (or set WHETSTONE_SKIP_DISK_CHECK=1 if the packages are in the caches of npm and uv already).',
    );
}

const device = (folder) => fs.statSync(existing(folder)).dev;
const inGb = (bytes) => `${(bytes / 1e9).toFixed(1)} GB`;

// ---------------------------------------------------------------------------------------------------------- commands

// The command is the leader of a process group, beside a watcher that kills the group as soon as our end of the pipe closes.
// So a set-up that is killed leaves no npm or uv at work in the folder that the next one throws away.
const GUARDED = 'exec 3<&0; { cat <&3; kill -KILL 0; } >/dev/null 2>&1 & exec "$@" 3<&- </dev/null';

async function run(command, progress, advice) {
  const child = spawn('sh', ['-c', GUARDED, 'sh', ...command], { cwd: root, env, detached: true });
  const lines = [];
  let rest = '';
  const hear = (text) => {
    const parts = (rest + text).split(/[\r\n]+/);
    rest = parts.pop().slice(-2000);
    lines.push(...parts.map(withoutAddresses).filter((line) => line.trim()));
    lines.splice(0, lines.length - 15);
    progress.note(lines.at(-1) ?? '');
  };
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', hear);
  const status = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve(code ?? signal));
  });
  child.stdin.destroy();
  if (status === 0) return;
  hear('\n');
  const shown = `${path.basename(command[0])} ${command.slice(1, 3).join(' ')}`;
  throw new SetupError(
    `\`${shown}\` ended with ${status}. Its last lines:\n${lines.map((line) => `    ${line}`).join('\n')}\n` +
      (env.UV_TORCH_BACKEND && command.includes('pip')
        ? `UV_TORCH_BACKEND=${env.UV_TORCH_BACKEND} takes PyTorch from its own index. If that cannot be reached from here, ` +
          'run the same command without UV_TORCH_BACKEND and UV_NO_VERIFY_HASHES: PyTorch then comes from the index of the other packages.\n'
        : '') +
      advice,
  );
}

const downloadAdvice = 'Is the network reachable, and is there room on the disk? Run the same command again: what was downloaded is kept.';

/** Where packages come from is the user's affair: it may be a private mirror, and the text ends in public logs. */
const withoutAddresses = (line) =>
  line
    .replace(/https?:\/\/[^\s'")`]+/g, '<hidden address>')
    .replace(/\b(?:[a-z0-9-]+\.)+(?:com|org|net|io|dev|internal|local)\b(?::\d+)?/gi, '<hidden host>');

// ---------------------------------------------------------------------------------------------------------- progress

const live = process.stderr.isTTY && !process.env.CI;
const say = (line) => process.stderr.write(`${line}\n`);

/** A line that lives on a terminal; elsewhere one now and one every 15 seconds. */
function showProgress(title) {
  const begunAt = Date.now();
  const freeAtStart = freeBytes(root);
  let latest = '';
  const elapsed = () => {
    const seconds = Math.round((Date.now() - begunAt) / 1000);
    return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  };
  const text = () => {
    const written = freeAtStart - freeBytes(root);
    return [title, elapsed(), ...(written > 1e8 ? [`${inGb(written)} on disk`] : []), latest].filter(Boolean).join(' · ');
  };
  const draw = () => process.stderr.write(`\r\x1b[2K${text().slice(0, (process.stderr.columns ?? 80) - 1)}`);
  if (!live) say(`${title} …`);
  const timer = setInterval(live ? draw : () => say(`  ${text()}`), live ? 200 : 15_000);
  return {
    elapsed,
    note: (line) => {
      latest = line.trim();
    },
    stop: () => {
      clearInterval(timer);
      if (live) process.stderr.write('\r\x1b[2K');
    },
  };
}

// -------------------------------------------------------------------------------------------------------------- lock

const HEARTBEAT_MS = 5_000;
const STALE_MS = 60_000; // a holder whose pid was given to another process shows by its silence

/** One set-up at a time: runs `work` while .setup/lock is ours. A lock whose holder is gone is taken over. */
async function exclusively(work) {
  const file = within('.setup', 'lock');
  const mine = `${process.pid} ${randomUUID()}`;
  const read = () => (fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '');
  let told = false;
  while (true) {
    try {
      fs.writeFileSync(file, mine, { flag: 'wx' });
      // Two that found the same stale lock may both have removed it, the slower one ours: the last writer holds it.
      await sleep(200);
      if (read() === mine) break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
      const holder = Number(read().split(' ')[0]);
      if (isGone(holder, file)) fs.rmSync(file, { force: true });
      else {
        if (!told) say(`Another set-up (process ${holder}) is at work: waiting for it.`);
        told = true;
        await sleep(250);
      }
    }
  }
  const heartbeat = setInterval(() => fs.utimesSync(file, new Date(), new Date()), HEARTBEAT_MS);
  try {
    return await work();
  } finally {
    clearInterval(heartbeat);
    fs.rmSync(file, { force: true });
  }
}

function isGone(pid, file) {
  const silentMs = Date.now() - (fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
  if (pid === process.pid || silentMs > STALE_MS) return true;
  if (!(pid > 0)) return false; // its holder is about to write
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return error.code === 'ESRCH';
  }
}

// -------------------------------------------------------------------------------------------------------------- main

async function setUp() {
  if (!newerOrSame(process.versions.node, config.node)) {
    throw new SetupError(`Node.js ${config.node} or newer is needed, and this is ${process.versions.node}: install a current one.`);
  }
  const named = process.argv.slice(2);
  const unknown = named.find((name) => !STEPS.some((step) => step.name === name));
  if (unknown !== undefined) throw new SetupError(`There is no step ${unknown}, only ${STEPS.map(({ name }) => name).join(', ')}.`);
  const asked = named.length === 0 ? STEPS : STEPS.filter(({ name }) => named.includes(name));
  if (!asked.some(due)) {
    // Before an npm script, nothing to do is nothing to say: the script may be one whose output a program reads.
    if (!process.env.npm_lifecycle_event?.startsWith('pre')) say('Set-up: nothing to do.');
    return;
  }

  const begunAt = Date.now();
  fs.mkdirSync(within('.setup'), { recursive: true });
  await exclusively(async () => {
    const steps = asked.filter(due);
    const unbegun = steps.filter((step) => stamp(step) === undefined);
    const problems = [platformProblem(), ...steps.map((step) => step.problem()), ...diskProblems(unbegun)].filter(Boolean);
    if (problems.length > 0) throw new SetupError(problems.join('\n'));
    for (const step of steps) await perform(step);
  });
  say(`Set-up finished in ${Math.round((Date.now() - begunAt) / 1000)} s.`);
}

try {
  await setUp();
} catch (error) {
  say(error instanceof SetupError ? error.message : `Set-up failed: ${error.message}`);
  process.exitCode = 1;
}
