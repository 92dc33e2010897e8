import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import type { Tensor } from '../../src/engine/engine.ts';
import { engines } from '../../src/engine/engines.ts';
import { nodeFlags } from '../../src/inference/channel.ts';
import { makeInferenceModels } from './inference.ts';

export const nativeMissing = await engines.ONNXRUNTIME_NATIVE.missing();
export const whyNoNative = nativeMissing === null ? '' : ` (skipped: ${nativeMissing})`;
export const openvinoMissing = await engines.OPENVINO.missing();
export const whyNoOpenvino = openvinoMissing === null ? '' : ` (skipped: ${openvinoMissing})`;

/** The engine of a host, that of its models, and what of it is missing here. */
export const hostEngines = [
  ['ONNXRUNTIME_CPU', 'AUTO', null],
  ['ONNXRUNTIME_NATIVE', 'AUTO', nativeMissing],
  // Its models run beside those of ONNX Runtime, in the same threads.
  ['ONNXRUNTIME_NATIVE', 'OPENVINO', openvinoMissing],
] as const;

/** Paths of models of `inference_models.py`, which are made before the first test of the file. */
export function withModels(names: string[]): (name: string) => string {
  const folder = mkdtempSync(join(tmpdir(), 'whetstone-'));
  beforeAll(() => makeInferenceModels(folder, names));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return (name) => join(folder, `${name}.onnx`);
}

export const floats = (shape: number[], values: number[]): Tensor => ({ datatype: 'FP32', shape, data: Float32Array.from(values) });

/** The inputs of the model `spin`. */
export const rounds = (count: bigint): Map<string, Tensor> =>
  new Map([['rounds', { datatype: 'INT64', shape: [1], data: BigInt64Array.of(count) }]]);

/**
 * What a program writes that runs in a process of its own, which shares no memory with other tests. It has the flags of a host: by default the young
 * generation of V8 grows and shrinks by 9 MB.
 */
export const runAlone = (program: string, ...args: string[]): string =>
  execFileSync(process.execPath, [...nodeFlags, '--expose-gc', join(import.meta.dirname, program), ...args], { encoding: 'utf8' });
