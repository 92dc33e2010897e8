import type { Log } from '../log.ts';
import { collectBlobs, type StorageServices } from './blobs.ts';
import { cleanStaging, expireUploads } from './uploads.ts';

const everyMs = 3600_000;

/**
 * Clears what a dead server left in the staging folder, sweeps now and every hour; returns the function that stops it. What the domains
 * (`before`, by name) do not need any more goes first. A sweep that fails does not keep the others from theirs: each frees disk.
 */
export async function startSweeper(
  services: StorageServices,
  log: Log,
  before: Record<string, () => Promise<unknown>>,
): Promise<() => Promise<void>> {
  await cleanStaging(services);
  const sweeps = {
    ...before,
    uploads: () => expireUploads(services, Date.now()),
    blobs: () => collectBlobs(services, Date.now()),
  };
  let stopped = false;
  const sweepAll = async () => {
    for (const [name, one] of Object.entries(sweeps)) {
      if (stopped) return;
      try {
        log.debug({ sweep: name, swept: await one() }, 'swept');
      } catch (error) {
        log.error({ err: error, sweep: name }, 'a sweep failed');
      }
    }
  };
  let round = sweepAll();
  const timer = setInterval(() => {
    round = round.then(sweepAll);
  }, everyMs);
  return async () => {
    stopped = true;
    clearInterval(timer);
    await round;
  };
}
