/** The server of this machine and this folder: the terminal UI can start it, and reads its bootstrap token. */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { setTimeout } from 'node:timers/promises';

export interface LocalServer {
  dataDir: string;
  /** Null where there is none, or this user may not read it. */
  bootstrapToken(): string | null;
  /** Starts a server that stays when this process ends; throws with its last lines when it does not get ready. */
  start(): Promise<void>;
  /** What a user should know at the end about a server that was started. */
  farewell(): string | null;
}

/** Null when `url` is not of this machine. `root` is the project's folder, `logFolder` where the log goes. */
export function localServer(url: string, root: string, logFolder: string, env: NodeJS.ProcessEnv): LocalServer | null {
  const { hostname, port, protocol } = new URL(url);
  if (protocol !== 'http:' || !['127.0.0.1', 'localhost', '[::1]'].includes(hostname)) return null;
  const dataDir = resolve(root, env.WHETSTONE_DATA_DIR ?? 'data');
  const logFile = join(logFolder, 'server.log');
  let pid: number | undefined;
  return {
    dataDir,
    bootstrapToken() {
      try {
        return readFileSync(join(dataDir, 'bootstrap-token'), 'utf8').trim();
      } catch {
        return null;
      }
    },
    async start() {
      mkdirSync(dirname(logFile), { recursive: true, mode: 0o700 });
      const log = openSync(logFile, 'w', 0o600);
      const child = spawn(process.execPath, ['--max-semi-space-size=16', 'src/main.ts', 'serve'], {
        cwd: root,
        env: { ...env, WHETSTONE_DATA_DIR: dataDir, WHETSTONE_PORT: port || '80' },
        detached: true,
        stdio: ['ignore', log, log],
      });
      closeSync(log);
      child.unref();
      let ended: string | undefined;
      child.on('error', (error) => {
        ended = error.message;
      });
      child.on('exit', (code, signal) => {
        ended = `It ended with ${code ?? signal}.`;
      });
      while (!(await answers(url))) {
        if (ended !== undefined) throw new Error(`The server did not start. ${ended}\n${lastLines(logFile)}`);
        await setTimeout(100);
      }
      pid = child.pid;
    },
    farewell: () =>
      pid === undefined ? null : `The server at ${url} keeps running: process ${pid}, log ${logFile}. Stop it with: kill ${pid}`,
  };
}

const answers = (url: string): Promise<boolean> =>
  fetch(`${url}/health`).then(
    ({ ok }) => ok,
    () => false,
  );

/** Without the stack of a defect. */
const lastLines = (file: string): string =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line.trim() !== '' && !/^\s+at /.test(line))
    .slice(-8)
    .join('\n');
