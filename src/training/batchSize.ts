/** The batch size of a training whose user leaves it open. It is chosen when the job is queued and stored, so every attempt has the same. */
import { totalmem } from 'node:os';
import type { Config } from '../config.ts';
import { checkpointBytes, type PresetName, presets } from '../jobs/presets.ts';
import { type Gpu, readGpus } from '../system/gpus.ts';

/** Beyond these a step takes as much longer as it has more images: measured on two cores; a GPU computes more at a time. */
const mostOn = { cpu: { CLASSIFICATION: 32, DETECTION: 16 }, gpu: { CLASSIFICATION: 128, DETECTION: 64 } };
/** With larger batches an epoch would have too few steps to learn from. */
const stepsMin = 20;
const least = 4;
/** Of a slot's memory. The rest is for cached images, for tensors that a step needs only for a moment, and for other processes. */
const shareUsed = { cpu: 0.3, gpu: 0.6 };
/** A card that does not report its memory counts as a small one. */
const unknownBytes = 4 * 2 ** 30;

/** What a slot computes with, and its memory in bytes. */
export interface SlotMemory {
  on: 'cpu' | 'gpu';
  bytes: number;
}

/** Nobody knows yet which slot the job gets: that of the smallest GPU counts. Slots share a GPU where there are more slots than GPUs. */
export async function slotMemory({ childEnv, slots }: Pick<Config, 'childEnv' | 'slots'>, device: string): Promise<SlotMemory> {
  const { gpus } = device === 'cpu' ? { gpus: null } : await readGpus(childEnv.PATH ?? '');
  if (!gpus) return { on: 'cpu', bytes: totalmem() / slots };
  const bytesOf = ({ memoryTotalBytes }: Gpu) => memoryTotalBytes ?? unknownBytes;
  return { on: 'gpu', bytes: Math.min(...gpus.map(bytesOf)) / Math.ceil(slots / gpus.length) };
}

/** The largest power of two that fits into the memory of the processes, a slot's each, and is of use for so many training images. */
export function batchSizeFor(preset: PresetName, imageSize: number, images: number, { on, bytes }: SlotMemory, processes = 1): number {
  const { task, activationBytes, measuredAt } = presets[preset];
  const fitting = (bytes * shareUsed[on] - checkpointBytes(preset)) / (activationBytes * (imageSize / measuredAt) ** 2);
  const wanted = Math.min(processes * Math.min(fitting, mostOn[on][task]), images / stepsMin);
  return 2 ** Math.floor(Math.log2(Math.max(least, wanted)));
}
