import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { nativeMissing, openvinoMissing } from './support/engines.ts';
import { makeInferenceModels } from './support/inference.ts';
import { withFolder } from './support/server.ts';

const program = join(import.meta.dirname, 'support', 'openModel.ts');
const repository = join(import.meta.dirname, '..');
const traced = spawnSync('strace', ['-V']).status === 0;
const why = traced ? '' : ' (skipped: there is no strace on the PATH; .ci/run installs it)';

describe.skipIf(!traced)(`nothing leaves the machine, and no file is made elsewhere, by the${why}`, () => {
  const native = [
    ...(nativeMissing === null ? ['cell of the native engine'] : []),
    ...(openvinoMissing === null ? ['cell of OpenVINO'] : []),
  ];
  test.each(['server', 'host', 'host of a server', 'cell of a benchmark', ...native, 'check of an import', 'demo', 'trainer'])(
    '%s',
    (kind) =>
      withFolder(async (folder) => {
        await makeInferenceModels(folder, ['identity']);
        const [work, home, trace] = ['work', 'home', 'trace'].map((name) => join(folder, name)) as [string, string, string];
        for (const path of [work, home]) mkdirSync(path);
        // As a user has it: the engine's own switch is not in the environment.
        const env = { PATH: process.env.PATH, HOME: home, TMPDIR: work, LC_ALL: 'C.UTF-8' };
        const strace = ['-f', '-qq', '--seccomp-bpf', '-e', 'trace=open,openat,creat,connect,sendto,sendmsg', '-s', '500', '-o', trace];
        await promisify(execFile)('strace', [...strace, process.execPath, program, kind, join(folder, 'identity.onnx'), work], { env });
        const calls = readFileSync(trace, 'utf8').split('\n');
        expect(calls.some((call) => call.includes('identity.onnx'))).toBe(true);
        expect(calls.filter(outside)).toEqual([]);
        const made = calls.flatMap((call) => /"(\/[^"]+)", [^)]*O_CREAT/.exec(call)?.[1] ?? []);
        // Node and Python keep compiled modules in the repository's ignored folders.
        const elsewhere = made.filter((path) => ![`${work}/`, `${repository}/`, '/dev/', '/proc/'].some((known) => path.startsWith(known)));
        expect(elsewhere).toEqual([]);
        expect(made.filter((path) => /mat-debug|onnxruntime[^/]*$/i.test(path))).toEqual([]);
      }),
  );
});

/** An address that is not this machine's, or a question to a name server. */
const outside = (call: string): boolean =>
  /sa_family=AF_INET6?,/.test(call) && (/port=htons\(53\)/.test(call) || !/inet_addr\("127\.|"::1"/.test(call));
