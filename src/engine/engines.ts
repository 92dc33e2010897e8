/** The engines by name, from the simplest to use to the most demanding. This file loads none of them. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { readGpus } from '../system/gpus.ts';
import type { Engine } from './engine.ts';

const packageFile = createRequire(import.meta.url).resolve('onnxruntime-node/package.json');
const onnxruntimeVersion = `onnxruntime ${(createRequire(import.meta.url)(packageFile) as { version: string }).version}`;
const cudaLibrary = join(dirname(packageFile), 'bin', 'napi-v6', process.platform, process.arch, 'libonnxruntime_providers_cuda.so');

export const engines = {
  ONNXRUNTIME_CPU: {
    title: 'ONNX Runtime on the processor',
    version: onnxruntimeVersion,
    device: 'cpu',
    missing: async () => null,
    load: async () => (await import('./onnxruntime.ts')).opener('cpu'),
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
/** What serves models, and checks at an import whether they can be served. */
export const servingEngine: EngineName = 'ONNXRUNTIME_CPU';

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
