/**
 * Keeps the inference host in the state that the tables describe: it is started with the first deployment, told what to load, to serve and
 * to unload, and started again when it dies. A revision is known by its deployment's id, its number and the hash of its configuration:
 * a name and a number come again when a name is taken away and given to another deployment.
 */
import { authSnapshot } from '../accounts/authSnapshot.ts';
import type { Tokens } from '../accounts/tokens.ts';
import { noteUse } from '../accounts/viewer.ts';
import { canonicalHash } from '../canonical.ts';
import type { Config } from '../config.ts';
import { type Db, inTransaction, passingError } from '../db.ts';
import type { DeploymentRoute } from '../inference/channel.ts';
import type { HostStats } from '../inference/stats.ts';
import type { Log } from '../log.ts';
import { maskPaths } from '../maskPaths.ts';
import { blobPath } from '../storage/blobs.ts';
import { activate, deploymentsMax, fail, findRevision, listDeployments, type WantedRevision, wantedRevisions } from './deployments.ts';
import { type Death, type HostAnswer, type HostProcess, startHostProcess } from './hostProcess.ts';
import { modelConfigOf, type PortableModelConfig } from './modelConfig.ts';

export interface InferenceHealth {
  /** IDLE: there is nothing to serve, and no host. */
  state: 'IDLE' | 'STARTING' | 'READY' | 'DEGRADED' | 'RESTARTING';
  /** Where the host listens. */
  url: string | null;
  /** How often it was started again since the server's start. */
  restarts: number;
  /** Why it is not READY. */
  reason: string | null;
}

export interface Supervisor {
  /** Looks at the tables again. Resolves when the host knows what takes the requests now, or there is none. */
  wake(): Promise<void>;
  /** Resolves when the host decides by the accounts as the database has them now, or there is no host. */
  tellAccounts(): Promise<void>;
  health(): InferenceHealth;
  /** Of the host that runs; nothing where there is none. */
  stats(): Promise<HostStats>;
  /** Drains the host, which ends within 25 seconds. */
  stop(): Promise<void>;
}

interface SupervisorServices {
  config: Config;
  db: Db;
  tokens: Tokens;
}

/**
 * Before the next try after a death, or after a load that failed: doubled each time, until a host has lived for a minute, a revision is to blame
 * for its death, or everything is loaded.
 */
const backoffMs = { first: 250, most: 30_000, livedMin: 60_000 };
/** A revision under which the host died so often within this time is not loaded again. */
const breaker = { deathsMax: 3, withinMs: 3600_000 };

/** A load that takes longer continues beside the rounds: it does not keep other deployments waiting. */
const loadMsMax = 1000;

/** How often the accounts are compared with what the host has. Mutations do not wait for this: it is for what changes without one, such as a key that expires. */
const accountsMs = 1000;

interface Wanted extends WantedRevision {
  /** What the host calls it. */
  id: string;
  config: { model: PortableModelConfig } | { problem: string };
}

type Refusal = Pick<HostAnswer, 'refused' | 'diskFull'>;
const notRefused: Refusal = { refused: null, diskFull: false };

export function startSupervisor({ config, db, tokens }: SupervisorServices, log: Log): Supervisor {
  let host: HostProcess | null = null;
  const loaded = new Set<string>();
  /** Loads that continue beside the rounds, by id. */
  const longLoads = new Map<string, Promise<void>>();
  /** Why revisions that are to serve do not, by id. */
  const missing = new Map<string, string>();
  const health: InferenceHealth = { state: 'IDLE', url: null, restarts: 0, reason: null };
  /** Of a host, in a row: none of them has lived for a minute. */
  let starts = 0;
  /** Rounds in a row that failed, or after which something was missing. */
  let misses = 0;
  /** By id: when the host died while it loaded or ran this revision. */
  const deathsOf = new Map<string, number[]>();
  let stopped = false;
  let asked = false;
  let rounds: Promise<void> = Promise.resolve();
  let timer: NodeJS.Timeout | undefined;
  /** The snapshot of the accounts that the host has, in JSON. */
  let told = '';
  /** Resolves when it has them. */
  let telling: Promise<void> = Promise.resolve();

  const wake = async (): Promise<void> => {
    if (stopped) return;
    if (!asked) {
      asked = true;
      rounds = rounds.then(async () => {
        asked = false;
        await reconcile().then(() => {
          misses = 0;
        }, failed);
      });
    }
    // The round may still wait for a load. If the host or the database fails here, the next round routes again.
    if (host) await route(host).catch(() => {});
  };

  /** A round, or a load beside it. */
  function failed(error: Error): void {
    misses += 1;
    later(error, host ? misses : starts);
  }

  /** After a death, when the host cannot be started, or when something is missing. */
  function later(error: Error, tries: number): void {
    if (stopped) return;
    log.error({ err: error }, 'the inference host does not serve everything: it is tried again');
    if (host === null) health.state = 'RESTARTING';
    health.reason = passingError(error)?.message ?? maskPaths(error.message);
    // If the host dies in a round, both come here: one next round is enough.
    if (timer) return;
    const waitMs = Math.min(backoffMs.most, backoffMs.first * 2 ** (tries - 1));
    timer = setTimeout(() => {
      timer = undefined;
      void wake();
    }, waitMs);
  }

  async function start(): Promise<HostProcess> {
    health.state = health.restarts > 0 ? 'RESTARTING' : 'STARTING';
    const snapshot = authSnapshot({ db, tokens });
    told = JSON.stringify(snapshot);
    starts += 1;
    const started = await startHostProcess(config, snapshot, log, (hashes) => noteUse(db, hashes));
    const startedAt = performance.now();
    loaded.clear();
    missing.clear();
    host = started;
    health.url = started.url;
    void started.ended.then((death) => {
      host = null;
      health.url = null;
      if (stopped) return;
      health.restarts += 1;
      // A revision that is to blame is taken out at its third death (`blame`): the others need not wait for longer each time.
      if (death.blamed.length > 0 || performance.now() - startedAt > backoffMs.livedMin) starts = 1;
      later(new Error(death.reason ? `The inference host had to be ended: ${death.reason}` : 'The inference host has died.'), starts);
      try {
        for (const id of death.blamed) blame(id, death);
      } catch (error) {
        // A locked database passes; the next death blames it again.
        log.error({ err: error }, 'a revision could not be marked as failed');
      }
    });
    // What was granted while it started is not in its first snapshot.
    await tellAccounts();
    return started;
  }

  async function reconcile(): Promise<void> {
    // Those under which the host died come last.
    const all = wanted().sort((a, b) => (deathsOf.get(a.id)?.length ?? 0) - (deathsOf.get(b.id)?.length ?? 0));
    if (stopped || (!host && all.length === 0)) return;
    const serving = host ?? (await start());
    if (stopped) return;
    await route(serving);
    unload(serving, all);
    missing.clear();
    for (const one of all) {
      // A load may have taken so long that this one is not wanted any more.
      const state = findRevision(db, one.deploymentId, one.number)?.state;
      if ((state === 'LOADING' || state === 'ACTIVE') && !longLoads.has(one.id)) await bringOrLeave(serving, one);
    }
    await serving.ask({ type: 'ready' });
    health.state = 'READY';
    health.reason = null;
    unload(serving, wanted());
    if (missing.size > 0) throw new Error([...missing.values()].join(' '));
  }

  function wanted(): Wanted[] {
    return wantedRevisions(db).map((revision) => {
      const config = modelConfigOf(db, revision);
      return { ...revision, config, id: `${revision.deploymentId}/${revision.number}/${canonicalHash(config).slice(0, 16)}` };
    });
  }

  /** Of each deployment the new revision once it is loaded, else the one that serves. */
  function routes(): DeploymentRoute[] {
    const all = wanted();
    return listDeployments(db, deploymentsMax, null).map(({ id, name }) => {
      const own = all.filter(({ deploymentId }) => deploymentId === id);
      const next = own.find((one) => one.state === 'LOADING' && loaded.has(one.id)) ?? own.find(({ state }) => state === 'ACTIVE');
      return { name, ids: next ? [next.id] : [] };
    });
  }

  async function route(serving: HostProcess): Promise<void> {
    await serving.ask({ type: 'serve', deployments: routes() });
  }

  /** Resolves when the revision serves, or cannot; or sooner, where its load takes long. */
  async function bringOrLeave(serving: HostProcess, one: Wanted): Promise<void> {
    const brought = bring(serving, one);
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<boolean>((resolve) => {
      timer = setTimeout(resolve, loadMsMax, true);
    });
    const isLong = await Promise.race([brought.then(() => false), limit]).finally(() => clearTimeout(timer));
    if (!isLong) return;
    const ended = brought
      .then(() => {
        const refused = missing.get(one.id);
        if (refused !== undefined) throw new Error(refused);
      })
      .finally(() => longLoads.delete(one.id))
      .then(wake, failed);
    longLoads.set(one.id, ended);
  }

  /** The host has a new revision's requests before the tables say so; whoever takes it away meanwhile tells the host after this. */
  async function bring(serving: HostProcess, one: Wanted): Promise<void> {
    const { refused, diskFull } = loaded.has(one.id) ? notRefused : await load(serving, one);
    if (refused !== null) {
      // A full disk passes, and so does whatever keeps out what has served before, such as memory that another model has.
      if (diskFull) missing.set(one.id, `${one.name}/${one.number} waits: the disk of the data folder is full. Delete what is not needed.`);
      else if (one.state === 'ACTIVE') missing.set(one.id, refused);
      else inTransaction(db, (tx) => fail(tx, one, refused));
      return;
    }
    if (one.state === 'ACTIVE') return;
    await route(serving);
    inTransaction(db, (tx) => activate(tx, one));
  }

  /** Why it cannot be served, if it cannot. */
  async function load(serving: HostProcess, { id, config: found }: Wanted): Promise<Refusal> {
    if ('problem' in found) return { refused: found.problem, diskFull: false };
    const { model } = found;
    const answer = await serving.ask({ type: 'load', id, model: { ...model, file: blobPath(config.dataDir, model.sha256) } });
    if (answer.refused === null) loaded.add(id);
    return answer;
  }

  /** One that never served has one try, so that it cannot take the others down again and again. */
  function blame(id: string, { reason }: Death): void {
    const now = performance.now();
    const recent = [...(deathsOf.get(id) ?? []), now].filter((at) => now - at < breaker.withinMs);
    deathsOf.set(id, recent);
    const one = wanted().find((revision) => revision.id === id);
    if (!one || (one.state === 'ACTIVE' && recent.length < breaker.deathsMax)) return;
    const times = recent.length === 1 ? 'once' : `${recent.length} times within an hour`;
    const why = `The inference host died ${times} while it loaded or ran this model.${reason ? ` ${reason}` : ''}`;
    inTransaction(db, (tx) => fail(tx, one, why));
  }

  /** What is not wanted any more answers the requests that it has; nothing waits for that. */
  function unload(serving: HostProcess, all: readonly Wanted[]): void {
    const ids = new Set(all.map(({ id }) => id));
    for (const id of loaded) {
      if (ids.has(id)) continue;
      loaded.delete(id);
      serving.ask({ type: 'unload', id }).catch(() => {});
    }
  }

  function tellAccounts(): Promise<void> {
    if (!host) return Promise.resolve();
    try {
      const snapshot = authSnapshot({ db, tokens });
      const text = JSON.stringify(snapshot);
      if (text !== told) {
        told = text;
        // Where the host dies of it, the next one starts with a snapshot of its own.
        telling = host.ask({ type: 'auth', snapshot }).then(
          () => {},
          () => {},
        );
      }
    } catch (error) {
      // A locked database passes: the next interval tries again.
      log.error({ err: error }, 'sending the accounts to the inference host failed; retrying');
    }
    return telling;
  }

  const accounts = setInterval(tellAccounts, accountsMs);
  void wake();
  return {
    wake,
    tellAccounts,
    health() {
      const reason = health.reason ?? host?.problem() ?? null;
      return health.state === 'READY' && reason !== null ? { ...health, state: 'DEGRADED', reason } : { ...health };
    },
    async stats() {
      const answer = await host?.ask({ type: 'stats' }).catch(() => null);
      return answer?.stats ?? { queuedRequests: 0, dispatchedRuns: 0, models: [] };
    },
    async stop() {
      stopped = true;
      clearTimeout(timer);
      clearInterval(accounts);
      await host?.stop();
      await rounds;
      // It may just have been started.
      await host?.stop();
      await Promise.all(longLoads.values());
    },
  };
}
