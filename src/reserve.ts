/**
 * A file that keeps some room on the disk for the database. When an urgent transaction (a log-in, a delete, a cancel) finds the disk full, the
 * file is removed and the transaction repeated: people can still make room. Until the file is there again, no other transaction is
 * written: jobs would use up the room within seconds.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from './config.ts';
import type { Log } from './log.ts';

const reserveBytes = 4 * 2 ** 20;
const lookMs = 10_000;

/** Data folders of servers that have no reserve now. */
const missing = new Set<string>();

const pathOf = (dataDir: string): string => join(dataDir, 'reserve');

/** Gives the room to the database; false when it has been given already. */
export function releaseReserve(dataDir: string): boolean {
  if (!existsSync(pathOf(dataDir))) return false;
  rmSync(pathOf(dataDir), { force: true });
  missing.add(dataDir);
  return true;
}

/** Throws ENOSPC while there is no reserve and no room for one. */
export function requireReserve(dataDir: string): void {
  if (!missing.has(dataDir) || makeReserve(dataDir)) return;
  throw Object.assign(new Error('The disk is full: only log-ins, deletes and cancels are written.'), { code: 'ENOSPC' });
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
  missing.add(dataDir);
  keep();
  const timer = setInterval(keep, lookMs).unref();
  return () => {
    clearInterval(timer);
    missing.delete(dataDir);
  };
}

/** Whether it is there. */
function makeReserve(dataDir: string): boolean {
  if (!existsSync(pathOf(dataDir))) {
    const { bavail, bsize } = statfsSync(dataDir);
    if (bavail * bsize < 2 * reserveBytes) return false;
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
  missing.delete(dataDir);
  return true;
}
