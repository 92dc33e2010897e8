/**
 * A file that keeps some room on the disk for the database. When a transaction finds the disk full, the file is removed and the transaction
 * repeated: people can still log in, cancel and delete, which is how a full disk becomes an emptier one.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from './config.ts';
import type { Log } from './log.ts';

const reserveBytes = 4 * 2 ** 20;
const lookMs = 10_000;

const pathOf = (dataDir: string): string => join(dataDir, 'reserve');

/** Gives the room to the database; false when it has been given already. */
export function releaseReserve(dataDir: string): boolean {
  if (!existsSync(pathOf(dataDir))) return false;
  rmSync(pathOf(dataDir), { force: true });
  return true;
}

/** Makes the file now, and again when there is room after it was released; returns the function that stops this. */
export function keepReserve({ dataDir }: Pick<Config, 'dataDir'>, log: Log): () => void {
  const keep = () => {
    try {
      makeReserve(dataDir);
    } catch (error) {
      log.warn({ err: error }, 'the reserve on the disk could not be made');
    }
  };
  keep();
  const timer = setInterval(keep, lookMs).unref();
  return () => clearInterval(timer);
}

function makeReserve(dataDir: string): void {
  if (existsSync(pathOf(dataDir))) return;
  const { bavail, bsize } = statfsSync(dataDir);
  if (bavail * bsize < 2 * reserveBytes) return;
  const unfinished = `${pathOf(dataDir)}.tmp`;
  const file = openSync(unfinished, 'w', 0o600);
  try {
    // Zeros would take no room on a file system that compresses.
    writeSync(file, randomBytes(reserveBytes));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(unfinished, pathOf(dataDir));
}
