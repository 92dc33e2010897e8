/** What runs the models of an inference host: a setting of the host, and of the server that starts one. A model may ask for another engine. */
import { existsSync } from 'node:fs';
import { z } from 'zod';
import { nativeAddon } from './libraries.ts';

export const HostEngine = z
  .enum(['AUTO', 'ONNXRUNTIME_NATIVE', 'ONNXRUNTIME_CPU'])
  .default('AUTO')
  .describe('Engine of the inference host; AUTO is ONNXRUNTIME_NATIVE where the set-up has built it, otherwise ONNXRUNTIME_CPU.');
export type HostEngine = z.infer<typeof HostEngine>;

export const hostEngineOf = (setting: HostEngine): Exclude<HostEngine, 'AUTO'> => {
  if (setting !== 'AUTO') return setting;
  return existsSync(nativeAddon) ? 'ONNXRUNTIME_NATIVE' : 'ONNXRUNTIME_CPU';
};

export const ModelEngine = z
  .enum(['AUTO', 'ONNXRUNTIME_NATIVE', 'OPENVINO', 'ONNXRUNTIME_NATIVE_CUDA', 'ONNXRUNTIME_NATIVE_TENSORRT'])
  .default('AUTO');
export type ModelEngine = z.infer<typeof ModelEngine>;
