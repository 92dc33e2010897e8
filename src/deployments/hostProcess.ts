import { fork } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../config.ts';
import type { AuthSnapshot } from '../inference/auth.ts';
import { type ChildSettings, type Command, type FromHost, nodeFlags, type Start, type ToHost } from '../inference/channel.ts';
import { readRunning } from '../inference/runningFile.ts';
import { recordChild } from '../jobs/executor/leftChildren.ts';
import { compiledFolder } from '../loading.ts';
import type { Log } from '../log.ts';
import { stopMs } from '../stopTimes.ts';

const program = join(import.meta.dirname, '..', 'inference', 'child.ts');

/** How long a host may say nothing, in seconds: it is asked once a second. Until it listens it loads its code. */
const silentSecondsMax = { starting: 30, listening: 10 };
/** From then on it counts as a problem. */
const silentSecondsMin = 3;

export type HostAnswer = Pick<Extract<FromHost, { type: 'answer' }>, 'refused' | 'diskFull' | 'stats'>;

/** Ids of models, and why the process had to be ended. */
export interface Death {
  /** Of the models that are to blame: those that it loaded or ran at that moment, or the one that did not end. */
  blamed: string[];
  /** Null where it died by itself. */
  reason: string | null;
}

export interface HostProcess {
  url: string;
  /** Rejects when the process has gone. */
  ask(command: Command): Promise<HostAnswer>;
  /** Why it cannot serve everything, as far as it has said; null when it can. */
  problem(): string | null;
  /** Resolves when the process has gone. */
  ended: Promise<Death>;
  /** Drains it; where it is late it is killed. */
  stop(): Promise<void>;
}

/**
 * Starts the inference host as a child; resolves when it listens, and throws an Error that says why it does not. `onKeysUsed` gets API keys
 * that were used, by the hashes of their secrets.
 */
export async function startHostProcess(
  { dataDir, host, inferencePort, inferenceEngine, inferencePermits, inferenceMemoryBytesMax, logLevel, childEnv, hostEnv }: Config,
  snapshot: AuthSnapshot,
  log: Log,
  onKeysUsed: (secretHashes: string[]) => void,
): Promise<HostProcess> {
  const folder = join(dataDir, 'inference');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { mode: 0o700 });
  const settings: ChildSettings = {
    logLevel,
    folder,
    host: { host, port: inferencePort, engine: inferenceEngine, permits: inferencePermits, memoryBytesMax: inferenceMemoryBytesMax },
  };
  const child = fork(program, [], {
    cwd: folder,
    // Nobody is served until it has loaded its modules, and its threads theirs: a third less of the processor's time for that.
    env: { ...childEnv, ...hostEnv, NODE_COMPILE_CACHE: compiledFolder },
    execArgv: nodeFlags,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    // A group of its own: see recordChild.
    detached: true,
  });
  const forget = recordChild(dataDir, child.pid, log);
  child.send({ settings, snapshot } satisfies Start);
  const asked = new Map<number, { resolve: (answer: HostAnswer) => void; reject: (error: Error) => void }>();
  let ids = 0;
  let listening = false;
  let silentSeconds = 0;
  let problem: string | null = null;
  let death: Death | null = null;
  const gone = new Error('The inference host has ended.');

  const kill = (why: Death): void => {
    death ??= why;
    child.kill('SIGKILL');
  };
  const ask = (command: Command): Promise<HostAnswer> => {
    ids += 1;
    const { promise, resolve, reject } = Promise.withResolvers<HostAnswer>();
    asked.set(ids, { resolve, reject });
    if (!child.connected) reject(gone);
    else child.send({ ...command, n: ids } satisfies ToHost, (error) => error && reject(error));
    return promise;
  };
  // Counted, not read from a clock: while the server itself is stopped the host is not late.
  const pingTimer = setInterval(() => {
    silentSeconds += 1;
    const max = listening ? silentSecondsMax.listening : silentSecondsMax.starting;
    if (silentSeconds > max) kill({ blamed: [], reason: `It did not answer for ${max} s.` });
    else if (listening) ask({ type: 'ping' }).catch(() => {});
  }, 1000);

  const ended = new Promise<Death>((resolve) => {
    child.once('exit', () => {
      clearInterval(pingTimer);
      forget();
      for (const { reject } of asked.values()) reject(gone);
      resolve(death ?? { blamed: readRunning(folder), reason: null });
    });
  });

  const url = await new Promise<string>((resolve, reject) => {
    child.on('error', (error) => {
      if (child.pid === undefined) clearInterval(pingTimer);
      reject(error);
    });
    void ended.then(() => reject(gone));
    child.on('message', (message: FromHost) => {
      silentSeconds = 0;
      if (message.type === 'listening') return resolve(message.url);
      if (message.type === 'failed') return reject(new Error(message.message));
      if (message.type === 'stuck') return kill({ blamed: [message.key], reason: message.message });
      problem = message.problem;
      if (message.keysUsed.length > 0) onKeysUsed(message.keysUsed);
      asked.get(message.n)?.resolve(message);
      asked.delete(message.n);
    });
  });
  listening = true;

  return {
    url,
    ended,
    ask,
    problem: () => (silentSeconds >= silentSecondsMin ? `The inference host has not answered for ${silentSeconds} s.` : problem),
    async stop() {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), stopMs.inferenceHost);
      await ended;
      clearTimeout(timer);
    },
  };
}
