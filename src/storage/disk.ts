import { once } from 'node:events';
import { statfsSync } from 'node:fs';
import { opendir, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { sum } from 'drizzle-orm';
import type { Config } from '../config.ts';
import { ApiError } from '../errors.ts';
import { type StorageServices, stagingDir } from './blobs.ts';
import type { TableBytes } from './tableBytes.thread.ts';
import { blob } from './tables.ts';

/** What uses the disk of the data folder, in bytes. */
export interface DiskUse {
  /** Size of the file system, and what of it is free to Whetstone. */
  totalBytes: number;
  freeBytes: number;
  databaseBytes: number;
  /** Of the database: what `retention.ts` removes in time. */
  historyBytes: number;
  /** Of the database: jobs and what they have measured. */
  jobBytes: number;
  /** Datasets, models, checkpoints and complete uploads. */
  blobBytes: number;
  /** Uploads that are not complete. */
  uploadBytes: number;
  /** Folders of jobs that run. */
  workBytes: number;
  /** What can be made again: extracted datasets. */
  cacheBytes: number;
  /** Logs of jobs. */
  logBytes: number;
}

/** Folders and history are measured again after this time, or after this many times what measuring took, whichever is longer. */
const freshMs = 10_000;
const restFactor = 20;

type Slow = Pick<DiskUse, 'historyBytes' | 'jobBytes' | 'uploadBytes' | 'workBytes' | 'cacheBytes' | 'logBytes'>;
const measured = new WeakMap<object, { slow: Promise<Slow>; staleAt: number }>();

/** What uses how much. Cheap enough to be asked each second: what takes time to measure is measured every 10 seconds at most. */
export async function diskUse({ config, db }: StorageServices): Promise<DiskUse> {
  const { dataDir } = config;
  const [{ bsize, blocks, bavail }, database, log, slow] = await Promise.all([
    statfs(dataDir),
    sizeOf(join(dataDir, 'whetstone.db')),
    sizeOf(join(dataDir, 'whetstone.db-wal')),
    slowOf(config),
  ]);
  const blobs = db
    .select({ bytes: sum(blob.sizeBytes).mapWith(Number) })
    .from(blob)
    .get();
  return {
    totalBytes: blocks * bsize,
    freeBytes: bavail * bsize,
    databaseBytes: database + log,
    blobBytes: blobs?.bytes ?? 0,
    ...slow,
  };
}

/** The last measurement; a stale one is still given while the next is made. */
function slowOf(config: Pick<Config, 'dataDir'>): Promise<Slow> {
  const last = measured.get(config);
  const startedAt = performance.now();
  if (last && startedAt < last.staleAt) return last.slow;
  const next = measure(config.dataDir);
  const entry = { slow: last?.slow ?? next, staleAt: Number.POSITIVE_INFINITY };
  measured.set(config, entry);
  const end = () => {
    entry.slow = next;
    entry.staleAt = performance.now() + Math.max(freshMs, restFactor * (performance.now() - startedAt));
  };
  next.then(end, end);
  return entry.slow;
}

async function measure(dataDir: string): Promise<Slow> {
  const [tables, uploadBytes, workBytes, cacheBytes, logBytes] = await Promise.all([
    measureTables(dataDir),
    folderBytes(stagingDir(dataDir)),
    folderBytes(join(dataDir, 'work')),
    folderBytes(join(dataDir, 'cache')),
    folderBytes(join(dataDir, 'logs')),
  ]);
  return { ...tables, uploadBytes, workBytes, cacheBytes, logBytes };
}

async function measureTables(dataDir: string): Promise<TableBytes> {
  const thread = new Worker(join(import.meta.dirname, 'tableBytes.thread.ts'), { workerData: dataDir });
  const [bytes] = (await once(thread, 'message')) as [TableBytes];
  return bytes;
}

/** Bytes of the files below a folder; files that come and go meanwhile count or not. */
async function folderBytes(folder: string): Promise<number> {
  let bytes = 0;
  try {
    for await (const entry of await opendir(folder)) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) bytes += await folderBytes(path);
      else if (entry.isFile()) bytes += await sizeOf(path);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return bytes;
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    (found) => found.size,
    () => 0,
  );
}

/** Throws DISK_FULL unless so many bytes can be written and the reserve is left. */
export async function requireDisk({ config }: { config: Pick<Config, 'dataDir' | 'diskReserveBytes'> }, bytes: number): Promise<void> {
  const { bsize, bavail } = await statfs(config.dataDir);
  const missing = bytes + config.diskReserveBytes - bavail * bsize;
  if (missing > 0)
    throw diskFull(`${inMiB(missing)} more must be free: ${inMiB(bytes)} for this, and ${inMiB(config.diskReserveBytes)} stay in reserve`);
}

/** Of the file system of the data folder. */
export function diskSpace({ config }: { config: Pick<Config, 'dataDir'> }): Pick<DiskUse, 'totalBytes' | 'freeBytes'> {
  const { bsize, blocks, bavail } = statfsSync(config.dataDir);
  return { totalBytes: blocks * bsize, freeBytes: bavail * bsize };
}

/** Whether the database can still be written: a sixteenth of the reserve is left. */
export function hasRoom({ config }: { config: Pick<Config, 'dataDir' | 'diskReserveBytes'> }): boolean {
  return diskSpace({ config }).freeBytes > config.diskReserveBytes / 16;
}

export function diskFull(why: string): ApiError {
  return new ApiError('DISK_FULL', `The server's disk is too full: ${why}. Delete what is not needed, then repeat this.`);
}

const inMiB = (bytes: number): string => `${Math.ceil(bytes / 1024 ** 2).toLocaleString('en')} MiB`;
