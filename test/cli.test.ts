/** `./whetstone`, as a person and a script use it: from any folder, in a real shell. */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command, CommanderError } from 'commander';
import { beforeAll, describe, expect, test } from 'vitest';
import { fetchJobs, jobStates, jobTable } from '../src/cli/jobs.ts';
import { parseVariable, pick, query, variablesOf } from '../src/cli/query.ts';
import { program } from '../src/commands.ts';
import { jobStates as storedStates } from '../src/jobs/tables.ts';
import { opaqueId } from '../src/naming.ts';
import { submit } from './support/jobs.ts';
import { kindsOf, scripted } from './support/kinds.ts';
import { type TestServer, withFolder } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';

const root = join(import.meta.dirname, '..');

interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

const run = (file: string, args: string[], env: Record<string, string> = {}, cwd = '/', input = ''): Promise<Ran> =>
  new Promise((resolve) => {
    const { PATH = '', HOME = '' } = process.env;
    const child = execFile(file, args, { cwd, env: { PATH, HOME, ...env } }, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr }),
    );
    // A program that reads nothing may have ended.
    child.stdin?.on('error', () => {}).end(input);
  });
const whetstone = (...args: string[]) => run(process.execPath, [join(root, 'src', 'main.ts'), ...args]);

/** What a shell offers for the last word. */
const completed = async (script: string, words: string[]): Promise<string[]> => {
  const asked = `${script}\nCOMP_WORDS=(whetstone ${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length}; _whetstone; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return (await run('bash', ['--norc', '-c', asked])).stdout.split('\n').filter(Boolean);
};

/** Every command and those below it, by its path behind `whetstone`. */
const commandsBelow = (command: Command, path: string[] = []): { path: string[]; command: Command }[] =>
  command.commands.flatMap((child) => {
    const below = [...path, child.name()];
    return [{ path: below, command: child }, ...commandsBelow(child, below)];
  });
const everyCommand = commandsBelow(program);

describe('completion in bash', () => {
  let script = '';
  beforeAll(async () => {
    ({ stdout: script } = await whetstone('completion', 'bash'));
  });

  test('offers what the help lists: commands, options, values', async () => {
    const names = program.commands.map((command) => command.name());
    expect(names).toContain('help');
    expect(await completed(script, [''])).toEqual([...names, '--version', '--help']);
    expect(await completed(script, ['ser'])).toEqual(['serve']);
    expect(await completed(script, ['jobs', '--'])).toEqual(['--url', '--state', '--first', '--json', '--help']);
    expect(await completed(script, ['jobs', '--state', 'CANCEL'])).toEqual(['CANCELLING', 'CANCELLED']);
    expect(await completed(script, ['admin', ''])).toEqual(['reset-password', '--help']);
    expect(await completed(script, ['admin', 'reset-password', '--j'])).toEqual(['--json']);
    expect(await completed(script, ['completion', 'z'])).toEqual(['zsh']);
    expect(await completed(script, ['help', 'que'])).toEqual(['query']);
    expect(await completed(script, ['tui', 'job'])).toEqual(['jobs', 'job']);
  });

  test.each(everyCommand)('$path: parser, completion and docs/commands.md have the same options', async ({ path, command }) => {
    // With --help, which is no option of the parser.
    const options = [...command.options.map(({ long }) => String(long)), '--help'];
    expect(await completed(script, [...path, '--'])).toEqual(options);
    const documented = readFileSync(join(root, 'docs/commands.md'), 'utf8');
    const [, help = ''] =
      documented
        .split('```text\n')
        .filter((block) => block.startsWith(`Usage: whetstone ${path.join(' ')} [`))[0]
        ?.split('Options:') ?? [];
    const [listed = ''] = help.split('```');
    expect([...listed.matchAll(/^ {2}(?:-h, )?(--[\w-]+)/gm)].map(([, option]) => option)).toEqual(options);
    expect(command.options.every(({ hidden }) => !hidden)).toBe(true);
  });

  test('offers files where nothing else fits, also for ./whetstone', () =>
    withFolder(async (folder) => {
      writeFileSync(join(folder, 'my-images.zip'), '');
      expect(await completed(script, ['upload', 'my-'])).toEqual([]);
      const { stdout } = await run('bash', ['--norc', '-c', `${script}\ncomplete -p whetstone; compgen -o default -- my-`], {}, folder);
      expect(stdout).toBe('complete -o default -F _whetstone whetstone\nmy-images.zip\n');
    }));
});

/** What the parser of the command line says of these arguments, and the exit code with which the process would end. */
async function parsed(args: string[]): Promise<Ran> {
  const ran = { code: 0, stdout: '', stderr: '' };
  const writeOut = (text: string) => {
    ran.stdout += text;
  };
  const writeErr = (text: string) => {
    ran.stderr += text;
  };
  for (const command of [program, ...everyCommand.map((one) => one.command)])
    command.exitOverride().configureOutput({ writeOut, writeErr });
  await program.parseAsync(args, { from: 'user' }).catch((error: CommanderError) => {
    ran.code = error.exitCode;
  });
  process.exitCode = undefined;
  return ran;
}

describe('a wrong command line ends with 2, nothing on standard output, and the usage on standard error', () => {
  const takes = (command: Command, kind: 'required' | 'variadic') => command.registeredArguments.some((argument) => argument[kind]);
  /** Arguments that are right as far as they go. */
  const right = ({ path, command }: (typeof everyCommand)[number]) => [
    ...path,
    ...command.registeredArguments.map(({ argChoices }) => argChoices?.[0] ?? 'x'),
  ];
  test.each([
    ...everyCommand.filter(({ command }) => takes(command, 'required') || command.commands.length > 0).map(({ path }) => path),
    ...everyCommand.map(({ path }) => [...path, '--no-such-option']),
    ...everyCommand.filter(({ command }) => !takes(command, 'variadic')).map((one) => [...right(one), 'extra']),
    ...everyCommand.flatMap((one) =>
      one.command.options.flatMap(({ required, long }) => (required ? [[...right(one), String(long)]] : [])),
    ),
    ['query', '{ a }', '--var', '7'],
    ['jobs', '--first', '0'],
    ['watch', 'x', '--url', 'lab'],
    ['tui', 'nosuch'],
    ['help', 'uplod'],
    ['help', 'admin', 'reset'],
    ['uplod', '--help'],
    ['admin', 'nothing', '--help'],
  ])('%j', async (...args) => {
    expect(await parsed(args)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(/^Usage: whetstone /m) });
  });

  test('also none at all, and those of the programs that `./whetstone` starts', async () => {
    const ran = await Promise.all(
      [[], ['admin'], ['tui', 'nosuch'], ['doctor', '--fix'], ['help', 'uplod']].map((args) => run(join(root, 'whetstone'), args)),
    );
    for (const { code, stdout, stderr } of ran) {
      expect([code, stdout]).toEqual([2, '']);
      expect(stderr).toMatch(/^Usage: whetstone /m);
    }
    expect(ran.at(-1)?.stderr).toContain("unknown command 'uplod'\n(Did you mean upload?)");
  });

  test('help that is asked for is on standard output and ends with 0: one text, however it is asked for', async () => {
    for (const args of [['help'], ['--help'], ['-h']]) expect(await parsed(args)).toMatchObject({ code: 0, stderr: '' });
    const ways = ['tui', 'doctor'].flatMap((name) => [
      run(join(root, 'whetstone'), ['help', name]),
      run(join(root, 'whetstone'), [name, '--help']),
      run(process.execPath, [join(root, 'scripts', `${name}.mjs`), '--help']),
    ]);
    const [tui, tui2, tui3, doctor, doctor2, doctor3] = await Promise.all(ways);
    expect(tui).toMatchObject({ code: 0, stderr: '', stdout: expect.stringContaining('Usage: whetstone tui [options]') });
    expect(doctor).toMatchObject({ code: 0, stderr: '', stdout: expect.stringContaining('Usage: whetstone doctor [options]') });
    expect([tui2, tui3, doctor2, doctor3]).toEqual([tui, tui, doctor, doctor]);
  });
});

test('help installs nothing, and is there before anything is installed', () =>
  withFolder(async (folder) => {
    for (const file of ['whetstone', 'package.json', 'docs/commands.md']) cpSync(join(root, file), join(folder, file));
    const ws = join(folder, 'whetstone');
    const helps = await Promise.all([['tui', '--help'], ['help', 'tui'], ['--help'], ['help'], ['--version']].map((args) => run(ws, args)));
    expect(helps.map(({ code, stderr }) => [code, stderr])).toEqual(helps.map(() => [0, '']));
    const [command, same, all, alike, version] = helps.map(({ stdout }) => stdout.trim());
    expect(command).toMatch(/^Usage: whetstone tui .*\n[\s\S]*--help +print this$/m);
    expect(all).toMatch(/^serve: start the server\n/);
    expect([same, alike]).toEqual([command, all]);
    const [none, ...unknown] = await Promise.all([[], ['uplod', '--help'], ['help', 'uplod']].map((args) => run(ws, args)));
    expect(none).toEqual({ code: 2, stdout: '', stderr: `${all}\n` });
    for (const one of unknown) expect(one).toEqual({ ...none, stderr: `error: unknown command 'uplod'\n\n${all}\n` });
    expect(version).toBe(program.version());
    expect(readdirSync(folder).sort()).toEqual(['docs', 'package.json', 'whetstone']);

    mkdirSync(join(folder, 'node_modules', '.bin'), { recursive: true });
    writeFileSync(join(folder, 'node_modules', '.package-lock.json'), '{}');
    writeFileSync(join(folder, 'node_modules', '.bin', 'node'), '#!/bin/sh\necho "$@"\n', { mode: 0o755 });
    const startedBy = async (...args: string[]) => (await run(ws, args)).stdout.trim().split('\n');
    const main = '--max-semi-space-size=16 src/main.ts';
    expect(await startedBy('jobs', '--help')).toEqual([`${main} jobs --help`]);
    expect(await startedBy('completion', 'bash')).toEqual([`${main} completion bash`]);
    expect(await startedBy('tui', '--help')).toEqual([`${main} tui --help`]);
    expect(await startedBy('doctor', '--json')).toEqual(['scripts/doctor.mjs --json']);
    expect(await startedBy('jobs', '--json')).toEqual(['scripts/setup.mjs node', `${main} jobs --json`]);
    expect(await startedBy('tui')).toEqual(['scripts/setup.mjs', expect.stringMatching(/scripts\/tui\.mjs$/)]);
  }));

describe('with a server', () => {
  let server: TestServer;
  let token = '';
  withSharedServer(
    (running) => {
      server = running;
    },
    {},
    kindsOf(scripted),
  );
  beforeAll(async () => {
    token = await server.as('ENGINEER');
    submit(server.services.db, { steps: [{ exit: 64 }] });
  });
  const session = () => ({ url: server.url, accessToken: async () => token });

  test('./whetstone runs through a symbolic link, in another folder: paths are those of the user', () =>
    withFolder(async (folder) => {
      symlinkSync(join(root, 'whetstone'), join(folder, 'ws'));
      writeFileSync(join(folder, 'digits.zip'), 'x');
      const env = { WHETSTONE_TOKEN: token, WHETSTONE_URL: server.url };
      const uploaded = await run('./ws', ['upload', 'digits.zip'], env, folder);
      expect(uploaded).toMatchObject({ code: 0, stderr: expect.stringContaining('100 %') });
      expect(JSON.parse(uploaded.stdout)).toMatchObject({ sizeBytes: 1 });
      const document = 'query ($first: Int!) { jobs(first: $first) { nodes { id } } }';
      const asked = await run('./ws', ['query', '-', '--var', 'first=1', '--pick', 'jobs.nodes.0.id'], env, folder, document);
      expect(asked).toEqual({ code: 0, stdout: expect.stringMatching(/^\w+\n$/), stderr: '' });
      const watched = await run('./ws', ['watch', asked.stdout.trim(), '--json'], env, folder);
      expect(watched.code).toBe(1);
      const states = watched.stdout.trim().split('\n');
      expect(states.map((line) => JSON.parse(line).state)).toEqual(['QUEUED', 'RUNNING', 'FAILED']);
    }));

  test('jobs are listed in a table, those of one state where it is named', async () => {
    expect(jobStates).toEqual(storedStates);
    expect(await fetchJobs(session(), { first: 20, state: 'QUEUED' })).toEqual([]);
    const jobs = await fetchJobs(session(), { first: 20 });
    expect(jobTable(jobs)).toMatch(/^ID +KIND +STATE +CREATED.*\n\w+ +IMPORT_MODEL +[A-Z]+ +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/);
  });

  test('a document with what a form could mend fails, as one with errors does', async () => {
    const document = 'mutation ($name: String!) { createApiKey(input: { name: $name }) { userErrors { message } } }';
    await expect(query(session(), document, variablesOf(document, [['name', '']]))).rejects.toThrow('name');
    await expect(query(session(), '{ jobs }', {})).rejects.toThrow('selection of subfields');
  });

  test('so does one of which one of several could not be done, whatever the document calls it', async () => {
    const { id } = submit(server.services.db, { steps: ['hello', { hang: 'with heartbeats' }] });
    const [known, unknown] = [opaqueId('Job', id), opaqueId('Job', 'nothing')];
    const all = 'cancelJobs(input: { ids: $ids }) { userErrors { message } results';
    const documents = ['id userErrors { message }', 'id wrong: userErrors { message }', 'id userErrors { code }'].map(
      (fields) => `mutation ($ids: [ID!]!) { ${all} { ${fields} } } }`,
    );
    for (const document of documents) {
      await expect(query(session(), document, { ids: [unknown] })).rejects.toThrow(new RegExp(`^${unknown}: .+$`));
    }
    await expect(query(session(), documents[0] as string, { ids: [known] })).resolves.toMatchObject({
      cancelJobs: { results: [{ id: known }] },
    });
  });
});

test('variables are JSON where the document does not declare text', () => {
  const document = 'query ($id: ID!, $n : Int, $names: [String!], $of: String) { a }';
  const given = ['id=7', 'n=7', 'names=["a"]', 'of=true', 'odd=a=b'].map(parseVariable);
  expect(variablesOf(document, given)).toEqual({
    id: '7',
    n: 7,
    names: ['a'],
    of: 'true',
    odd: 'a=b',
  });
  expect(() => parseVariable('7')).toThrow('It has no name. Write --var name=value.');
});

test('a picked value is as a script wants it, and one that is not there is an error', () => {
  const data = { jobs: { nodes: [{ id: 'a', n: 1, failure: null }] } };
  expect(['jobs.nodes.0.id', 'jobs.nodes.0.n', 'jobs.nodes.0.failure', 'jobs.nodes'].map((path) => pick(data, path))).toEqual([
    'a',
    '1',
    'null',
    '[{"id":"a","n":1,"failure":null}]',
  ]);
  expect(() => pick(data, 'jobs.nodes.1.id')).toThrow('There is no 1 in jobs.nodes: ');
});

test('on a terminal the log of the server is short lines that cannot steer it, elsewhere JSON', async () => {
  const code = `import { createLog, requestScope } from './src/log.ts';
    const log = createLog({ logLevel: 'info' });
    requestScope.run({ requestId: 'r1' }, () => {
      log.info({ url: 'http://127.0.0.1' }, 'ready');
      log.warn({ name: 'a\\u001b[31m' }, 'odd');
      log.error({ err: new Error('the cause') }, 'failed');
    });`;
  const node = [process.execPath, '--input-type=module', '-e', code];
  const terminal = await run('python3', ['-c', 'import pty, sys; pty.spawn(sys.argv[1:])', ...node], {}, root);
  const [ready, odd, failed, cause] = terminal.stdout.split('\r\n');
  expect(ready).toMatch(/^\d\d:\d\d:\d\d ready {2}url=http:\/\/127\.0\.0\.1$/);
  expect(odd).toMatch(/^\S+ WARN odd {2}requestId=r1 {2}name=a \[31m$/);
  expect([failed, cause]).toEqual([expect.stringMatching(/^\S+ ERROR failed {2}requestId=r1$/), 'Error: the cause']);
  const { stdout } = await run(node[0] as string, node.slice(1), {}, root);
  expect(
    stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).msg),
  ).toEqual(['ready', 'odd', 'failed']);
});
