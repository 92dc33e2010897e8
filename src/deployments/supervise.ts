/**
 * Keeps the inference host in the state that the tables describe: it is started with the first deployment, told what to load and to unload,
 * and started again when it dies.
 */
import { eq } from 'drizzle-orm';
import { authSnapshot } from '../accounts/authSnapshot.ts';
import type { Tokens } from '../accounts/tokens.ts';
import type { Config } from '../config.ts';
import { type Db, inTransaction } from '../db.ts';
import { ModelConfig, modelKey } from '../inference/config.ts';
import type { HostStats } from '../inference/stats.ts';
import type { Log } from '../log.ts';
import { modelVersion } from '../models/tables.ts';
import { blobPath } from '../storage/blobs.ts';
import { taskOf } from '../training/sources.ts';
import { activate, deploymentsMax, fail, listDeployments, wantedRevisions } from './deployments.ts';
import { type HostProcess, startHostProcess } from './hostProcess.ts';

export interface InferenceHealth {
  /** IDLE: there is nothing to serve, and no host. */
  state: 'IDLE' | 'STARTING' | 'READY' | 'RESTARTING';
  /** Where the host listens. */
  url: string | null;
  /** How often it was started again since the server's start. */
  restarts: number;
  /** Why it is not READY. */
  reason: string | null;
}

export interface Supervisor {
  /** Looks at the tables again. */
  wake(): void;
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

/** Before a host that died is started again: doubled each time, until it has lived for a minute. */
const backoffMs = { first: 250, most: 30_000, livedMin: 60_000 };
/** A revision under which the host died so often within this time is not loaded again. */
const breaker = { deathsMax: 3, withinMs: 3600_000 };

/** Longest that a model may load and warm up. */
const loadMsMax = 120_000;
/** How often the host is told of changes in the accounts. */
const accountsMs = 1000;

type Wanted = ReturnType<typeof wantedRevisions>[number];

export function startSupervisor({ config, db, tokens }: SupervisorServices, log: Log): Supervisor {
  let host: HostProcess | null = null;
  const loaded = new Map<string, ModelConfig>();
  const health: InferenceHealth = { state: 'IDLE', url: null, restarts: 0, reason: null };
  let deaths = 0;
  /** By model key: when the host died while it loaded or ran this model. */
  const deathsOf = new Map<string, number[]>();
  let stopped = false;
  let asked = false;
  let rounds: Promise<void> = Promise.resolve();
  let timer: NodeJS.Timeout | undefined;
  /** The snapshot of the accounts that the host has, in JSON. */
  let told = '';

  const wake = (): void => {
    if (asked || stopped) return;
    asked = true;
    rounds = rounds.then(async () => {
      asked = false;
      await reconcile().catch((error: Error) => later(error));
    });
  };

  /** After a death, or when the host cannot be started. */
  function later(error: Error): void {
    if (stopped) return;
    log.error({ err: error }, 'the inference host is not well');
    if (host === null) health.state = 'RESTARTING';
    health.reason = error.message;
    // A death is told of twice where a round was under way.
    if (timer) return;
    const waitMs = Math.min(backoffMs.most, backoffMs.first * 2 ** deaths);
    deaths += 1;
    timer = setTimeout(() => {
      timer = undefined;
      wake();
    }, waitMs);
  }

  async function start(): Promise<HostProcess> {
    health.state = health.restarts > 0 ? 'RESTARTING' : 'STARTING';
    const snapshot = authSnapshot({ db, tokens });
    told = JSON.stringify(snapshot);
    const started = await startHostProcess(config, snapshot);
    const startedAt = performance.now();
    loaded.clear();
    host = started;
    health.url = started.url;
    void started.ended.then((running) => {
      host = null;
      health.url = null;
      if (stopped) return;
      health.restarts += 1;
      if (performance.now() - startedAt > backoffMs.livedMin) deaths = 0;
      later(new Error('The inference host has died.'));
      try {
        for (const key of running) blame(key);
      } catch (error) {
        // A locked database passes; the next death blames it again.
        log.error({ err: error }, 'a revision could not be marked as failed');
      }
    });
    return started;
  }

  async function reconcile(): Promise<void> {
    let wanted = wantedRevisions(db);
    if (stopped || (!host && wanted.length === 0)) return;
    const running = host ?? (await start());
    if (stopped) return;
    await running.ask({ type: 'know', deployments: listDeployments(db, deploymentsMax, null).map(({ name }) => name) });
    const names = new Set(wanted.map(({ name }) => name));
    // First what has no name any more: it may be given to another deployment.
    await unload(running, (model) => !names.has(model.name));
    for (const one of wanted) await serve(running, one);
    await running.ask({ type: 'ready' });
    Object.assign(health, { state: 'READY', reason: null });
    wanted = wantedRevisions(db);
    const keys = new Set(wanted.map(keyOf));
    // They answer what they have; the next deployment does not wait for that.
    void unload(running, (model) => !keys.has(modelKey(model))).catch(() => {});
  }

  async function serve(running: HostProcess, one: Wanted): Promise<void> {
    if (!loaded.has(keyOf(one)) && !(await load(running, one))) return;
    if (one.state === 'LOADING') inTransaction(db, (tx) => activate(tx, one));
  }

  /** False where the model cannot be served. */
  async function load(running: HostProcess, one: Wanted): Promise<boolean> {
    const { data: model, error } = configOf(one);
    if (!model) {
      inTransaction(db, (tx) =>
        fail(tx, one, `The model version cannot be served: ${error.issues.map(({ message }) => message).join(' ')}`),
      );
      return false;
    }
    // A warm-up that never ends cannot be ended in any other way; what it ran is blamed for it.
    const limit = setTimeout(running.kill, loadMsMax);
    const { refused } = await running.ask({ type: 'load', model }).finally(() => clearTimeout(limit));
    if (refused !== null) {
      inTransaction(db, (tx) => fail(tx, one, refused));
      return false;
    }
    loaded.set(keyOf(one), model);
    return true;
  }

  /** One that never served has one try, so that it cannot take the others down again and again. */
  function blame(key: string): void {
    const now = performance.now();
    const recent = [...(deathsOf.get(key) ?? []), now].filter((at) => now - at < breaker.withinMs);
    deathsOf.set(key, recent);
    const one = wantedRevisions(db).find((wanted) => keyOf(wanted) === key);
    if (!one || (one.state === 'ACTIVE' && recent.length < breaker.deathsMax)) return;
    const times = recent.length === 1 ? 'once' : `${recent.length} times within an hour`;
    inTransaction(db, (tx) => fail(tx, one, `The inference host died ${times} while it loaded or ran this model.`));
  }

  async function unload(running: HostProcess, which: (model: ModelConfig) => boolean): Promise<void> {
    for (const [key, model] of loaded) {
      if (!which(model)) continue;
      loaded.delete(key);
      await running.ask({ type: 'unload', model });
    }
  }

  function configOf({ name, number, modelVersionId, settingsJson }: Wanted) {
    const row = db.select().from(modelVersion).where(eq(modelVersion.id, modelVersionId)).get();
    if (!row?.sha256) throw new Error(`Model version ${modelVersionId} has no file.`);
    const { sha256, lineageHash, labelsJson, preprocessJson, preset } = row;
    const task = taskOf(db, row);
    return ModelConfig.safeParse({
      // Every detector of a preset is exported like this.
      outputLayout: preset && task === 'DETECTION' ? 'BOXES_SCORES' : undefined,
      ...settingsJson,
      name,
      version: number,
      file: blobPath(config.dataDir, sha256),
      sha256,
      lineageHash: lineageHash ?? undefined,
      task,
      labels: labelsJson ?? undefined,
      preprocess: preprocessJson ?? undefined,
    });
  }

  /** What was taken away counts on the host a second later. */
  function tellAccounts(): void {
    if (!host) return;
    const snapshot = authSnapshot({ db, tokens });
    const text = JSON.stringify(snapshot);
    if (text === told) return;
    told = text;
    host.ask({ type: 'auth', snapshot }).catch(() => {});
  }

  const accounts = setInterval(() => {
    try {
      tellAccounts();
    } catch (error) {
      // A locked database passes.
      log.error({ err: error }, 'the inference host could not be told of the accounts');
    }
  }, accountsMs);
  wake();
  return {
    wake,
    health: () => ({ ...health }),
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
    },
  };
}

const keyOf = ({ name, number }: Wanted): string => modelKey({ name, version: number });
