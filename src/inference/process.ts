/** What every inference host does that is a process: as a child of the server, and by itself. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Log } from '../log.ts';
import type { RunningHost } from './host.ts';

/**
 * Of Node, for a host (`npm run serve:inference` has them too). A body of 602 KB arrives in ten buffers outside of V8's heap: with a young
 * generation of the default 16 MB so many of them pile up between two scavenges that V8 does a full collection every 50 ms, which made P99 17 ms in
 * place of 3 (null model, one connection, Node 24.21).
 */
export const nodeFlags = ['--max-semi-space-size=2'];

/** The design's limit for everything that has to end (core.md, decision 16). */
const stopMs = 30_000;

/** Changes into a new folder, where nothing is that a model file may refer to; it goes with the process. */
export function enterEmptyFolder(): void {
  const empty = mkdtempSync(join(tmpdir(), 'whetstone-empty-'));
  process.on('exit', () => rmSync(empty, { recursive: true, force: true }));
  process.chdir(empty);
}

/** Drains and exits with 0 on SIGTERM or SIGINT. */
export function stopOnSignals(host: RunningHost, log: Log): void {
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, 'stopping');
    // A thread inside a run that never ends cannot be ended in any other way.
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), stopMs).unref();
    void host.stop().then(() => process.exit(0));
  };
  process.on('SIGTERM', stop).on('SIGINT', stop);
}
