/** The terminal UI in a real terminal: tmux. */
import { execFile, execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { vi } from 'vitest';
import { adminName, adminPassword } from './server.ts';

const root = join(import.meta.dirname, '..', '..');

export const hasTmux = (process.env.PATH ?? '').split(delimiter).some((folder) => existsSync(join(folder, 'tmux')));
export const whyNot = hasTmux ? '' : ' (skipped: there is no tmux on the PATH; .ci/run installs it)';

export interface Terminal {
  /** What is on the screen, without colours, or with what makes them. */
  screen(colours?: boolean): string;
  /** Types texts and keys, which have the names that tmux gives them: Enter, Escape, C-s. */
  type(...keys: string[]): void;
  resize(columns: number, rows: number): void;
  /** Waits until the screen matches. */
  shows(text: string | RegExp, timeoutMs?: number): Promise<void>;
  /** Waits until the screen has the text no longer. */
  lacks(text: string): Promise<void>;
}

interface Options {
  /** Where the tmux socket and the user's configuration lie. */
  folder: string;
  columns?: number;
  rows?: number;
  env?: Record<string, string>;
  args: string[];
}

/** Runs `use` with the terminal UI; its tmux server is gone afterwards. */
export async function withTerminal<T>(
  { folder, columns = 80, rows = 24, env = {}, args }: Options,
  use: (terminal: Terminal) => Promise<T>,
): Promise<T> {
  // A name of its own: a tmux server that was killed may still hold the socket of an earlier terminal in this folder.
  const socket = join(folder, `${randomUUID().slice(0, 8)}.sock`);
  const tmux = (...words: string[]) =>
    execFileSync('tmux', ['-S', socket, '-f', '/dev/null', ...words], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const settings = { XDG_CONFIG_HOME: folder, LANG: 'C.UTF-8', COLORTERM: 'truecolor', ...env };
  // Ink draws nothing before its end where it finds one of CI, and nothing has a colour with NO_COLOR.
  const ofOutside = Object.keys(process.env).filter((name) => /^(CI|CI_.*|CONTINUOUS_INTEGRATION|NO_COLOR)$/.test(name));
  const words = [
    'env',
    ...ofOutside.flatMap((name) => ['-u', name]),
    ...Object.entries(settings).map(([name, value]) => `${name}=${value}`),
    process.execPath,
    'scripts/tui.mjs',
    ...args,
  ];
  const command = words.map((word) => `'${word}'`).join(' ');
  tmux(
    '-u',
    'new-session',
    '-d',
    '-s',
    'tui',
    '-x',
    String(columns),
    '-y',
    String(rows),
    '-c',
    root,
    `${command}; echo "ended with $?"; cat`,
  );
  const screen = (colours = false) => tmux('capture-pane', '-p', ...(colours ? ['-e'] : []), '-t', 'tui');
  const terminal: Terminal = {
    screen,
    type: (...keys) => void tmux('send-keys', '-t', 'tui', ...keys),
    resize: (width, height) => void tmux('resize-window', '-t', 'tui', '-x', String(width), '-y', String(height)),
    async shows(text, timeout = 45_000) {
      const has = () => (typeof text === 'string' ? screen().includes(text) : text.test(screen()));
      await vi.waitUntil(has, { timeout, interval: 50 }).catch(() => {
        throw new Error(`The terminal has no ${text}:\n${screen()}`);
      });
    },
    async lacks(text) {
      await vi
        .waitUntil(() => !screen().includes(text), { timeout: 45_000, interval: 50 })
        .catch(() => {
          throw new Error(`The terminal still has ${text}:\n${screen()}`);
        });
    },
  };
  try {
    return await use(terminal);
  } finally {
    tmux('kill-server');
  }
}

const current = (terminal: Terminal): string | undefined => /^› .*/m.exec(terminal.screen())?.[0];

/** Moves the cursor of a form to this field. A frame that is half drawn has no cursor. */
export async function toField(terminal: Terminal, label: string): Promise<void> {
  const settled = (before?: string) =>
    vi.waitUntil(() => current(terminal) !== before && current(terminal), { timeout: 30_000, interval: 20 });
  for (let at = await settled(), presses = 0; !at.startsWith(`› ${label}`); presses += 1) {
    if (presses === 40) throw new Error(`The form has no field ${label}.`);
    terminal.type('Down');
    at = await settled(at);
  }
}

export async function fill(terminal: Terminal, label: string, text: string): Promise<void> {
  await toField(terminal, label);
  terminal.type('C-u', text);
  const shown = /password/i.test(label) ? '•'.repeat(text.length) : text;
  await terminal.shows(shown.slice(-8));
}

/** Logs in as a user whose password is the administrator's. */
export async function logIn(terminal: Terminal, name: string = adminName): Promise<void> {
  await terminal.shows('Log in to');
  terminal.type(name, 'Enter');
  terminal.type(adminPassword, 'Enter');
  await terminal.shows('● connected');
}

/** The terminal UI without a terminal, until its end. */
export const script = (args: string[], env: Record<string, string>) =>
  promisify(execFile)(process.execPath, ['scripts/tui.mjs', ...args], { cwd: root, env: { PATH: process.env.PATH ?? '', ...env } });
