/** The terminal UI without a terminal: the product's components on streams that say they are one. */
import { EventEmitter } from 'node:events';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';
import { render } from 'ink';
import { createElement } from 'react';
import { vi } from 'vitest';
import { localServer } from '../../tui/session/localServer.ts';
import { openStore, type Store } from '../../tui/session/store.ts';
import { App } from '../../tui/ui/App.tsx';
import type { Route } from '../../tui/ui/nav.tsx';
import { adminName, adminPassword, withFolder } from './server.ts';

export interface Tui {
  store: Store;
  /** The screen as it is now, line by line. */
  lines(): string[];
  /** What was last put into the clipboard of the terminal. */
  clipboard(): string;
  /** What is printed when the UI has closed. */
  left: string[];
  type(text: string): void;
  resize(columns: number, rows: number): void;
  /** Waits until the screen has this text on it. */
  shows(text: string | RegExp): Promise<void>;
  showsNot(text: string | RegExp): Promise<void>;
}

export const key = {
  enter: '\r',
  esc: '\x1b',
  tab: '\t',
  down: '\x1b[B',
  up: '\x1b[A',
  right: '\x1b[C',
  ctrlS: '\x13',
  ctrlD: '\x04',
  ctrlU: '\x15',
};

interface Options {
  columns?: number;
  rows?: number;
  first?: Route;
  folder?: string;
}

/** Runs `use` with the terminal UI of this server. */
export async function withTui(url: string, use: (tui: Tui) => Promise<void>, options: Options = {}): Promise<void> {
  if (!options.folder) return withFolder((folder) => withTui(url, use, { ...options, folder }));
  const { folder, columns = 80, rows = 24, first = { screen: 'overview' } } = options;
  const store = openStore(folder);
  let frame = '';
  let clipboard = '';
  const left: string[] = [];
  const stdout = Object.assign(new EventEmitter(), {
    columns,
    rows,
    isTTY: true,
    write(text: string) {
      const copied = /]52;c;([\w+/=]*)/.exec(text)?.[1];
      if (copied !== undefined) {
        clipboard = Buffer.from(copied, 'base64').toString();
        return true;
      }
      // Each frame is written whole; what steers the terminal has no visible text.
      if (stripVTControlCharacters(text).trim() !== '') frame = text;
      return true;
    },
  });
  const stdin = Object.assign(new PassThrough(), { isTTY: true, setRawMode: () => stdin, ref: () => stdin, unref: () => stdin });
  const local = localServer(url, join(import.meta.dirname, '..', '..'), folder, { WHETSTONE_DATA_DIR: join(folder, 'data') });
  const app = render(createElement(App, { url, store, local, first, leave: (text) => left.push(text) }), {
    stdout: stdout as never,
    stdin: stdin as never,
    debug: true,
    patchConsole: false,
    exitOnCtrlC: false,
  });
  const lines = () => stripVTControlCharacters(frame).split('\n');
  const has = (text: string | RegExp) => lines().some((line) => (typeof text === 'string' ? line.includes(text) : text.test(line)));
  const wait = (condition: () => boolean, text: string | RegExp) =>
    vi.waitUntil(condition, { timeout: 30_000, interval: 10 }).catch(() => {
      throw new Error(`The screen has no ${text}, or still has it:\n${lines().join('\n')}`);
    });
  try {
    await use({
      store,
      lines,
      clipboard: () => clipboard,
      left,
      type: (text) => void stdin.write(text),
      resize(width, height) {
        Object.assign(stdout, { columns: width, rows: height });
        stdout.emit('resize');
      },
      shows: async (text) => void (await wait(() => has(text), text)),
      showsNot: async (text) => void (await wait(() => !has(text), text)),
    });
  } finally {
    app.unmount();
  }
}

/** Logs in as a user whose password is the administrator's. */
export async function logIn(tui: Tui, name: string = adminName): Promise<void> {
  await tui.shows('Log in to');
  tui.type(`${name}\r`);
  tui.type(`${adminPassword}\r`);
  await tui.shows('● connected');
}
