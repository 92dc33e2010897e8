import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test as base, describe, expect, vi } from 'vitest';

// The real script, on a miniature project whose packages are local: real npm, real uv, real Python, real CMake, no network.

const repository = path.dirname(import.meta.dirname);
const node = path.join(repository, 'node_modules', 'node', 'bin', 'node');
const uvVersion: string = JSON.parse(fs.readFileSync(path.join(repository, 'scripts', 'setup.json'), 'utf8')).uv;

/** The first that is there: on the path of whoever runs the tests, or in a folder that is tried as well. */
function find(program: string, ...alsoIn: string[]): string {
  const folders = [...alsoIn, ...(process.env.PATH ?? '').split(':').filter((folder) => !folder.endsWith('/node_modules/.bin'))];
  const found = folders.map((folder) => path.join(folder, program)).find((file) => fs.existsSync(file));
  if (!found) throw new Error(`${program} is missing: run \`node scripts/setup.mjs\` first.`);
  return found;
}

const venvBin = path.join(repository, 'trainer', '.venv', 'bin');
const tools = {
  node,
  npm: find('npm'),
  uv: find('uv', venvBin),
  python3: spawnSync(path.join(venvBin, 'python'), ['-c', 'import sys; print(sys._base_executable)'], { encoding: 'utf8' }).stdout.trim(),
  sh: '/bin/sh',
  cat: find('cat'),
  sleep: find('sleep'),
};

/** A wheel with these files, and its sha256. */
function writeWheel(folder: string, name: string, version: string, files: Record<string, string>): string {
  const info = `${name}-${version}.dist-info`;
  const all: Record<string, string> = {
    ...files,
    [`${info}/METADATA`]: `Metadata-Version: 2.1\nName: ${name}\nVersion: ${version}\n`,
    [`${info}/WHEEL`]: 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
  };
  all[`${info}/RECORD`] = [...Object.keys(all), `${info}/RECORD`].map((file) => `${file},,\n`).join('');
  const write = `
import json, sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    for name, text in json.load(sys.stdin).items():
        entry = zipfile.ZipInfo(name)
        entry.external_attr = 0o100755 << 16
        wheel.writestr(entry, text)`;
  const wheel = path.join(folder, `${name}-${version}-py3-none-any.whl`);
  execFileSync(tools.python3, ['-c', write, wheel], { input: JSON.stringify(all) });
  return createHash('sha256').update(fs.readFileSync(wheel)).digest('hex');
}

/** Packages that are installed only when a setting asks for them. */
const extras = [
  {
    name: 'openvino',
    title: 'OpenVINO',
    setting: 'WHETSTONE_OPENVINO',
    lock: 'inference-native/openvino.lock',
    folder: 'inference-native/openvino',
    file: 'openvino/libs/version',
  },
  { name: 'timm', title: 'timm', setting: 'WHETSTONE_TIMM', lock: 'trainer/timm.lock', folder: 'trainer/extras', file: 'timm/version' },
];

class Project {
  readonly folder = fs.mkdtempSync(path.join(os.tmpdir(), 'whetstone set-up '));
  readonly #children = new Set<number>();

  path(...names: string[]): string {
    return path.join(this.folder, ...names);
  }

  write(file: string, content: string | object, mode = 0o644): void {
    fs.mkdirSync(path.dirname(this.path(file)), { recursive: true });
    fs.rmSync(this.path(file), { force: true });
    fs.writeFileSync(this.path(file), typeof content === 'string' ? content : JSON.stringify(content, null, 2), { mode });
  }

  /** Puts a program on the set-up's path, which holds nothing else. */
  program(name: string, script: string): void {
    this.write(`bin/${name}`, `#!/bin/sh\n${script}\n`, 0o755);
  }

  fill(): this {
    for (const name of ['setup.mjs', 'machine.mjs']) fs.cpSync(path.join(repository, 'scripts', name), this.path('scripts', name));
    this.configure({});
    const dependencies = { node: 'file:vendor/node' };
    this.write('package.json', { name: 'mini', private: true, scripts: { test: 'true' }, dependencies });
    this.write('package-lock.json', {
      name: 'mini',
      lockfileVersion: 3,
      requires: true,
      packages: {
        '': { name: 'mini', dependencies },
        'node_modules/node': { resolved: 'vendor/node', link: true },
        'vendor/node': { name: 'node', version: '1.0.0', bin: { node: 'bin/node' } },
      },
    });
    this.write('vendor/node/package.json', { name: 'node', version: '1.0.0', bin: { node: 'bin/node' } });
    this.write('vendor/node/bin/node', `#!/bin/sh\nexec '${node}' "$@"\n`, 0o755);
    fs.mkdirSync(this.path('wheels'));
    const sha256 = writeWheel(this.path('wheels'), 'tiny', '1.0.0', { 'tiny.py': 'answer = 42\n' });
    writeWheel(this.path('wheels'), 'uv', uvVersion, { [`uv-${uvVersion}.data/scripts/uv`]: `#!/bin/sh\nexec '${tools.uv}' "$@"\n` });
    this.write('trainer/requirements.in', 'tiny\n');
    this.write('trainer/requirements.lock', `tiny==1.0.0 --hash=sha256:${sha256}\n`);
    for (const extra of extras) this.lock(extra, '1.0.0');
    // As Node-API wants it, without its headers.
    this.write('inference-native/src/addon.cpp', 'extern "C" void* napi_register_module_v1(void*, void* exports) { return exports; }\n');
    this.write(
      'inference-native/CMakeLists.txt',
      'cmake_minimum_required(VERSION 3.16)\nproject(mini CXX)\nadd_library(whetstone MODULE src/addon.cpp)\n' +
        'set_target_properties(whetstone PROPERTIES PREFIX "" SUFFIX ".node")\n',
    );
    for (const [name, file] of Object.entries(tools)) this.program(name, `exec '${file}' "$@"`);
    return this;
  }

  /** The version that the lock of an extra package names. */
  lock({ name, lock, file }: (typeof extras)[number], version: string): void {
    const sha256 = writeWheel(this.path('wheels'), name, version, { [file]: version });
    this.write(lock, `${name}==${version} --hash=sha256:${sha256}\n`);
  }

  configure(changes: object): void {
    const none = { project: 0, cache: 0 };
    const python = { oldest: '3.11', newest: '3.14' };
    this.write('scripts/setup.json', {
      node: '20',
      cmake: '3.16',
      python,
      uv: uvVersion,
      pythonImports: 'tiny',
      diskBytes: { node: none, python: none, openvino: 0, timm: 0 },
      ...changes,
    });
  }

  /** The set-up as a child, without a terminal, from another folder. */
  start(settings: Record<string, string> = {}, steps: string[] = []) {
    const child = spawn(node, [this.path('scripts', 'setup.mjs'), ...steps], {
      cwd: os.tmpdir(),
      stdio: ['ignore', 'ignore', 'pipe'],
      env: {
        PATH: this.path('bin'),
        HOME: this.folder,
        CI: 'true',
        npm_config_offline: 'true',
        UV_OFFLINE: '1',
        UV_NO_INDEX: '1',
        UV_FIND_LINKS: this.path('wheels'),
        PIP_NO_INDEX: '1',
        PIP_FIND_LINKS: pathToUri(this.path('wheels')),
        ...settings,
      },
    });
    this.#children.add(child.pid as number);
    const run = { child, output: '', ended: undefined as unknown as Promise<number | null> };
    child.stderr.setEncoding('utf8').on('data', (text) => {
      run.output += text;
    });
    run.ended = new Promise((resolve) => child.on('close', resolve));
    run.ended.then(() => this.#children.delete(child.pid as number));
    return run;
  }

  async run(settings?: Record<string, string>, steps?: string[]): Promise<{ status: number | null; output: string }> {
    const run = this.start(settings, steps);
    return { status: await run.ended, output: run.output };
  }

  /** Makes `npm ci` or `uv pip` wait in the middle, until `release`. */
  hold(program: 'npm' | 'uv'): void {
    this.write('held', '');
    const wait = `echo $$ > '${this.path('reached')}'\nwhile [ -e '${this.path('held')}' ]; do sleep 0.02; done`;
    this.program(program, `case "$1" in ci|pip) ${wait};; esac\nexec '${tools[program]}' "$@"`);
  }

  /** The process id of the program that waits. */
  async held(): Promise<number> {
    return vi.waitFor(() => Number(fs.readFileSync(this.path('reached'), 'utf8').match(/^(\d+)\n$/)?.[1] ?? expect.fail()), 30_000);
  }

  release(): void {
    fs.rmSync(this.path('held'));
  }

  /** What the trainer's Python says. */
  python(code: string): string {
    return spawnSync(this.path('trainer', '.venv', 'bin', 'python'), ['-c', code], { encoding: 'utf8' }).stdout;
  }

  empty(): void {
    for (const pid of this.#children) process.kill(pid, 'SIGKILL');
    fs.rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

const pathToUri = (folder: string) => `file://${encodeURI(folder)}`;

async function withProject(use: (project: Project) => Promise<void>): Promise<void> {
  const project = new Project();
  try {
    await use(project.fill());
  } finally {
    project.empty();
  }
}

const test = base
  // biome-ignore lint/correctness/noEmptyPattern: vitest wants the pattern
  .extend<{ project: Project }>({ project: ({}, use) => withProject(use) })
  // One for all tests that take it: each leaves it as it was, installed.
  .extend<{ installed: Project }>({
    installed: [
      // biome-ignore lint/correctness/noEmptyPattern: see above
      ({}, use) =>
        withProject(async (project) => {
          await project.run();
          await use(project);
        }),
      { scope: 'file' },
    ],
  });

const nothing = 'Set-up: nothing to do.\n';

describe('set-up', { timeout: 120_000 }, () => {
  test('installs both kinds of packages on a fresh clone, and says how long each took', async ({ project }) => {
    const { status, output } = await project.run();
    expect(output).toMatch(
      /^Node packages …\nNode packages: done in \d+ s\.\nPython packages …\nPython packages: done in \d+ s\.\nNative runtime: left out\. Missing: CMake 3\.16 or newer, make or Ninja, a C\+\+17 compiler \(.+\)\. Models run on onnxruntime-node\.\nSet-up finished in \d+ s\.\n$/,
    );
    expect(status).toBe(0);
    expect(project.python('import tiny; print(tiny.answer)')).toBe('42\n');
    expect(fs.existsSync(project.path('node_modules', '.bin', 'node'))).toBe(true);
  });

  test('does nothing the second time, nor after a change of the npm scripts', async ({ installed }) => {
    expect(await installed.run()).toEqual({ status: 0, output: nothing });
    const manifest = JSON.parse(fs.readFileSync(installed.path('package.json'), 'utf8'));
    installed.write('package.json', { ...manifest, scripts: { other: 'true' } });
    expect(await installed.run()).toEqual({ status: 0, output: nothing });
  });

  test('says nothing before an npm script when there is nothing to do', async ({ installed }) => {
    expect(await installed.run({ npm_lifecycle_event: 'pretui' })).toEqual({ status: 0, output: '' });
  });

  test('compiles no Node package: those with sources bring their binaries', async ({ project }) => {
    const addon = { name: 'addon', version: '1.0.0', gypfile: false };
    project.write('vendor/package/package.json', addon);
    project.write('vendor/package/binding.gyp', '{ "targets": [{ "target_name": "addon", "sources": ["missing.c"] }] }');
    execFileSync('tar', ['-czf', project.path('vendor', 'addon.tgz'), '-C', project.path('vendor'), 'package']);
    const lock = JSON.parse(fs.readFileSync(project.path('package-lock.json'), 'utf8'));
    const dependencies = { node: 'file:vendor/node', addon: 'file:vendor/addon.tgz' };
    lock.packages[''].dependencies = dependencies;
    lock.packages['node_modules/addon'] = { version: '1.0.0', resolved: 'file:vendor/addon.tgz' };
    project.write('package-lock.json', lock);
    project.write('package.json', { name: 'mini', private: true, scripts: { test: 'true' }, dependencies });
    const { output } = await project.run({}, ['node']);
    expect(output).toMatch(/^Node packages …\nNode packages: done in/);
    expect(fs.existsSync(project.path('node_modules', 'addon', 'binding.gyp'))).toBe(true);
  });

  test('takes the steps that are named, and no others', async ({ project }) => {
    const { output } = await project.run({}, ['node', 'native']);
    expect(output).toMatch(/^Node packages …\nNode packages: done in \d+ s\.\nNative runtime: left out/);
    expect(fs.existsSync(project.path('trainer', '.venv'))).toBe(false);
    const wrong = await project.run({}, ['pyton']);
    expect(wrong).toEqual({ status: 1, output: 'There is no step pyton, only node, python, native, openvino, timm.\n' });
  });

  test.for([
    ['package-lock.json', 'Node packages'],
    ['trainer/requirements.lock', 'Python packages'],
    ['trainer/requirements.in', 'Python packages'],
  ] as const)('a changed %s repeats only the step of the %s', async ([file, title], { installed }) => {
    fs.appendFileSync(installed.path(file), '\n');
    const { status, output } = await installed.run();
    expect(status).toBe(0);
    expect(output.match(/^\w+ packages(?=: done)/gm)).toEqual([title]);
    expect((await installed.run()).output).toBe(nothing);
  });

  test.for([
    ['node_modules', 'Node packages'],
    ['trainer/.venv', 'Python packages'],
  ] as const)('brings back a %s that was removed', async ([folder, title], { installed }) => {
    fs.rmSync(installed.path(folder), { recursive: true });
    expect((await installed.run()).output.match(/^\w+ packages(?=: done)/gm)).toEqual([title]);
    expect((await installed.run()).output).toBe(nothing);
  });

  test('installs again what an earlier run was told to omit', async ({ installed }) => {
    expect((await installed.run({ npm_config_omit: 'dev' })).output).toContain('Node packages: done');
    expect((await installed.run({ npm_config_omit: 'dev' })).output).toBe(nothing);
    expect((await installed.run()).output).toContain('Node packages: done');
  });

  test('runs as the pre-script of npm in another project without installing there', async ({ project }) => {
    const { status } = await project.run({
      npm_config_local_prefix: os.tmpdir(),
      npm_config_prefix: os.tmpdir(),
      npm_lifecycle_event: 'pretest',
      PATH: `${project.path('node_modules', '.bin')}:${project.path('bin')}`,
    });
    expect(status).toBe(0);
    expect(fs.existsSync(project.path('node_modules', '.bin', 'node'))).toBe(true);
  });

  test('installs the pinned uv into the virtual environment when the host has none', async ({ project }) => {
    fs.rmSync(project.path('bin', 'uv'));
    const { status, output } = await project.run();
    expect(output).toContain('Python packages: done');
    expect(status).toBe(0);
    expect(project.python('import importlib.metadata as m; print(m.version("uv"), m.version("tiny"))')).toBe(`${uvVersion} 1.0.0\n`);
    expect((await project.run()).output).toBe(nothing);
  });
});

const compiler = ['cmake', 'make', 'c++'].every((program) => spawnSync(program, ['--version']).status === 0);
const noCompiler = compiler ? '' : ' (skipped: there is no CMake, make or C++ compiler on the PATH; .ci/run installs them)';

describe.skipIf(!compiler)(`the native runtime${noCompiler}`, { timeout: 120_000 }, () => {
  const withCompiler = (project: Project) => ({ PATH: `${project.path('bin')}:${process.env.PATH}` });

  test('is built as soon as there is a compiler, and again when a source or the compiler changes', async ({ installed }) => {
    const built = installed.path('inference-native', 'build', 'whetstone.node');
    expect(fs.existsSync(built)).toBe(false);
    const settings = withCompiler(installed);
    const { status, output } = await installed.run(settings);
    expect(output).toMatch(/^Native runtime …\nNative runtime: done in \d+ s\.\nSet-up finished in \d+ s\.\n$/);
    expect(status).toBe(0);
    expect(fs.existsSync(built)).toBe(true);
    expect((await installed.run(settings)).output).toBe(nothing);
    fs.appendFileSync(installed.path('inference-native', 'src', 'addon.cpp'), '// changed\n');
    expect((await installed.run(settings)).output).toContain('Native runtime: done');
    expect((await installed.run({ ...settings, CXX: 'g++' })).output).toContain('Native runtime: done');
    // As it was for the tests that share the project.
    const without = await installed.run();
    expect(without.output).toMatch(/^Native runtime: left out\. Missing: .+\nSet-up finished/);
    expect(fs.existsSync(built)).toBe(false);
  });

  test('that the compiler refuses is an error with what the compiler says, and can be left out', async ({ project }) => {
    fs.appendFileSync(project.path('inference-native', 'src', 'addon.cpp'), 'int broken = "text";\n');
    const settings = withCompiler(project);
    const { status, output } = await project.run(settings);
    expect(status).toBe(1);
    expect(output).toMatch(
      /`cmake --build .+` ended with 2\. Its last lines:\n( {4}.+\n)+The native runtime does not build with this compiler\./,
    );
    expect(output).toContain('addon.cpp:2:');
    expect(output).toContain('int broken = "text";');
    const left = await project.run({ ...settings, WHETSTONE_SKIP_NATIVE: '1' });
    expect(left.status).toBe(0);
    expect(left.output).toContain('Native runtime: left out. WHETSTONE_SKIP_NATIVE is 1: models run on onnxruntime-node.\n');
    expect((await project.run({ ...settings, WHETSTONE_SKIP_NATIVE: '1' })).output).toBe(nothing);
  });

  test('that does not load is an error', async ({ project }) => {
    project.write('inference-native/src/addon.cpp', 'int nothing() { return 0; }\n');
    const { status, output } = await project.run(withCompiler(project));
    expect(status).toBe(1);
    expect(output).toContain('did not self-register');
  });
});

test.for(extras)(
  '$title is installed when it is asked for, stays, and follows its lock',
  { timeout: 120_000 },
  async (extra, { project }) => {
    const { title, folder, file, setting } = extra;
    const installed = () => fs.readFileSync(project.path(folder, file), 'utf8');
    expect((await project.run()).output).not.toContain(title);
    const { status, output } = await project.run({ [setting]: '1' });
    expect(output).toMatch(new RegExp(`^${title} …\\n${title}: done in \\d+ s\\.\\nSet-up finished`));
    expect([status, installed()]).toEqual([0, '1.0.0']);
    expect((await project.run()).output).toBe(nothing);
    project.lock(extra, '2.0.0');
    expect((await project.run()).output).toContain(`${title}: done`);
    expect(installed()).toBe('2.0.0');
    fs.rmSync(project.path(folder), { recursive: true });
    expect((await project.run()).output).toBe(nothing);
  },
);

describe('interrupted set-up', { timeout: 120_000 }, () => {
  test.for([
    ['npm', 'node_modules', ['Node packages', 'Python packages']],
    ['uv', 'trainer/.venv', ['Python packages']],
  ] as const)('killed while %s works, leaves no process and no half-made %s', async ([program, folder, repeated], { project }) => {
    project.hold(program);
    const { child, ended } = project.start();
    const pid = await project.held();
    project.write(`${folder}/half-made`, '');
    child.kill('SIGKILL');
    await ended;
    await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow('ESRCH'), 10_000);

    project.release();
    const { status, output } = await project.run();
    expect(output.match(/^\w+ packages(?=: done)/gm)).toEqual(repeated);
    expect(status).toBe(0);
    expect(fs.existsSync(project.path(folder, 'half-made'))).toBe(false);
    expect(project.python('import tiny; print(tiny.answer)')).toBe('42\n');
    expect((await project.run()).output).toBe(nothing);
  });

  test('of two at once the second waits, and then finds everything done', async ({ project }) => {
    project.hold('uv');
    const first = project.start();
    await project.held();
    const second = project.start();
    await vi.waitFor(() => expect(second.output).toBe(`Another set-up (process ${first.child.pid}) is at work: waiting for it.\n`), 30_000);
    project.release();
    expect(await Promise.all([first.ended, second.ended])).toEqual([0, 0]);
    expect(first.output).toContain('Python packages: done');
    expect(second.output).not.toContain('packages');
  });

  test('the engine that the Python packages bring is tried without its telemetry', async ({ project }) => {
    project.configure({ pythonImports: "os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'" });
    expect(await project.run({}, ['python'])).toMatchObject({ status: 0 });
  });

  test('packages that install but do not import are not taken for good', async ({ project }) => {
    project.configure({ pythonImports: 'tiny, absent' });
    const { status, output } = await project.run();
    expect(output).toContain("ModuleNotFoundError: No module named 'absent'");
    expect(status).toBe(1);
    project.configure({});
    expect((await project.run()).output).toContain('Python packages: done');
  });

  test('a lock that was left behind is taken over, though its process id belongs to another by now', async ({ project }) => {
    project.write('.setup/lock', `${process.pid} left behind`);
    fs.utimesSync(project.path('.setup', 'lock'), 0, 0);
    expect((await project.run()).status).toBe(0);
    expect(fs.existsSync(project.path('.setup', 'lock'))).toBe(false);
  });

  test('a step that fails shows its last lines without addresses, and the next run repeats it', async ({ project }) => {
    const lock = fs.readFileSync(project.path('trainer', 'requirements.lock'), 'utf8');
    project.write('trainer/requirements.lock', lock.replace('1.0.0', '2.0.0'));
    const refused = await project.run();
    expect(refused.status).toBe(1);
    expect(refused.output).toMatch(/`uv pip install` ended with 1\. Its last lines:\n( {4}.+\n)+Is the network reachable/);
    expect(refused.output).toContain('tiny');

    const complaint = 'failed to fetch https://user:secret@packages.example.org/simple/tiny, dns error: files.example.org:443';
    project.program('uv', `case "$1" in pip) echo "${complaint}" >&2; exit 7;; esac`);
    const hidden = await project.run();
    expect(hidden.output).toContain(
      '`uv pip install` ended with 7. Its last lines:\n    failed to fetch <hidden address> dns error: <hidden host>\n',
    );
    expect(hidden.output).not.toMatch(/example|secret|UV_TORCH_BACKEND/);

    project.program('uv', `case "$1" in pip) exit 2;; esac`);
    const unreachable = await project.run({ UV_TORCH_BACKEND: 'cpu' });
    expect(unreachable.output).toMatch(
      /UV_TORCH_BACKEND=cpu takes PyTorch from its own index.*run the same command without UV_TORCH_BACKEND/,
    );

    project.program('uv', `exec '${tools.uv}' "$@"`);
    project.write('trainer/requirements.lock', lock);
    expect((await project.run()).output).toContain('Python packages: done');
  });
});

describe('a missing prerequisite is one line', { timeout: 120_000 }, () => {
  const cases: [what: string, arrange: (project: Project) => Record<string, string> | undefined, line: RegExp][] = [
    [
      'Node.js',
      (project) => void project.configure({ node: '99' }),
      /^Node\.js 99 or newer is needed, and this is [\d.]+: install a current one\.\n$/,
    ],
    ['npm', (project) => void fs.rmSync(project.path('bin', 'npm')), /^npm is missing: install it \(it comes with Node\.js\)\.\n$/],
    [
      'Python',
      (project) => void fs.rmSync(project.path('bin', 'python3')),
      /^Python 3\.11 to 3\.14 is needed, and there is none: install one, or set WHETSTONE_PYTHON to its path\.\n$/,
    ],
    [
      'a Python that is new enough',
      (project) => void project.program('python3', `echo '["/usr/bin/python3", "3.9.2", true]'`),
      /^Python 3\.11 to 3\.14 is needed, and python3 is 3\.9\.2: install one, or set WHETSTONE_PYTHON to its path\.\n$/,
    ],
    [
      'a Python that the locked packages know',
      (project) => void project.program('python3', `echo '["/usr/bin/python3", "3.15.0", true]'`),
      /^Python 3\.11 to 3\.14 is needed, and python3 is 3\.15\.0: /,
    ],
    [
      'the Python that WHETSTONE_PYTHON names',
      () => ({ WHETSTONE_PYTHON: '/nowhere/python' }),
      /^Python 3\.11 to 3\.14 is needed, and \/nowhere\/python does not run: correct WHETSTONE_PYTHON\.\n$/,
    ],
    [
      'ensurepip, where there is no uv',
      (project) => {
        fs.rmSync(project.path('bin', 'uv'));
        project.program('python3', `echo '["/usr/bin/python3", "3.11.2", false]'`);
        return undefined;
      },
      /^python3 \(3\.11\.2\) has no ensurepip: install it \(Debian, Ubuntu: the package python3-venv\)\.\n$/,
    ],
    [
      'disk space, with how much',
      (project) => void project.configure({ diskBytes: { node: { project: 3e14, cache: 0 }, python: { project: 6e14, cache: 0 } } }),
      /^Too little disk: 900000\.0 GB are needed and [\d.]+ GB are free in .*whetstone set-up .*\. Make room .*\n$/,
    ],
  ];
  test.for(cases)('%s', async ([, arrange, line], { project }) => {
    const settings = arrange(project) ?? {};
    const { status, output } = await project.run(settings);
    expect(output).toMatch(line);
    expect(output.trimEnd()).not.toContain('\n');
    expect(status).toBe(1);
    expect(fs.existsSync(project.path('node_modules'))).toBe(false);
  });

  test('several are said together', async ({ project }) => {
    fs.rmSync(project.path('bin', 'npm'));
    fs.rmSync(project.path('bin', 'python3'));
    expect((await project.run()).output.match(/^.+$/gm)).toHaveLength(2);
  });

  test('the check of the disk can be left out, and is left out when an interrupted set-up goes on', async ({ project }) => {
    const tooMuch = { diskBytes: { node: { project: 9e14, cache: 0 }, python: { project: 0, cache: 0 } } };
    project.configure(tooMuch);
    expect((await project.run({ WHETSTONE_SKIP_DISK_CHECK: '1' })).status).toBe(0);
    project.write('.setup/node', 'started before');
    expect((await project.run()).output).toContain('Node packages: done');
  });
});

describe('lock files', () => {
  const lock = fs.readFileSync(path.join(repository, 'package-lock.json'), 'utf8');

  test('package-lock.json names the packages of every platform, without which `npm ci` refuses it', () => {
    type Locked = { optionalDependencies?: Record<string, string> };
    const packages: Record<string, Locked> = JSON.parse(lock).packages;
    const names = new Set(Object.keys(packages).map((key) => key.replace(/.*node_modules\//, '')));
    const missing = Object.values(packages).flatMap((entry) =>
      Object.keys(entry.optionalDependencies ?? {}).filter((name) => !names.has(name)),
    );
    expect(missing).toEqual([]);
  });

  test('hold no address', () => {
    const requirements = fs.readFileSync(path.join(repository, 'trainer', 'requirements.lock'), 'utf8');
    expect(lock).not.toMatch(/"resolved":/);
    expect(requirements).not.toMatch(/:\/\/|index-url/);
  });
});
