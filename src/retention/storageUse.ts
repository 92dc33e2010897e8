import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { StoreUse } from './measure.ts';
import { ageSettings, type RetentionConfig } from './stores.ts';

/** A figure is measured again after this time, or after this many times what measuring took, whichever is longer. */
const freshMs = 10_000;
const restFactor = 20;
/** Ages whose figures are remembered. */
const agesMax = 20;

interface Measured {
  used: Promise<StoreUse[]>;
  staleAt: number;
}

const measured = new WeakMap<object, Map<number | null, Measured>>();
/** One thread at a time. */
let last: Promise<unknown> = Promise.resolve();

/**
 * The last measurement; a stale one is still given while the next is made. It is cheap enough to be asked each second. `days` in place of the
 * settings that are an age: what would be due then.
 */
export function storageUse(config: RetentionConfig, days: number | null): Promise<StoreUse[]> {
  const byAge = measured.get(config) ?? new Map<number | null, Measured>();
  measured.set(config, byAge);
  const known = byAge.get(days);
  if (known && performance.now() < known.staleAt) return known.used;
  const startedAt = performance.now();
  const next = last.then(() => measureInThread(config, days));
  last = next.catch(() => {});
  const entry: Measured = { used: known?.used ?? next, staleAt: Number.POSITIVE_INFINITY };
  byAge.set(days, entry);
  for (const age of [...byAge.keys()].filter((one) => one !== null && one !== days).slice(0, -agesMax)) byAge.delete(age);
  const end = () => {
    entry.used = next;
    entry.staleAt = performance.now() + Math.max(freshMs, restFactor * (performance.now() - startedAt));
  };
  next.then(end, end);
  return entry.used;
}

async function measureInThread(config: RetentionConfig, days: number | null): Promise<StoreUse[]> {
  const { dataDir, backupFolder, backupKeep } = config;
  const ages = Object.fromEntries(ageSettings.map((name) => [name, config[name]]));
  const thread = new Worker(join(import.meta.dirname, 'measure.thread.ts'), {
    workerData: { config: { dataDir, backupFolder, backupKeep, ...ages }, days },
  });
  const [used] = (await once(thread, 'message')) as [StoreUse[]];
  return used;
}
