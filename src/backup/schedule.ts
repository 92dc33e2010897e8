/** Makes backups when they are due, by the command `backup` in a process of its own: a copy of the database would hold the event loop. */
import { type ChildProcess, execFile } from 'node:child_process';
import { access, readdir } from 'node:fs/promises';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../config.ts';
import type { Log } from '../log.ts';
import { checksOf, describeDamage, manifestFile } from './folder.ts';

export interface BackupState {
  /** When the newest backup in the folder was begun (Unix milliseconds); null where there is none. */
  lastAt: number | null;
  /** When the next one is due. */
  nextAt: number;
  /** How many have failed, or have found damaged files of the data folder, since the last one that did neither. */
  failures: number;
  /** What was wrong with the last of them, and what to do. */
  problem: string | null;
}

export interface Backups {
  /** Null where there is no folder for backups. */
  state(): BackupState | null;
  stop(): void;
}

type BackupConfig = Pick<Config, 'dataDir' | 'backupFolder' | 'backupHours' | 'backupKeep' | 'childEnv'>;

const hourMs = 3600_000;
const backupLimits = { lookMs: 60_000, retryMs: hourMs };

interface Newest {
  path: string;
  /** When it was begun: its name is that time, with dashes for colons. */
  at: number;
}

/** The newest finished backup. A folder on another disk may be slow to answer. */
async function newestIn(folder: string): Promise<Newest | null> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names.sort().reverse()) {
    const at = Date.parse(name.replace(/T(\d\d)-(\d\d)-/, 'T$1:$2:'));
    const isFinished = () =>
      access(join(folder, name, manifestFile)).then(
        () => true,
        () => false,
      );
    if (!Number.isNaN(at) && (await isFinished())) return { path: join(folder, name), at };
  }
  return null;
}

export function startBackups(config: BackupConfig, log: Log, { lookMs, retryMs } = backupLimits): Backups {
  const { backupFolder: folder, backupHours } = config;
  if (folder === undefined) return { state: () => null, stop: () => {} };
  const known: BackupState = { lastAt: null, nextAt: 0, failures: 0, problem: null };
  let running: ChildProcess | undefined;
  let stopped = false;
  let timer: NodeJS.Timeout | undefined;

  /** When a backup that was not made is tried again. */
  let retryAt: number | null = null;

  const setTimes = (newest: Newest | null) => {
    known.lastAt = newest?.at ?? null;
    known.nextAt = retryAt ?? (newest === null ? 0 : newest.at + backupHours * hourMs);
  };
  const backUp = async () => {
    const before = known.lastAt;
    const problem = await new Promise<string | null>((resolve) => {
      running = makeBackup(config, folder, resolve);
    });
    running = undefined;
    if (stopped) return;
    const newest = await newestIn(folder);
    const isMade = newest !== null && newest.at !== before;
    // One that has found damaged files is made: to make it again each hour would push older backups out of the folder.
    retryAt = isMade ? null : Date.now() + retryMs;
    known.problem = problem;
    known.failures = problem === null ? 0 : known.failures + 1;
    if (problem === null) log.info({ backup: newest?.path }, 'a backup was made');
    else if (isMade) log.error({ problem, backup: newest.path }, 'a backup was made, but something is wrong');
    else log.error({ problem }, 'the backup failed; it is tried again');
    setTimes(newest);
  };
  /** What the newest backup has found holds on after a restart. */
  const recall = async () => {
    const newest = await newestIn(folder);
    setTimes(newest);
    const damaged = checksOf(newest?.path)?.damaged ?? [];
    if (damaged.length > 0) Object.assign(known, { failures: 1, problem: describeDamage(config.dataDir, damaged) });
  };
  const look = async () => {
    setTimes(await newestIn(folder));
    if (!stopped && Date.now() >= known.nextAt) await backUp();
    if (!stopped) timer = setTimeout(look, lookMs);
  };
  void recall().then(look);
  return {
    state: () => ({ ...known }),
    stop() {
      stopped = true;
      clearTimeout(timer);
      // What it leaves is unfinished by its name: the next backup removes it.
      running?.kill('SIGKILL');
    },
  };
}

/** `ended` gets why the command ended with another exit code than 0; null where it did not. */
function makeBackup(
  { dataDir, backupKeep, childEnv }: BackupConfig,
  folder: string,
  ended: (problem: string | null) => void,
): ChildProcess {
  const main = join(import.meta.dirname, '..', 'main.ts');
  const env = { ...childEnv, WHETSTONE_DATA_DIR: dataDir };
  const child = execFile(process.execPath, [main, 'backup', folder, '--keep', String(backupKeep)], { env }, (error, _stdout, stderr) =>
    ended(error && (stderr.trim() || error.message)),
  );
  if (child.pid !== undefined) setPriority(child.pid, 10);
  return child;
}
