/** The engines by name, from the simplest to use to the most demanding. This file loads none of them. */
import { existsSync } from 'node:fs';
import { readGpus } from '../system/gpus.ts';
import type { Engine } from './engine.ts';
import { type HostEngine, hostEngineOf, type ModelEngine } from './hostEngine.ts';
import { cudaLibrary, findOpenvino, nativeAddon, onnxruntimeVersion } from './libraries.ts';

const nativeMissing = async (): Promise<string | null> => {
  if (existsSync(nativeAddon)) return null;
  return 'The native runtime is not built: install CMake 3.16 or newer and a C++17 compiler, and run `node scripts/setup.mjs`.';
};

export const engines = {
  ONNXRUNTIME_CPU: {
    title: 'ONNX Runtime on the processor',
    version: onnxruntimeVersion,
    device: 'cpu',
    missing: async () => null,
    load: async () => (await import('./onnxruntime.ts')).opener('cpu'),
  },
  ONNXRUNTIME_NATIVE: {
    title: 'ONNX Runtime in native threads',
    version: onnxruntimeVersion,
    device: 'cpu',
    missing: nativeMissing,
    load: async () => (await import('./native.ts')).nativeOpener('ONNXRUNTIME_NATIVE'),
  },
  OPENVINO: {
    title: 'OpenVINO on the processor',
    version: findOpenvino()?.version ?? 'openvino',
    device: 'cpu',
    async missing() {
      if (findOpenvino()) return nativeMissing();
      const where = 'the path of its libopenvino_c.so.<version>';
      if (process.env.WHETSTONE_OPENVINO_LIBRARY) return `WHETSTONE_OPENVINO_LIBRARY names no library of OpenVINO: set it to ${where}.`;
      return `OpenVINO is not installed: run \`WHETSTONE_OPENVINO=1 node scripts/setup.mjs\`, or set WHETSTONE_OPENVINO_LIBRARY to ${where}.`;
    },
    load: async () => (await import('./native.ts')).nativeOpener('OPENVINO'),
  },
  ONNXRUNTIME_CUDA: {
    title: 'ONNX Runtime on an NVIDIA GPU',
    version: onnxruntimeVersion,
    device: 'cuda',
    async missing(path) {
      const { reason } = await readGpus(path);
      if (reason !== null) return `There is no NVIDIA GPU to be seen: ${reason}`;
      if (existsSync(cudaLibrary)) return null;
      return 'ONNX Runtime was installed without its CUDA libraries: set ONNXRUNTIME_NODE_INSTALL=cuda12 and install the packages again.';
    },
    load: async () => (await import('./onnxruntime.ts')).opener('cuda'),
  },
} satisfies Record<string, Engine>;

export type EngineName = keyof typeof engines;
export const engineNames = Object.keys(engines) as [EngineName, ...EngineName[]];
/** What checks at an import whether models can be served, and serves them where there is no native engine. */
export const servingEngine = 'ONNXRUNTIME_CPU' satisfies EngineName;

export interface EngineState {
  name: EngineName;
  title: string;
  version: string;
  /** Why it cannot be used; null when it can. */
  reason: string | null;
}

/** All engines in the order of the table. */
export async function readEngines(path: string): Promise<EngineState[]> {
  return Promise.all(
    engineNames.map(async (name) => {
      const { title, version, missing } = engines[name];
      return { name, title, version, reason: await missing(path) };
    }),
  );
}

/** Why a host does not run models on an engine; null when it does. */
export async function whyNotServed(engine: ModelEngine, host: HostEngine): Promise<string | null> {
  if (engine === 'AUTO') return null;
  const missing = await engines[engine].missing();
  if (missing !== null) return `The engine ${engine} is not on this machine. ${missing}`;
  if (hostEngineOf(host) !== 'ONNXRUNTIME_CPU') return null;
  return `The inference host runs every model on ONNXRUNTIME_CPU, not on ${engine}: set WHETSTONE_INFERENCE_ENGINE, or \`engine\` of a replica, to AUTO.`;
}
