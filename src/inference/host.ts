/** The inference host: an HTTP server over a queue over a pool of threads. It opens no database. */
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { guardedServer } from '../connections.ts';
import { engines } from '../engine/engines.ts';
import { hostEngineOf } from '../engine/hostEngine.ts';
import type { Log } from '../log.ts';
import { drainMs as drainTimes } from '../stopTimes.ts';
import type { Tracing } from '../tracing.ts';
import { readAuth } from './auth.ts';
import type { DeploymentRoute } from './channel.ts';
import { type HostConfig, type ModelConfig, modelKey } from './config.ts';
import { startDispatcher } from './dispatcher.ts';
import { makeFolder } from './folder.ts';
import { type Host, serveRequest } from './http.ts';
import { startJson } from './json/json.ts';
import { KeyUses } from './keyUses.ts';
import { Memory } from './memory.ts';
import { createHostMetrics } from './metrics.ts';
import { loadModel, type ServedModel, startChecks } from './models.ts';
import { startNativePool } from './native/pool.ts';
import type { Pool, PoolSettings, Stuck } from './pool.ts';
import { whenOver } from './send.ts';
import { type HostStats, ModelStats, summaryOf } from './stats.ts';
import { startPool } from './threads/pool.ts';

/** Longest that one model may load and warm up, however many are loaded. */
const loadSecondsMax = 120;
/** Of all kinds. */
const connectionsMax = 4000;
/** How long the port stays open once nothing is left: load balancers see that the host is not ready before they find it closed. */
const lingerMs = 500;
/** For the last spans to leave. */
const tracesMs = 400;

export interface RunningHost {
  url: string;
  /** From now on these accounts decide; requests that were let in are answered. Throws, and changes nothing, when `snapshot` is none. */
  replaceAuth(snapshot: unknown): void;
  /** At `atMs` of `nowMs` these were still the server's accounts. */
  confirmAuth(atMs: number): void;
  /** Loads and warms a model beside those that are there. Throws an Error that says why it cannot be served. */
  load(id: string, model: ModelConfig): Promise<void>;
  /** From now on these models take the requests of these names: at once those that are loaded, the others when they are. */
  serve(deployments: readonly DeploymentRoute[]): void;
  /** Takes a model away from new requests, and out of memory when it has answered those that it has. */
  unload(id: string): Promise<void>;
  /** Models by name, then version. */
  stats(): HostStats;
  /** API keys that were used since the last call, by the hashes of their secrets; at most `max`, the others next time. */
  keysUsed(max: number): string[];
  /** Everything that was to be loaded was tried: the host is ready with what it has, unless it is stopping. */
  ready(): void;
  /** Why the host cannot serve everything that it is to serve, or not as fast as it should; null when it can. */
  problem(): string | null;
  /** Resolves when a model has taken hold of a thread for good. Only the end of the process sets it free. */
  stuck: Promise<Stuck>;
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
  tracing: Tracing | null = null,
  drainMs: number = drainTimes.requests,
): Promise<RunningHost> {
  const folder = makeFolder();
  const removeFolder = () => rm(folder, { recursive: true, force: true });
  const host = await listen(config, log, folder, null, tracing, drainMs).catch(async (error) => {
    await removeFolder();
    throw error;
  });
  const stop = () => host.stop().finally(removeFolder);
  const load = async () => {
    const byName = Map.groupBy(config.models, ({ name }) => name);
    host.serve([...byName].map(([name, models]) => ({ name, ids: models.map(modelKey) })));
    for (const model of config.models) await host.load(modelKey(model), model);
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
 * A host that answers 503 until `ready` is called. It serves the models that it was asked to load. `folder`: a private one;
 * in `runningFile.ts`'s file there stands what each thread computes, for whoever finds the process dead. Without
 * `snapshot`, an `AuthSnapshot`, whoever reaches the port may use it; with `accounts` in the configuration nobody, until there is one.
 */
export async function listen(
  config: HostConfig,
  log: Log,
  folder: string,
  snapshot: unknown,
  tracing: Tracing | null,
  drainMs: number = drainTimes.requests,
): Promise<RunningHost> {
  const auth = snapshot === null ? null : readAuth(snapshot);
  const pool = await poolOf(config.engine, { ...config, folder, loadSecondsMax });
  const memory = new Memory(config.queueBytesMax);
  const json = startJson();
  const checks = startChecks();
  const dispatcher = startDispatcher(pool, memory, { permits: config.permits, requestsMax: config.queueRequestsMax });
  const limits = { max: connectionsMax, requestMs: 60_000 };
  const { http: server, connections } = guardedServer(limits, ({ message }) => JSON.stringify({ error: message }));
  const host: Host = {
    config,
    log,
    dispatcher,
    models: new Map(),
    deployments: new Set(),
    unready,
    state: 'LOADING',
    memory,
    json,
    trust: connections.trust,
    auth,
    authConfirmedMs: null,
    keyUses: new KeyUses(),
    authRefusals: { 401: 0, 403: 0 },
    metrics: createHostMetrics(() => host),
    tracing,
  };
  let routes: readonly DeploymentRoute[] = [];
  const loaded = new Map<string, ServedModel>();
  const leaving = new Map<string, Promise<void>>();
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

  function route(): void {
    host.deployments = new Set(routes.map(({ name }) => name));
    host.models = new Map();
    for (const { name, ids } of routes) {
      const served = ids.flatMap((id) => loaded.get(id) ?? []);
      if (served.length > 0) host.models.set(name, new Map(served.map((model) => [model.config.version, model])));
    }
  }

  function unready(): string | null {
    const wanted = routes.flatMap(({ ids }) => ids);
    const missing = wanted.filter((id) => !loaded.has(id));
    if (missing.length > 0) return `${missing.length} of ${wanted.length} models are not loaded.`;
    return pool.stalled() ? 'Every run that computes is past its deadline: no other can be computed.' : null;
  }

  function problem(): string | null {
    const reason = unready();
    const overdue = pool.overdue();
    if (reason !== null || overdue === 0) return reason;
    const held = `${overdue} of ${config.permits} permits ${overdue === 1 ? 'is' : 'are'} held by ${overdue === 1 ? 'a run' : 'runs'}`;
    return `${held} past the deadline: fewer runs than usual compute at the same time.`;
  }

  async function leave(served: ServedModel): Promise<void> {
    while (served.users > 0) await delay(10);
    await pool.unload(served.key);
    const { name, version } = served.config;
    if (![...loaded.values()].some(({ config: other }) => modelKey(other) === modelKey(served.config))) host.metrics.forget(served.config);
    log.info({ model: name, version }, 'model is unloaded');
  }

  async function endThreads(): Promise<void> {
    await checks.close();
    await json.close();
    await pool.close();
  }

  async function stop(): Promise<void> {
    host.state = 'DRAINING';
    connections.closeAfterAnswers();
    const limit = setTimeout(() => dispatcher.stop(), drainMs);
    const end = setTimeout(connections.closeAll, drainMs + drainTimes.lastAnswers);
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
    await endThreads();
    host.metrics.stop();
    await tracing?.stop(tracesMs);
  }

  try {
    server.listen(config.port, config.host);
    await once(server, 'listening');
  } catch (error) {
    await endThreads();
    host.metrics.stop();
    throw error;
  }
  const { address, port, family } = server.address() as AddressInfo;
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`,

    async load(id, model) {
      // The engine knows a model by its id, and must not unload the new one.
      await leaving.get(id);
      const served = {
        ...(await loadModel(pool, checks, id, model, folder, config)),
        stats: new ModelStats(model.deadlineMs, host.metrics.observer(model)),
      };
      loaded.set(id, served);
      route();
      log.info({ model: model.name, version: model.version, runMs: served.times.mean(1) }, 'model is warm');
    },

    serve(deployments) {
      routes = deployments;
      route();
    },

    async unload(id) {
      const served = loaded.get(id);
      if (!served) return;
      loaded.delete(id);
      route();
      leaving.set(id, leave(served));
      await leaving.get(id);
      leaving.delete(id);
    },

    stats() {
      const { queued, dispatched } = dispatcher.depth;
      const models = [...host.models.values()]
        .flatMap((versions) => [...versions.values()])
        .map(({ config: { name, version }, stats }) => ({ name, version, ...summaryOf(stats) }))
        .sort((a, b) => (a.name === b.name ? a.version - b.version : a.name < b.name ? -1 : 1));
      return { queuedRequests: queued, dispatchedRuns: dispatched, models };
    },

    keysUsed: (max) => host.keyUses.take(max),

    ready() {
      if (host.state === 'LOADING') host.state = 'READY';
    },

    problem,
    stuck: pool.stuck,

    confirmAuth(atMs) {
      host.authConfirmedMs = atMs;
    },

    replaceAuth,
    stop,
  };
}

/** Throws where the engine is not there. */
async function poolOf(setting: HostConfig['engine'], settings: PoolSettings): Promise<Pool> {
  const engine = hostEngineOf(setting);
  if (engine === 'ONNXRUNTIME_CPU') return startPool(settings);
  const missing = await engines[engine].missing();
  if (missing !== null) throw new Error(`The inference host cannot use the engine ${engine}. ${missing}`);
  return startNativePool(settings);
}
