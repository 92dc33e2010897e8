/** A checkout whose set-up has left the native runtime out (WHETSTONE_SKIP_NATIVE=1, or no compiler): its sources and packages, and no addon. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { inferJson, withModelFiles } from './support/inference.ts';

const repository = join(import.meta.dirname, '..');
const checkout = mkdtempSync(join(tmpdir(), 'whetstone-checkout-'));
beforeAll(() => {
  for (const name of ['src', 'client', 'package.json']) cpSync(join(repository, name), join(checkout, name), { recursive: true });
  symlinkSync(join(repository, 'node_modules'), join(checkout, 'node_modules'));
});
afterAll(() => rmSync(checkout, { recursive: true }));

test('lists the native engines with the reason', () => {
  const program = "const { readEngines } = await import('./src/engine/engines.ts'); console.log(JSON.stringify(await readEngines('')))";
  const listed = JSON.parse(execFileSync(process.execPath, ['--input-type=module', '-e', program], { cwd: checkout, encoding: 'utf8' }));
  const reasons = Object.fromEntries(listed.map(({ name, reason }: { name: string; reason: string | null }) => [name, reason]));
  expect(reasons).toMatchObject({
    ONNXRUNTIME_CPU: null,
    ONNXRUNTIME_NATIVE: expect.stringContaining('The native runtime is not built'),
    OPENVINO: expect.stringMatching(/^OpenVINO is not installed|The native runtime is not built/),
    ONNXRUNTIME_NATIVE_CUDA: expect.stringMatching(/^There is no NVIDIA GPU|The native runtime is not built/),
    ONNXRUNTIME_NATIVE_TENSORRT: expect.stringMatching(/^There is no NVIDIA GPU|The native runtime is not built/),
  });
});

test('serves models on onnxruntime-node', async () => {
  const { folder, settings } = await withModelFiles({ models: [{ name: 'plus-1' }] });
  const file = join(folder, 'settings.json');
  writeFileSync(file, JSON.stringify(settings));
  const host = spawn(process.execPath, [join(checkout, 'src', 'inference', 'main.ts'), '--config', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(host, 'exit');
  try {
    let url: string | undefined;
    for await (const line of createInterface({ input: host.stdout })) {
      if (line.includes('inference host is ready')) url = JSON.parse(line).url;
      if (url) break;
    }
    const body = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }] };
    expect((await inferJson(String(url), 'plus-1', body)).json.outputs[0].data).toEqual([2, 3, 4, 5]);
  } finally {
    host.kill();
    expect((await ended)[0]).toBe(0);
    rmSync(folder, { recursive: true });
  }
});
