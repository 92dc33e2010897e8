import type { Log } from '../log.ts';
import { collectBlobs, type StorageServices, takeCollectable } from './blobs.ts';
import { cleanStaging, expireUploads } from './uploads.ts';

const everyMs = 3600_000;
/** How soon a delete frees the disk. */
const lookMs = 1000;

type Sweeps = Record<string, () => Promise<unknown>>;

/**
 * Clears what a dead server left in the staging folder, then sweeps now and every hour; returns the function that stops it. What deleted
 * things leave, `deleted` and their blobs, is also swept within seconds after a delete, however long the other sweeps take: a disk may be
 * full. A sweep that fails does not keep the others from theirs.
 */
export async function startSweeper(services: StorageServices, log: Log, domains: Sweeps, deleted: Sweeps): Promise<() => Promise<void>> {
  await cleanStaging(services);
  const aged: Sweeps = { ...domains, uploads: () => expireUploads(services, Date.now()) };
  const freeing: Sweeps = { ...deleted, blobs: () => collectBlobs(services, Date.now()) };
  let stopped = false;
  const sweep = async (sweeps: Sweeps) => {
    for (const [name, one] of Object.entries(sweeps)) {
      if (stopped) return;
      try {
        log.debug({ sweep: name, swept: await one() }, 'swept');
      } catch (error) {
        log.error({ err: error, sweep: name }, 'a sweep failed');
      }
    }
  };
  const rounds = new Map<Sweeps, Promise<void>>();
  const start = (sweeps: Sweeps) => {
    if (!rounds.has(sweeps))
      rounds.set(
        sweeps,
        sweep(sweeps).finally(() => rounds.delete(sweeps)),
      );
  };
  const startAll = () => {
    start(aged);
    start(freeing);
  };
  startAll();
  const timers = [
    setInterval(startAll, everyMs),
    setInterval(() => {
      if (!rounds.has(freeing) && takeCollectable(services.db)) start(freeing);
    }, lookMs),
  ];
  return async () => {
    stopped = true;
    for (const timer of timers) clearInterval(timer);
    await Promise.all(rounds.values());
  };
}
