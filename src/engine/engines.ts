/** The engines by name, from the simplest to use to the most demanding. This file loads none of them. */
import { existsSync } from 'node:fs';
import { readGpus } from '../system/gpus.ts';
import type { Engine } from './engine.ts';
import { type HostEngine, hostEngineOf, type ModelEngine } from './hostEngine.ts';
import { findOpenvino, type GpuProvider, nativeAddon, onnxruntimeVersion, providerLibrary } from './libraries.ts';
import { providerProblem } from './providers.ts';

const nativeMissing = async (): Promise<string | null> => {
  if (existsSync(nativeAddon)) return null;
  return 'The native runtime is not built: install CMake 3.16 or newer and a C++17 compiler, and run `node scripts/setup.mjs`.';
};

async function gpuMissing(path: string, provider: GpuProvider): Promise<string | null> {
  const { reason } = await readGpus(path);
  if (reason !== null) return `There is no NVIDIA GPU to be seen: ${reason}`;
  if (existsSync(providerLibrary(provider))) return null;
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return `onnxruntime-node has its CUDA libraries for Linux on x86-64 only; this is ${process.platform} on ${process.arch}.`;
  return 'ONNX Runtime was installed without its CUDA libraries: set ONNXRUNTIME_NODE_INSTALL=cuda12 and install the packages again.';
}

const nativeGpuMissing = async (path: string, provider: GpuProvider): Promise<string | null> =>
  (await gpuMissing(path, provider)) ?? (await nativeMissing()) ?? providerProblem(provider);

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
    missing: (path) => gpuMissing(path, 'cuda'),
    load: async () => (await import('./onnxruntime.ts')).opener('cuda'),
  },
  ONNXRUNTIME_NATIVE_CUDA: {
    title: 'ONNX Runtime on an NVIDIA GPU, in native threads',
    version: onnxruntimeVersion,
    device: 'cuda',
    missing: (path) => nativeGpuMissing(path, 'cuda'),
    load: async () => (await import('./native.ts')).nativeOpener('ONNXRUNTIME_NATIVE_CUDA'),
  },
  ONNXRUNTIME_NATIVE_TENSORRT: {
    title: 'TensorRT in 16-bit floats, through ONNX Runtime in native threads',
    version: onnxruntimeVersion,
    device: 'cuda',
    computesIn: 'FP16',
    missing: (path) => nativeGpuMissing(path, 'tensorrt'),
    load: async () => (await import('./native.ts')).nativeOpener('ONNXRUNTIME_NATIVE_TENSORRT'),
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
  const missing = await engines[engine].missing(process.env.PATH ?? '');
  if (missing !== null) return `The engine ${engine} is not on this machine. ${missing}`;
  if (hostEngineOf(host) !== 'ONNXRUNTIME_CPU') return null;
  return `The inference host runs every model on ONNXRUNTIME_CPU, not on ${engine}: set WHETSTONE_INFERENCE_ENGINE, or \`engine\` of a replica, to AUTO.`;
}
