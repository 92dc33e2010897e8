import { statfsSync } from 'node:fs';
import { opendir, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { sum } from 'drizzle-orm';
import type { Config } from '../config.ts';
import { ApiError } from '../errors.ts';
import { type StorageServices, stagingDir } from './blobs.ts';
import { blob } from './tables.ts';

/** What uses the disk of the data folder, in bytes. */
export interface DiskUse {
  /** Size of the file system, and what of it is free to Whetstone. */
  totalBytes: number;
  freeBytes: number;
  databaseBytes: number;
  /** Datasets, models, checkpoints and complete uploads. */
  blobBytes: number;
  /** Uploads that are not complete. */
  uploadBytes: number;
  /** Folders of jobs that run. */
  workBytes: number;
  /** What can be made again: extracted datasets. */
  cacheBytes: number;
}

/** Folders are measured again after this time, or after this many times what measuring took, whichever is longer. */
const freshMs = 10_000;
const restFactor = 20;

type Folders = Pick<DiskUse, 'uploadBytes' | 'workBytes' | 'cacheBytes'>;
const measured = new WeakMap<object, { folders: Promise<Folders>; staleAt: number }>();

/** What uses how much. Cheap enough to be asked each second: the folders are walked every 10 seconds at most. */
export async function diskUse({ config, db }: StorageServices): Promise<DiskUse> {
  const { dataDir } = config;
  const [{ bsize, blocks, bavail }, database, log, folders] = await Promise.all([
    statfs(dataDir),
    sizeOf(join(dataDir, 'whetstone.db')),
    sizeOf(join(dataDir, 'whetstone.db-wal')),
    foldersOf(config),
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
    ...folders,
  };
}

/** The last measurement; a stale one is still given while the next is made. */
function foldersOf(config: Pick<Config, 'dataDir'>): Promise<Folders> {
  const last = measured.get(config);
  const startedAt = performance.now();
  if (last && startedAt < last.staleAt) return last.folders;
  const next = measureFolders(config.dataDir);
  const entry = { folders: last?.folders ?? next, staleAt: Number.POSITIVE_INFINITY };
  measured.set(config, entry);
  const end = () => {
    entry.folders = next;
    entry.staleAt = performance.now() + Math.max(freshMs, restFactor * (performance.now() - startedAt));
  };
  next.then(end, end);
  return entry.folders;
}

async function measureFolders(dataDir: string): Promise<Folders> {
  const [uploadBytes, workBytes, cacheBytes] = await Promise.all([
    folderBytes(stagingDir(dataDir)),
    folderBytes(join(dataDir, 'work')),
    folderBytes(join(dataDir, 'cache')),
  ]);
  return { uploadBytes, workBytes, cacheBytes };
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

/** Whether the database can still be written: a sixteenth of the reserve is left. */
export function hasRoom({ config }: { config: Pick<Config, 'dataDir' | 'diskReserveBytes'> }): boolean {
  const { bsize, bavail } = statfsSync(config.dataDir);
  return bavail * bsize > config.diskReserveBytes / 16;
}

function diskFull(why: string): ApiError {
  return new ApiError('DISK_FULL', `The server's disk is too full: ${why}. Delete what is not needed, then repeat this.`);
}

const inMiB = (bytes: number): string => `${Math.ceil(bytes / 1024 ** 2).toLocaleString('en')} MiB`;
