import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { nodeFlags } from '../../src/inference/channel.ts';

const root = join(import.meta.dirname, '..', '..');

/** For a program that cannot choose one and say which. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface Child {
  pid: number;
  /** Everything that it wrote so far, line by line, on standard output and standard error. */
  lines: string[];
  kill(signal: NodeJS.Signals): void;
  /** How it ended, when it has. */
  exit: Promise<Exit>;
  /** The first line, written already or later, that `matches`; throws when the process ends without one. */
  line(matches: (line: string) => boolean): Promise<string>;
}

/** Runs `use` beside `node <args>` in the project's folder; the process is gone afterwards. `env` is its whole environment. */
export async function withChild<T>(
  args: string[],
  env: Record<string, string>,
  use: (child: Child) => Promise<T>,
  program = process.execPath,
): Promise<T> {
  const spawned = spawn(program, args, {
    cwd: root,
    env: { PATH: process.env.PATH ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const child = watch(spawned);
  try {
    return await use(child);
  } finally {
    spawned.kill('SIGKILL');
    await child.exit;
  }
}

function watch(spawned: ChildProcess): Child {
  const lines: string[] = [];
  const seen = new Set<(line: string) => void>();
  const readers = [spawned.stdout, spawned.stderr].map((stream) => {
    const reader = createInterface({ input: stream as NonNullable<typeof stream> });
    reader.on('line', (line) => {
      lines.push(line);
      for (const tell of seen) tell(line);
    });
    return once(reader, 'close');
  });
  const exit = Promise.all([once(spawned, 'exit'), ...readers]).then(([[code, signal]]) => ({ code, signal }) as Exit);
  return {
    pid: spawned.pid as number,
    lines,
    exit,
    kill: (signal) => void spawned.kill(signal),
    line: (matches) =>
      new Promise((resolve, reject) => {
        const tell = (line: string) => matches(line) && resolve(line);
        seen.add(tell);
        lines.forEach(tell);
        exit.then(() => reject(new Error(`The process ended without the line that was waited for:\n${lines.join('\n')}`)));
      }),
  };
}

export type Listening = Child & { url: string };

/** A child that logs `message` with its URL; `use` runs from then on. */
export const withListening = <T>(
  args: string[],
  env: Record<string, string>,
  message: string,
  use: (child: Listening) => Promise<T>,
  program?: string,
): Promise<T> =>
  withChild(
    args,
    env,
    async (child) => {
      const { url } = JSON.parse(await child.line((line) => line.includes(`"${message}"`)));
      return use({ ...child, url });
    },
    program,
  );

/** `whetstone serve` on a free port. */
export const withServerProcess = <T>(env: Record<string, string>, use: (server: Listening) => Promise<T>): Promise<T> =>
  withListening(
    ['--max-semi-space-size=16', 'src/main.ts', 'serve'],
    { WHETSTONE_PORT: '0', WHETSTONE_INFERENCE_PORT: '0', ...env },
    'whetstone is ready',
    use,
  );

/** The inference host alone, with this configuration file. */
export const withHostProcess = <T>(config: string, use: (host: Listening) => Promise<T>): Promise<T> =>
  withListening([...nodeFlags, 'src/inference/main.ts', '--config', config], {}, 'inference host is ready', use);
