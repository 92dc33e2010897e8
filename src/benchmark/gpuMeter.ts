/** What the GPU does while a configuration is measured. A thread of the native runtime reads it through NVML, since runs keep JavaScript busy. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { findNvml, nativeAddon } from '../engine/libraries.ts';
import { maskPaths } from '../maskPaths.ts';
import { throttleReasonsOf } from '../system/throttling.ts';
import type { Telemetry } from './cells.ts';

type Use = Telemetry['gpu'];

/** Of the addon. */
interface Sampler {
  start(): void;
  stop(): void;
  use(): Omit<Use, 'reason' | 'throttleReasons'> & { throttleReasons: number | null };
}

const sampleMs = 100;

/** It counts between `start` and `stop`, any number of times. */
export interface GpuMeter {
  start(): void;
  stop(): void;
  use(): Use;
}

const without = (reason: string): GpuMeter => ({
  start() {},
  stop() {},
  use: () => ({ utilizationPercent: null, memoryBytesMax: null, reason }),
});

/** `devices`: CUDA_VISIBLE_DEVICES, of which engines use the first. */
export function openGpuMeter(device: 'cpu' | 'cuda', devices: string): GpuMeter {
  if (device === 'cpu') return without('It was measured on the processor.');
  if (!existsSync(nativeAddon)) return without('The native runtime, which reads NVML, is not built.');
  const library = findNvml();
  if (!library) return without('NVML, libnvidia-ml.so.1 of the NVIDIA driver, was not found. Set WHETSTONE_NVML_LIBRARY to its path.');
  const { GpuSampler } = createRequire(import.meta.url)(nativeAddon) as {
    GpuSampler: new (library: string, uuid: string, intervalMs: number) => Sampler;
  };
  const [first = ''] = devices.split(',');
  try {
    const sampler = new GpuSampler(library, first.startsWith('GPU-') ? first : '', sampleMs);
    return {
      start: () => sampler.start(),
      stop: () => sampler.stop(),
      use() {
        const { throttleReasons, ...use } = sampler.use();
        return { ...use, throttleReasons: throttleReasonsOf(throttleReasons), reason: null };
      },
    };
  } catch (error) {
    return without(maskPaths((error as Error).message));
  }
}
