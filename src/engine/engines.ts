import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import { readGpus } from '../system/gpus.ts';

const packageFile = createRequire(import.meta.url).resolve('onnxruntime-node/package.json');
/** Of every engine so far. */
export const engineVersion = `onnxruntime ${(createRequire(import.meta.url)(packageFile) as { version: string }).version}`;

interface Engine {
  title: string;
  /** What ONNX Runtime calls it. */
  provider: 'cpu' | 'cuda';
  /** Why it cannot be used on this machine; null when it can. `path` is the PATH that programs are looked for in. */
  missing(path: string): Promise<string | null>;
}

const cudaLibrary = join(dirname(packageFile), 'bin', 'napi-v6', process.platform, process.arch, 'libonnxruntime_providers_cuda.so');

export const engines = {
  ONNXRUNTIME_CPU: { title: 'ONNX Runtime on the processor', provider: 'cpu', missing: async () => null },
  ONNXRUNTIME_CUDA: {
    title: 'ONNX Runtime on an NVIDIA GPU',
    provider: 'cuda',
    async missing(path) {
      const { reason } = await readGpus(path);
      if (reason !== null) return `There is no NVIDIA GPU to be seen: ${reason}`;
      if (existsSync(cudaLibrary)) return null;
      return 'ONNX Runtime was installed without its CUDA libraries: set ONNXRUNTIME_NODE_INSTALL=cuda12 and install the packages again.';
    },
  },
} satisfies Record<string, Engine>;
export type EngineName = keyof typeof engines;
export const engineNames = Object.keys(engines) as [EngineName, ...EngineName[]];

export interface EngineState {
  name: EngineName;
  title: string;
  version: string;
  /** Why it cannot be used; null when it can. */
  reason: string | null;
}

/** All engines, the simplest first. */
export async function readEngines(path: string): Promise<EngineState[]> {
  return Promise.all(
    engineNames.map(async (name) => ({
      name,
      title: engines[name].title,
      version: engineVersion,
      reason: await engines[name].missing(path),
    })),
  );
}
