/** The inference host: an HTTP server over a queue over a pool of threads. It opens no database. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { connectionOptions, guardConnections } from '../connections.ts';
import type { Log } from '../log.ts';
import { readAuth } from './auth.ts';
import type { HostConfig, ModelConfig } from './config.ts';
import { startDispatcher } from './dispatcher.ts';
import { type Host, serveRequest } from './http.ts';
import { startJson } from './json/json.ts';
import { Memory } from './memory.ts';
import { loadModel, type ServedModel } from './models.ts';
import { createRunningFile } from './running.ts';
import { whenOver } from './send.ts';
import { type HostStats, summaryOf } from './stats.ts';
import { startPool } from './threads/pool.ts';

/** After this much of a drain, what still waits is answered with 503 (core.md, decision 16). */
const drainMs = 25_000;
/** A connection on which nothing moves for so long is closed: a request waits for 60 s at most, and a client that does not read holds memory. */
const silenceMs = 75_000;
/** Of all kinds. */
const connectionsMax = 4000;
/** After the limit of a drain its answers get so much longer to leave; who still sends a body is cut off. */
const lastAnswersMs = 1_000;
/** How long the port stays open once nothing is left: load balancers see that the host is not ready before they find it closed. */
const lingerMs = 500;

export interface RunningHost {
  url: string;
  /** From now on these accounts decide; requests that were let in are answered. Throws, and changes nothing, when `snapshot` is none. */
  replaceAuth(snapshot: unknown): void;
  /** At `atMs` of `nowMs` these were still the server's accounts. */
  confirmAuth(atMs: number): void;
  /** Loads a model beside those that are served, and serves it when it is warm. Throws an Error that says why it cannot be served. */
  load(model: ModelConfig): Promise<void>;
  /** Takes a model away from new requests, and out of memory when it has answered those that it has. */
  unload(model: Pick<ModelConfig, 'name' | 'version'>): Promise<void>;
  /** Models by name, then version. */
  stats(): HostStats;
  /** Names that are deployed: where none of their revisions can be served, it is said so, instead of that there is no such name. */
  know(deployments: readonly string[]): void;
  /** Everything that was to be loaded is: the host says that it is ready, unless it is stopping. */
  ready(): void;
  /** Not ready any more; resolves when every request has its answer and the engine has ended. */
  stop(): Promise<void>;
}

/**
 * Listens, loads every model of the configuration, and is ready when this resolves. Beside the loading `prepare` does what else has to be done
 * with the host that listens. Throws an Error that says which model cannot be served.
 */
export async function startHost(
  config: HostConfig,
  log: Log,
  prepare: (listening: RunningHost) => Promise<void> = async () => {},
): Promise<RunningHost> {
  const folder = await mkdtemp(join(tmpdir(), 'whetstone-inference-'));
  const removeFolder = () => rm(folder, { recursive: true, force: true });
  const host = await listen(config, log, folder, null).catch(async (error) => {
    await removeFolder();
    throw error;
  });
  const stop = () => host.stop().finally(removeFolder);
  const load = async () => {
    for (const model of config.models) await host.load(model);
  };
  try {
    await Promise.all([load(), prepare({ ...host, stop })]);
  } catch (error) {
    await stop();
    throw error;
  }
  host.ready();
  return { ...host, stop };
}

/**
 * A host that answers 503 until it is told that it is `ready`. Its models are those that it is told to load. `folder`: a private one;
 * in `running.ts`'s file there stands what each thread computes, for whoever finds the process dead. Without
 * `snapshot`, an `AuthSnapshot`, whoever reaches the port may use it; with `accounts` in the configuration nobody, until there is one.
 */
export async function listen(config: HostConfig, log: Log, folder: string, snapshot: unknown): Promise<RunningHost> {
  const auth = snapshot === null ? null : readAuth(snapshot);
  const pool = startPool({ ...config, runningFile: createRunningFile(folder, config.permits) });
  const memory = new Memory(config.queueBytesMax);
  const json = startJson();
  const dispatcher = startDispatcher(pool, memory, { permits: config.permits, requestsMax: config.queueRequestsMax });
  const server = createServer({ ...connectionOptions, requestTimeout: 60_000, keepAliveTimeout: silenceMs });
  server.setTimeout(silenceMs);
  const connections = guardConnections(server, connectionsMax);
  const host: Host = {
    config,
    log,
    dispatcher,
    models: new Map(),
    deployments: new Set(),
    state: 'LOADING',
    memory,
    json,
    trust: connections.trust,
    auth,
    authConfirmedMs: null,
    authRefusals: { 401: 0, 403: 0 },
  };
  let open = 0;
  server.on('request', (req, res) => {
    open += 1;
    whenOver(res, () => {
      open -= 1;
    });
    void serveRequest(host, req, res);
  });

  function replaceAuth(snapshot: unknown): void {
    host.auth = readAuth(snapshot);
  }

  async function stop(): Promise<void> {
    host.state = 'DRAINING';
    connections.closeAfterAnswers();
    const limit = setTimeout(() => dispatcher.stop(), drainMs);
    const end = setTimeout(connections.closeAll, drainMs + lastAnswersMs);
    for (let quietMs = 0; quietMs < lingerMs; ) {
      await delay(10);
      quietMs = open === 0 ? quietMs + 10 : 0;
    }
    clearTimeout(limit);
    clearTimeout(end);
    const closed = once(server, 'close');
    server.close();
    connections.closeAll();
    await closed;
    await json.close();
    await pool.close();
  }

  try {
    server.listen(config.port, config.host);
    await once(server, 'listening');
  } catch (error) {
    await json.close();
    await pool.close();
    throw error;
  }
  const { address, port, family } = server.address() as AddressInfo;
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`,

    async load(model) {
      const served = await loadModel(pool, model, folder, config);
      const versions = host.models.get(model.name) ?? new Map<number, ServedModel>();
      host.models.set(model.name, versions.set(model.version, served));
      log.info({ model: model.name, version: model.version, runMs: served.times.mean(1) }, 'model is warm');
    },

    async unload({ name, version }) {
      const versions = host.models.get(name);
      const served = versions?.get(version);
      if (!versions || !served) return;
      versions.delete(version);
      if (versions.size === 0) host.models.delete(name);
      while (served.users > 0) await delay(10);
      await pool.unload(served.key);
      log.info({ model: name, version }, 'model is unloaded');
    },

    stats() {
      const { queued, dispatched } = dispatcher.depth;
      const models = [...host.models.values()]
        .flatMap((versions) => [...versions.values()])
        .map(({ config: { name, version }, stats }) => ({ name, version, ...summaryOf(stats) }))
        .sort((a, b) => (a.name === b.name ? a.version - b.version : a.name < b.name ? -1 : 1));
      return { queuedRequests: queued, dispatchedRuns: dispatched, models };
    },

    know(deployments) {
      host.deployments = new Set(deployments);
    },

    ready() {
      if (host.state === 'LOADING') host.state = 'READY';
    },

    confirmAuth(atMs) {
      host.authConfirmedMs = atMs;
    },

    replaceAuth,
    stop,
  };
}
