/** What every inference host does that is a process: as a child of the server, and by itself. */
import { rmSync } from 'node:fs';
import type { Log } from '../log.ts';
import { stopMs } from '../stopTimes.ts';
import type { Tracing } from '../tracing.ts';
import { readTracing, serviceNames } from '../tracingSettings.ts';
import { makeFolder } from './folder.ts';
import type { RunningHost } from './host.ts';

/** Null where nobody asks for traces. Throws an Error that names every variable that is wrong. */
export async function tracingOf(env: NodeJS.ProcessEnv, log: Log): Promise<Tracing | null> {
  const { tracing, problems } = readTracing(env);
  if (problems.length > 0) throw new Error(problems.join('\n'));
  return tracing && (await import('../otlp.ts')).startTracing(tracing, serviceNames.host, log);
}

/** Changes into a new folder, where nothing is that a model file may refer to; it goes with the process. */
export function enterEmptyFolder(): void {
  const empty = makeFolder();
  process.on('exit', () => rmSync(empty, { recursive: true, force: true }));
  process.chdir(empty);
}

/** Drains and exits with 0 on SIGTERM or SIGINT. Without a log where whoever sends them has said so. */
export function stopOnSignals(host: RunningHost, log?: Log): void {
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) return;
    stopping = true;
    log?.info({ signal }, 'stopping');
    // A thread inside a run that never ends cannot be ended in any other way.
    setTimeout(endNow, stopMs.limit).unref();
    void host.stop().then(() => process.exit(0));
  };
  process.on('SIGTERM', stop).on('SIGINT', stop);
}

/** Not by `exit`, which waits for the runs of the threads. */
const endNow = () => process.kill(process.pid, 'SIGKILL');

/** Ends the process when a run in it does not end: whoever supervises it (Docker, systemd, Kubernetes) starts a new one. */
export async function endWhenStuck(host: RunningHost, log: Log): Promise<void> {
  const { key, message } = await host.stuck;
  log.fatal({ model: key, reason: message }, 'a model does not end: the process has to');
  endNow();
}
