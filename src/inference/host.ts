/** The inference host: an HTTP server over a queue over an engine. It opens no database. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../log.ts';
import { readAuth } from './auth.ts';
import { BodyMemory } from './body.ts';
import type { HostConfig } from './config.ts';
import { startDispatcher } from './dispatcher.ts';
import { type Host, serveRequest } from './http.ts';
import { loadModel } from './models.ts';
import { startPool } from './ort/pool.ts';

/** After this much of a drain, what still waits is answered with 503 (core.md, decision 16). */
const drainMs = 25_000;
/** How long the port stays open once nothing is left: load balancers see that the host is not ready before they find it closed. */
const lingerMs = 500;

export interface RunningHost {
  url: string;
  /** From now on these accounts decide; requests that were let in are answered. Throws, and changes nothing, when `snapshot` is none. */
  replaceAuth(snapshot: unknown): void;
  /** Not ready any more; resolves when every request has its answer and the engine has ended. */
  stop(): Promise<void>;
}

/**
 * Listens, loads every model, and is ready when this resolves. Without `snapshot`, an `AuthSnapshot`, whoever reaches the port may use it.
 * Throws an Error that says which model cannot be served.
 */
export async function startHost(config: HostConfig, log: Log, snapshot: unknown = null): Promise<RunningHost> {
  const auth = snapshot === null ? null : readAuth(snapshot);
  const folder = await mkdtemp(join(tmpdir(), 'whetstone-inference-'));
  const engine = startPool(config);
  const dispatcher = startDispatcher(engine, { permits: config.permits, requestsMax: config.queueRequestsMax });
  const host: Host = { config, log, dispatcher, models: new Map(), state: 'LOADING', memory: new BodyMemory(config.queueBytesMax), auth };
  let open = 0;
  const server = createServer({ headersTimeout: 10_000, requestTimeout: 60_000, keepAliveTimeout: 75_000 }, (req, res) => {
    open += 1;
    res.once('close', () => {
      open -= 1;
    });
    void serveRequest(host, req, res);
  });

  function replaceAuth(snapshot: unknown): void {
    host.auth = readAuth(snapshot);
  }

  async function stop(): Promise<void> {
    host.state = 'DRAINING';
    const limit = setTimeout(() => dispatcher.stop(), drainMs);
    for (let quietMs = 0; quietMs < lingerMs; ) {
      await delay(10);
      quietMs = open === 0 ? quietMs + 10 : 0;
    }
    clearTimeout(limit);
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
    await engine.close();
    await rm(folder, { recursive: true, force: true });
  }

  try {
    server.listen(config.port, config.host);
    await once(server, 'listening');
    for (const model of config.models) {
      const served = await loadModel(engine, model, folder, config.permits);
      const versions = host.models.get(model.name) ?? new Map();
      host.models.set(model.name, versions.set(model.version, served));
      log.info({ model: model.name, version: model.version, runMs: served.times.mean(1) }, 'model is warm');
    }
    host.state = 'READY';
  } catch (error) {
    await stop();
    throw error;
  }
  const { address, port, family } = server.address() as AddressInfo;
  return { url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`, replaceAuth, stop };
}
