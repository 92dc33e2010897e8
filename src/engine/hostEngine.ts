/** What runs the models of an inference host: a setting of the host, and of the server that starts one. A model may ask for another engine. */
import { existsSync } from 'node:fs';
import { z } from 'zod';
import { engines } from './engines.ts';
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

export const ModelEngine = z.enum(['AUTO', 'ONNXRUNTIME_NATIVE', 'OPENVINO']).default('AUTO');
export type ModelEngine = z.infer<typeof ModelEngine>;

/** Why a host does not run models on an engine; null when it does. */
export async function whyNotServed(engine: ModelEngine, host: HostEngine): Promise<string | null> {
  if (engine === 'AUTO') return null;
  const missing = await engines[engine].missing();
  if (missing !== null) return `The engine ${engine} is not on this machine. ${missing}`;
  if (hostEngineOf(host) !== 'ONNXRUNTIME_CPU') return null;
  return `The inference host runs every model on ONNXRUNTIME_CPU, not on ${engine}: set WHETSTONE_INFERENCE_ENGINE, or \`engine\` of a replica, to AUTO.`;
}
