import { statfsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import type { Config } from '../config.ts';
import { ApiError } from '../errors.ts';

/** The file system of the data folder. `src/retention/` tells what uses it. */
export interface DiskSpace {
  totalBytes: number;
  /** What is free to Whetstone. */
  freeBytes: number;
}

/** Throws DISK_FULL unless so many bytes can be written and the reserve is left. */
export async function requireDisk({ config }: { config: Pick<Config, 'dataDir' | 'diskReserveBytes'> }, bytes: number): Promise<void> {
  const { bsize, bavail } = await statfs(config.dataDir);
  const missing = bytes + config.diskReserveBytes - bavail * bsize;
  if (missing > 0)
    throw diskFull(`${inMiB(missing)} more must be free: ${inMiB(bytes)} for this, and ${inMiB(config.diskReserveBytes)} stay in reserve`);
}

export function diskSpace({ config }: { config: Pick<Config, 'dataDir'> }): DiskSpace {
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
