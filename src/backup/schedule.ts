/** Makes backups when they are due, by the command `backup` in a process of its own: a copy of the database would hold the event loop. */
import { type ChildProcess, execFile } from 'node:child_process';
import { access, readdir } from 'node:fs/promises';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../config.ts';
import type { Log } from '../log.ts';
import { manifestFile } from './folder.ts';

export interface BackupState {
  /** When the newest backup in the folder was begun (Unix milliseconds); null where there is none. */
  lastAt: number | null;
  /** When the next one is due. */
  nextAt: number;
  /** How many have failed since the last one that did not, and why the last of them did. */
  failures: number;
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

/** When the newest finished backup was begun: its name is that time, with dashes for colons. A folder on another disk may be slow to answer. */
async function newestTime(folder: string): Promise<number | null> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names.sort().reverse()) {
    const time = Date.parse(name.replace(/T(\d\d)-(\d\d)-/, 'T$1:$2:'));
    const isFinished = () =>
      access(join(folder, name, manifestFile)).then(
        () => true,
        () => false,
      );
    if (!Number.isNaN(time) && (await isFinished())) return time;
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

  const readNewest = async () => {
    known.lastAt = await newestTime(folder);
    if (known.failures === 0) known.nextAt = known.lastAt === null ? 0 : known.lastAt + backupHours * hourMs;
  };
  const backUp = async () => {
    const { problem, path } = await new Promise<Ended>((resolve) => {
      running = makeBackup(config, folder, resolve);
    });
    running = undefined;
    if (stopped) return;
    known.problem = problem;
    known.failures = problem === null ? 0 : known.failures + 1;
    known.nextAt = Date.now() + retryMs;
    if (problem === null) log.info({ backup: path }, 'a backup was made');
    else log.error({ problem }, 'the backup failed; it is tried again');
    await readNewest();
  };
  const look = async () => {
    await readNewest();
    if (!stopped && Date.now() >= known.nextAt) await backUp();
    if (!stopped) timer = setTimeout(look, lookMs);
  };
  void look();
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

interface Ended {
  /** Why it failed; null where it did not. */
  problem: string | null;
  path: string | undefined;
}

function makeBackup({ dataDir, backupKeep, childEnv }: BackupConfig, folder: string, ended: (how: Ended) => void): ChildProcess {
  const main = join(import.meta.dirname, '..', 'main.ts');
  const env = { ...childEnv, WHETSTONE_DATA_DIR: dataDir };
  const child = execFile(process.execPath, [main, 'backup', folder, '--keep', String(backupKeep)], { env }, (error, stdout, stderr) =>
    ended({ problem: error && (stderr.trim() || error.message), path: stdout.split('\n')[0] }),
  );
  if (child.pid !== undefined) setPriority(child.pid, 10);
  return child;
}
