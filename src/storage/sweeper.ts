import type { Log } from '../log.ts';
import { collectBlobs, type StorageServices } from './blobs.ts';
import { cleanStaging, expireUploads } from './uploads.ts';

const everyMs = 3600_000;

/** One round: uploads that nobody used, then blobs that nobody names any more. */
export async function sweep(services: StorageServices, now: number): Promise<{ uploads: number; blobs: number }> {
  return { uploads: await expireUploads(services, now), blobs: await collectBlobs(services, now) };
}

/**
 * Clears what a dead server left in the staging folder, sweeps now and every hour, first what a domain does not need any more (`before`);
 * returns the function that stops it.
 */
export async function startSweeper(services: StorageServices, log: Log, before: () => Promise<void>): Promise<() => Promise<void>> {
  await cleanStaging(services);
  let round = Promise.resolve();
  const start = () => {
    round = round
      .then(before)
      .then(() => sweep(services, Date.now()))
      .then(
        (swept) => log.debug(swept, 'swept the storage'),
        (error: unknown) => log.error({ err: error }, 'the storage could not be swept'),
      );
  };
  start();
  const timer = setInterval(start, everyMs);
  return async () => {
    clearInterval(timer);
    await round;
  };
}
