import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { killLeftChildren } from '../src/jobs/executor/leftChildren.ts';
import { AttemptCrash, JobFailure } from '../src/jobs/kinds.ts';
import { createLog } from '../src/log.ts';
import { type LoadLimits, limitsFor, loadOnce } from '../src/models/load.ts';
import { recordedChild, recordedChildren } from './support/jobs.ts';
import { makeModelFiles } from './support/onnx.ts';

const folder = mkdtempSync(join(tmpdir(), 'whetstone-load-'));
const external = ['external-up.onnx', 'external-absolute.onnx', 'external-link.onnx', 'external-folder.onnx'];
const broken = ['truncated.onnx', 'text.onnx', 'unknown-domain.onnx', 'unknown-operator.onnx'];
const harmless = ['classifier.onnx', 'squeezenet.onnx', 'loop.onnx', 'huge.onnx'];

beforeAll(async () => {
  await makeModelFiles(folder, [...external, ...broken, ...harmless, 'folding.onnx']);
  // Everything that the files with external data could want to read is there, beside them and one folder up.
  writeFileSync(join(folder, 'secret.bin'), Buffer.alloc(48));
  symlinkSync('/etc/passwd', join(folder, 'link.bin'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const load = (name: string, limits: Partial<LoadLimits> = {}) => {
  const file = join(folder, name);
  return loadOnce(folder, file, join(folder, 'work', 'load'), { ...limitsFor(statSync(file).size), ...limits });
};
async function failure(loading: Promise<unknown>): Promise<{ code: string; message: string }> {
  const error: unknown = await loading.then(
    () => null,
    (e: unknown) => e,
  );
  if (!(error instanceof JobFailure)) throw new Error(`No failure: ${error}`);
  return { code: error.code, message: error.message };
}
const good = () => expect(load('classifier.onnx')).resolves.toMatchObject({ inputs: ['image'], outputs: ['y'] });

test('a good file is loaded by the serving engine, and nothing is left of it', async () => {
  expect(await load('squeezenet.onnx')).toMatchObject({ engine: 'onnxruntime 1.30.0', inputs: ['data_0'], outputs: ['softmaxout_1'] });
  expect(readdirSync(join(folder, 'work'))).toEqual([]);
});

test('what a killed attempt left in the folder is not there when the file is loaded', async () => {
  const work = join(folder, 'work', 'load');
  mkdirSync(work, { recursive: true });
  writeFileSync(join(work, 'secret.bin'), Buffer.alloc(48));
  expect((await failure(load('external-folder.onnx'))).code).toBe('MODEL_INVALID');
  expect(existsSync(work)).toBe(false);
});

describe('refused with a reason that names no folder', () => {
  test.each([...external, ...broken])('%s', async (name) => {
    const { code, message } = await failure(load(name));
    expect(code).toBe('MODEL_INVALID');
    expect(message).toContain('The serving engine refuses the file: ');
    expect(message).not.toMatch(/\/(tmp|etc|root|home|work|onnxruntime_src)\b|whetstone-load/);
  });
});

describe('not run by loading', () => {
  test.each(['loop.onnx', 'huge.onnx'])('%s', async (name) => {
    expect(await load(name)).toMatchObject({ inputs: ['x'], outputs: ['y'] });
  });
});

test('a file whose constants take for ever to compute is stopped at the limit, and the next one loads', async () => {
  expect(await failure(load('folding.onnx', { seconds: 2 }))).toEqual({
    code: 'LIMIT_EXCEEDED',
    message: 'The serving engine did not load the file within 2 s.',
  });
  await good();
});

test('a load that hangs and outlived its server is killed by the next one', async () => {
  const loading = load('folding.onnx');
  const end = expect(loading).rejects.toBeInstanceOf(AttemptCrash);
  process.kill(await recordedChild(folder), 'SIGSTOP');
  await killLeftChildren(folder, createLog({ logLevel: 'silent' }));
  await end;
  expect(recordedChildren(folder)).toEqual([]);
  await good();
});

test('a crash of the engine is a failure of the file, and the next one loads', async () => {
  // Too little for Node to start with: it ends with a signal, as it would on a defect of the engine.
  const { code, message } = await failure(load('classifier.onnx', { memoryBytes: 300_000_000 }));
  expect(code).toBe('MODEL_INVALID');
  expect(message).toMatch(/^The serving engine crashed on the file \(SIG[A-Z]+\)\.$/);
  await good();
});
