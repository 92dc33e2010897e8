/**
 * `node nvml.ts LIBRARY` prints what NVIDIA's driver says of the GPUs, or why there are none. A process of its own, since a call into a driver that
 * hangs cannot be ended in any other way.
 */
import { createRequire } from 'node:module';
import { nativeAddon } from '../engine/libraries.ts';
import type { NvmlAnswer } from './gpus.ts';

function read(library: string): NvmlAnswer {
  try {
    return { gpus: createRequire(import.meta.url)(nativeAddon).readGpus(library) };
  } catch (error) {
    return { reason: (error as Error).message };
  }
}

console.log(JSON.stringify(read(process.argv[2] as string)));
