/**
 * What the terminal UI remembers: the last server, and for each server who is logged in. The file is its user's only (0600), and is replaced
 * whole, so that a reader never sees half of it.
 */
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

export interface Credentials {
  accessToken: string;
  accessTokenExpiresAt: string;
  refreshToken: string;
}

interface Remembered {
  url?: string;
  sessions: Record<string, Credentials>;
}

export interface Store {
  /** The server of the last time. */
  url(): string | undefined;
  credentials(url: string): Credentials | undefined;
  remember(url: string, credentials: Credentials | undefined): void;
  /** Runs `use` while no other terminal UI of this user does. */
  exclusively<T>(use: () => Promise<T>): Promise<T>;
}

/** A lock that is older belongs to a process that was killed. */
const staleMs = 20_000;

export const configFolder = (env: NodeJS.ProcessEnv): string => join(env.XDG_CONFIG_HOME || join(homedir(), '.config'), 'whetstone');

export function openStore(folder: string): Store {
  const file = join(folder, 'tui.json');
  const lock = `${file}.lock`;
  const read = (): Remembered => {
    try {
      const { url, sessions } = JSON.parse(readFileSync(file, 'utf8'));
      return { url, sessions: sessions ?? {} };
    } catch {
      // There is none yet, or it is damaged: the user logs in again.
      return { sessions: {} };
    }
  };
  return {
    url: () => read().url,
    credentials: (url) => read().sessions[url],
    remember(url, credentials) {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      const sessions = { ...read().sessions };
      if (credentials) sessions[url] = credentials;
      else delete sessions[url];
      writeFileSync(`${file}.new`, JSON.stringify({ url, sessions }, null, 2), { mode: 0o600 });
      renameSync(`${file}.new`, file);
    },
    async exclusively(use) {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      while (!take(lock)) await setTimeout(50);
      try {
        return await use();
      } finally {
        rmSync(lock, { force: true });
      }
    },
  };
}

function take(lock: string): boolean {
  try {
    closeSync(openSync(lock, 'wx', 0o600));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    const takenAt = statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
    if (Date.now() - takenAt > staleMs) rmSync(lock, { force: true });
    return false;
  }
}
