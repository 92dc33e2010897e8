// What Whetstone needs and finds on this machine, each with the command that mends it. It runs where nothing is installed yet, on whatever
// Node is there: see machine.mjs. Exit code 0: the server can run; 1: something that it needs is missing; 2: an unknown argument.

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import {
  config,
  env,
  existing,
  findPython,
  freeBytes,
  nativeAddon,
  nativeLacks,
  newerOrSame,
  platformProblem,
  venvPython,
  within,
} from './machine.mjs';

const setUp = 'node scripts/setup.mjs';
/** Debian's packages: the names elsewhere are alike. */
const install = (...packages) => `sudo apt-get install ${packages.join(' ')}`;
const inGb = (bytes) => `${(bytes / 1e9).toFixed(1)} GB`;
const outputOf = (command, args) => {
  const { status, stdout } = spawnSync(command, args, { env, encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
};

/** Whether one of NVIDIA's is on the bus: 0x10de is its number there. */
const hasNvidiaDevice = () => {
  const bus = '/sys/bus/pci/devices';
  const devices = fs.existsSync(bus) ? fs.readdirSync(bus) : [];
  return devices.some((device) => fs.readFileSync(path.join(bus, device, 'vendor'), 'utf8').trim() === '0x10de');
};

const ok = (found) => ({ state: 'OK', found });
/** Everything works without it, or it may be wrong later. */
const warning = (found, mend) => ({ state: 'WARNING', found, mend });
const missing = (found, mend) => ({ state: 'MISSING', found, mend });

// As in src/config.ts, which needs the packages.
const setting = (name, fallback) => process.env[`WHETSTONE_${name}`] || fallback;
const host = setting('HOST', '127.0.0.1');
const dataDir = path.resolve(setting('DATA_DIR', within('data')));
const reserveBytes = Number(setting('DISK_RESERVE_BYTES', 1024 ** 3));
/** What listens on a port may be no HTTP server, and say nothing. */
const answerMsMax = 2000;
/** The server keeps 2,000 connections, and files beside them. */
const openFilesMin = 4096;

const checks = {
  System() {
    const problem = platformProblem();
    return problem ? missing(problem, 'Use another machine, or a container on it.') : ok(`${process.platform} ${process.arch}`);
  },

  'Node.js'() {
    const { node } = process.versions;
    return newerOrSame(node, config.node) ? ok(node) : missing(`${node}, and ${config.node} or newer is needed`, install('nodejs', 'npm'));
  },

  npm() {
    const version = outputOf('npm', ['--version']);
    return version ? ok(version) : missing('none', install('npm'));
  },

  'Node packages'() {
    const version = outputOf(within('node_modules', '.bin', 'node'), ['--version']);
    return version ? ok(`installed, with Node.js ${version.slice(1)}`) : missing('not installed', setUp);
  },

  Python() {
    const { executable, version, problem } = findPython();
    return problem ? missing(problem, install('python3', 'python3-venv')) : ok(`${version}, ${executable}`);
  },

  'Python packages'() {
    const version = outputOf(venvPython, ['-c', 'from importlib.metadata import version; print(version("torch"))']);
    return version ? ok(`installed, with PyTorch ${version}`) : missing('not installed', setUp);
  },

  'Native runtime'() {
    if (fs.existsSync(nativeAddon)) return ok('built');
    const lack = nativeLacks();
    return lack ? warning(lack, `${install('cmake', 'make', 'g++')} && ${setUp}`) : warning('not built', setUp);
  },

  GPU() {
    const cards = outputOf('nvidia-smi', ['--query-gpu=name,memory.total,driver_version', '--format=csv,noheader']);
    if (cards === undefined) {
      if (!hasNvidiaDevice()) return ok('none: jobs run on the processor');
      return warning('there is one of NVIDIA, but nvidia-smi does not run. Jobs run on the processor', install('nvidia-driver'));
    }
    const found = cards.split('\n').join('; ');
    if (outputOf(venvPython, ['-c', 'import torch; torch.zeros(1, device="cuda")']) !== undefined) return ok(found);
    return warning(
      `${found}, but PyTorch cannot use it: Jobs run on the processor`,
      `${venvPython} -c 'import torch; torch.zeros(1, device="cuda")'`,
    );
  },

  'Data folder'() {
    const folder = existing(dataDir);
    try {
      fs.accessSync(folder, fs.constants.W_OK);
      return ok(dataDir);
    } catch {
      return missing(`${dataDir} cannot be written`, `sudo chown -R "$USER" '${folder}', or set WHETSTONE_DATA_DIR to another folder`);
    }
  },

  Disk() {
    const free = freeBytes(existing(dataDir));
    const found = `${inGb(free)} free for ${dataDir}`;
    const mend = 'Delete what is not needed, or set WHETSTONE_DATA_DIR to a folder on a larger disk.';
    if (free < reserveBytes) return missing(`${found}: uploads and trainings leave ${inGb(reserveBytes)} free`, mend);
    return free < 10 * reserveBytes ? warning(`${found}: little for datasets and models`, mend) : ok(found);
  },

  'Server port': () => portCheck('PORT', '8080'),
  'Inference port': () => portCheck('INFERENCE_PORT', '8000'),

  'Open files'() {
    // Node has raised its own limit as far as it may.
    const limit = process.report.getReport().userLimits?.open_files.soft ?? 'unlimited';
    if (limit === 'unlimited' || Number(limit) >= openFilesMin) return ok(`${limit}`);
    return warning(
      `${limit}, and ${openFilesMin} are needed with many clients`,
      `ulimit -Hn ${openFilesMin} (systemd: LimitNOFILE=${openFilesMin})`,
    );
  },

  Clock() {
    const now = Date.now();
    const mend = 'sudo timedatectl set-ntp true';
    const written = fs.statSync(within('package.json')).mtimeMs;
    if (now < written - 60_000) return missing(`${new Date(now).toISOString()} is before this folder was written`, mend);
    if (outputOf('timedatectl', ['show', '--property=NTPSynchronized', '--value']) === 'no')
      return warning(
        `${new Date(now).toISOString()}, not synchronized. Tokens of machines whose clocks differ by a minute are refused`,
        mend,
      );
    return ok(new Date(now).toISOString());
  },
};

/** A port that is free, or has a Whetstone on it already. */
async function portCheck(name, fallback) {
  const port = Number(setting(name, fallback));
  const error = await new Promise((resolve) => {
    const server = createServer()
      .once('error', resolve)
      .listen(port, host, () => server.close(() => resolve(null)));
  });
  if (error === null) return ok(`${host}:${port} is free`);
  const mend = `ss -ltnp 'sport = :${port}' shows what listens there: stop it, or set WHETSTONE_${name} to another port`;
  if (error.code !== 'EADDRINUSE') return missing(`${host}:${port} cannot be used (${error.code})`, mend);
  const signal = AbortSignal.timeout(answerMsMax);
  const document =
    port === 0
      ? null
      : await fetch(`http://${host}:${port}/openapi.json`, { signal })
          .then((answer) => answer.json())
          .catch(() => null);
  return document?.info?.title?.startsWith('Whetstone')
    ? ok(`${host}:${port}: Whetstone runs there`)
    : missing(`${host}:${port} is in use`, mend);
}

async function examine() {
  const rows = [];
  for (const [name, check] of Object.entries(checks)) rows.push({ name, mend: null, ...(await check()) });
  return { ok: rows.every(({ state }) => state !== 'MISSING'), checks: rows };
}

const marks = { OK: '✓', WARNING: '!', MISSING: '✗' };

function print({ ok: runs, checks: rows }) {
  const width = Math.max(...rows.map(({ name }) => name.length));
  for (const { name, state, found, mend } of rows) {
    console.log(`${marks[state]} ${name.padEnd(width)}  ${found}`);
    if (mend !== null) console.log(`  ${' '.repeat(width)}  → ${mend}`);
  }
  console.log(runs ? 'The server can run: npm start' : 'The server cannot run yet: see the lines that begin with ✗.');
}

/** As `whetstone help doctor` prints it; where its packages are missing, from the document that is made of it. */
function printHelp() {
  const { status } = spawnSync(within('node_modules', '.bin', 'node'), [within('src', 'main.ts'), 'help', 'doctor'], { stdio: 'inherit' });
  if (status === 0) return;
  console.log(/^### doctor\n\n```text\n([\s\S]*?)\n```$/m.exec(fs.readFileSync(within('docs', 'commands.md'), 'utf8'))?.[1]);
}

const given = process.argv.slice(2);
const unknown = given.find((argument) => !['--json', '--help', '-h'].includes(argument));
if (unknown !== undefined) {
  const what = unknown.startsWith('-') ? 'option' : 'argument';
  console.error(`error: unknown ${what} '${unknown}'\n\nUsage: whetstone doctor [options]\n\`whetstone doctor --help\` says more.`);
  process.exitCode = 2;
} else if (given.includes('--help') || given.includes('-h')) {
  printHelp();
} else {
  const result = await examine();
  if (given.includes('--json')) console.log(JSON.stringify(result, null, 2));
  else print(result);
  process.exitCode = result.ok ? 0 : 1;
}
