/**
 * Children of the server that are no attempts of a job: the inference host, what unpacks a dataset again, and what loads a model file once.
 * They end with the server, but one that hangs does not. A file for each, while it lives, tells the next server what to kill: a host would
 * keep its port.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { Log } from '../../log.ts';
import { identify, isOrphan, killGroup, type ProcessRecord } from './local.ts';

/** How long the start waits for a process that was killed. */
const orphanMsMax = 10_000;

const folderOf = (dataDir: string): string => join(dataDir, 'children');

/** Records a child that leads its process group and works in a folder of the data folder. Returns what removes the record. */
export function recordChild(dataDir: string, pid: number | null | undefined, log?: Log): () => void {
  // No process could be made.
  if (!pid) return () => {};
  const file = join(folderOf(dataDir), String(pid));
  try {
    mkdirSync(folderOf(dataDir), { recursive: true, mode: 0o700 });
    writeFileSync(file, JSON.stringify({ pid, pidStart: null, bootId: null, ...identify(pid) }));
  } catch (error) {
    // On a full disk the child is worth more than its record.
    log?.warn({ err: error, pid }, 'a child process could not be recorded');
  }
  return () => rmSync(file, { force: true });
}

/** Kills what a dead server has left. To be called before anything is started. */
export async function killLeftChildren(dataDir: string, log: Log): Promise<void> {
  mkdirSync(folderOf(dataDir), { recursive: true, mode: 0o700 });
  for (const name of readdirSync(folderOf(dataDir))) {
    const file = join(folderOf(dataDir), name);
    try {
      const left = JSON.parse(readFileSync(file, 'utf8'));
      if (isOrphan(dataDir, left)) {
        if (await killOrphan(dataDir, left)) log.warn({ pid: left.pid }, 'a process of the last server was killed');
        else log.error({ pid: left.pid }, 'a process of the last server cannot be killed');
      }
    } catch (error) {
      log.warn({ err: error, file: name }, 'the record of a child process cannot be read');
    }
    rmSync(file, { force: true });
  }
}

/** False when it is still there after a while: it hangs in a driver, and the start does not wait for it. */
async function killOrphan(dataDir: string, left: ProcessRecord): Promise<boolean> {
  const startedAt = performance.now();
  while (isOrphan(dataDir, left)) {
    if (performance.now() - startedAt > orphanMsMax) return false;
    killGroup(left.pid ?? undefined, 'SIGKILL');
    await setTimeout(20);
  }
  return true;
}
