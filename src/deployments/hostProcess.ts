import { fork } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../config.ts';
import type { AuthSnapshot } from '../inference/auth.ts';
import { type ChildSettings, type Command, type FromHost, nodeFlags, type Start, type ToHost } from '../inference/channel.ts';
import { readRunning } from '../inference/running.ts';

const program = join(import.meta.dirname, '..', 'inference', 'child.ts');

/** Time to answer what waits and to end by itself (core.md, decision 16). */
const drainMs = 25_000;

export type HostAnswer = Pick<Extract<FromHost, { type: 'answer' }>, 'refused' | 'stats'>;

export interface HostProcess {
  url: string;
  /** Rejects when the process has gone. */
  ask(command: Command): Promise<HostAnswer>;
  /** Resolves when the process has gone, with the models (`modelKey`) that it loaded or ran at that moment. */
  ended: Promise<string[]>;
  kill(): void;
  /** Drains it; after 25 seconds it is killed. */
  stop(): Promise<void>;
}

/** Starts the inference host as a child; resolves when it listens, and throws an Error that says why it does not. */
export async function startHostProcess(
  { dataDir, host, inferencePort, inferencePermits, inferenceMemoryBytesMax, logLevel, childEnv }: Config,
  snapshot: AuthSnapshot,
): Promise<HostProcess> {
  const folder = join(dataDir, 'inference');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { mode: 0o700 });
  const settings: ChildSettings = {
    logLevel,
    folder,
    host: { host, port: inferencePort, permits: inferencePermits, memoryBytesMax: inferenceMemoryBytesMax },
  };
  const child = fork(program, [], { env: childEnv, execArgv: nodeFlags, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  child.send({ settings, snapshot } satisfies Start);
  const asked = new Map<number, { resolve: (answer: HostAnswer) => void; reject: (error: Error) => void }>();
  let ids = 0;
  const gone = new Error('The inference host has ended.');
  const ended = new Promise<string[]>((resolve) => {
    child.once('exit', () => {
      for (const { reject } of asked.values()) reject(gone);
      resolve(readRunning(folder));
    });
  });

  const url = await new Promise<string>((resolve, reject) => {
    child.on('error', reject);
    void ended.then(() => reject(gone));
    child.on('message', (message: FromHost) => {
      if (message.type === 'listening') return resolve(message.url);
      if (message.type === 'failed') return reject(new Error(message.message));
      asked.get(message.id)?.resolve(message);
      asked.delete(message.id);
    });
  });

  return {
    url,
    ended,
    ask(command) {
      ids += 1;
      const { promise, resolve, reject } = Promise.withResolvers<HostAnswer>();
      asked.set(ids, { resolve, reject });
      if (!child.connected) reject(gone);
      else child.send({ ...command, id: ids } satisfies ToHost, (error) => error && reject(error));
      return promise;
    },
    kill: () => void child.kill('SIGKILL'),
    async stop() {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), drainMs);
      await ended;
      clearTimeout(timer);
    },
  };
}
