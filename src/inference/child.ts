/**
 * The inference host as a child of the server: settings, accounts and models come over the channel. When that closes the server has gone,
 * and the host goes too.
 */
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { flushCompileCache } from 'node:module';
import { join } from 'node:path';
import { isDiskFull } from '../diskFull.ts';
import { createLog } from '../log.ts';
import { maskPaths } from '../maskPaths.ts';
import type { Command, FromHost, Start, ToHost } from './channel.ts';
import { parseHostConfig } from './config.ts';
import { listen, type RunningHost } from './host.ts';
import { stopOnSignals, tracingOf } from './process.ts';
import type { HostStats } from './stats.ts';

type HostAnswer = Extract<FromHost, { type: 'answer' }>;
/** In one answer. */
const keysMax = 1000;
/** By then what it needs is loaded. */
const compiledAfterMs = 5000;

const say = (message: FromHost): void => void process.send?.(message);
// Not by `exit`, which waits for the runs of the threads.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));

const [{ settings, snapshot }] = (await once(process, 'message')) as [Start];
const { logLevel, folder, host: hostSettings } = settings;
const log = createLog({ logLevel });

async function start(): Promise<RunningHost> {
  const empty = join(folder, 'empty');
  mkdirSync(empty);
  process.chdir(empty);
  return listen(parseHostConfig(hostSettings, '/'), log, folder, snapshot, await tracingOf(process.env, log));
}

function startError(error: NodeJS.ErrnoException): string {
  if (error.code === 'EADDRINUSE') return `Port ${hostSettings.port} is in use: set WHETSTONE_INFERENCE_PORT.`;
  if (isDiskFull(error)) return 'The disk of the data folder is full: delete what is not needed.';
  return maskPaths(error.message);
}

const host = await start().catch((error: NodeJS.ErrnoException) => {
  say({ type: 'failed', message: startError(error) });
  process.exit(1);
});
stopOnSignals(host);
void host.stuck.then((stuck) => say({ type: 'stuck', ...stuck }));

async function obey(command: Command): Promise<HostStats | undefined> {
  switch (command.type) {
    case 'load':
      await host.load(command.id, command.model);
      return;
    case 'unload':
      await host.unload(command.id);
      return;
    case 'serve':
      host.serve(command.deployments);
      return;
    case 'ping':
      return;
    case 'ready':
      host.ready();
      return;
    case 'auth':
      host.replaceAuth(command.snapshot);
      return;
    case 'stats':
      return host.stats();
  }
}

process.on('message', ({ n, ...command }: ToHost) => {
  const answer = (outcome: Pick<HostAnswer, 'refused' | 'diskFull' | 'stats'>) =>
    say({ type: 'answer', n, ...outcome, problem: host.problem(), keysUsed: host.keysUsed(keysMax) });
  obey(command).then(
    (stats) => answer({ refused: null, diskFull: false, stats: stats ?? null }),
    (error: Error) => answer({ refused: error.message, diskFull: isDiskFull(error), stats: null }),
  );
});
say({ type: 'listening', url: host.url });
// Whoever is killed has no exit, at which Node would do it.
setTimeout(flushCompileCache, compiledAfterMs).unref();
