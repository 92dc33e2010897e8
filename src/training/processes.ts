/** What the processes of one training need. Each has a slot, and a GPU where the machine has any. */
import type { Config } from '../config.ts';
import { refuse } from '../errors.ts';
import { readGpus } from '../system/gpus.ts';

/** Refuses more processes than there are slots or GPUs for: such a job would wait forever, or fail when its turn comes. */
export async function requireSlots({ config }: { config: Config }, processes: number, device: string): Promise<void> {
  if (processes === 1) return;
  if (processes > config.slots) {
    refuse(
      'INVALID',
      'processes',
      `${processes} processes take ${processes} slots, and the server has ${config.slots}. Use fewer, or start the server with WHETSTONE_SLOTS=${processes}.`,
    );
  }
  const { gpus } = device === 'cpu' ? { gpus: null } : await readGpus(config.childEnv.PATH ?? '');
  if (gpus && gpus.length < processes) {
    refuse(
      'INVALID',
      'processes',
      `${processes} processes need ${processes} GPUs, and the machine has ${gpus.length}. Use fewer, or the device CPU.`,
    );
  }
}

/** `images`: of a batch. */
export function requireBatchFor(processes: number, images: number): void {
  if (images >= processes) return;
  refuse(
    'INVALID',
    'processes',
    `A batch of ${images} images cannot be divided among ${processes} processes. Use fewer, or a larger batchSize.`,
  );
}
