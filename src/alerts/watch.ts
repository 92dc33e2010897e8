/** Evaluates the rules every few seconds. Changes of state are stored, with their events and deliveries, in one transaction. */
import { and, asc, eq, gt, lte, max } from 'drizzle-orm';
import type { Backups } from '../backup/schedule.ts';
import type { Bus } from '../bus.ts';
import type { Config } from '../config.ts';
import { type Db, inTransaction, inUrgentTransaction, type Queryable } from '../db.ts';
import { findDeploymentByName } from '../deployments/deployments.ts';
import type { Supervisor } from '../deployments/supervise.ts';
import { follow } from '../follow.ts';
import type { Log } from '../log.ts';
import { opaqueId } from '../naming.ts';
import { queueDeliveries } from '../webhooks/outbox.ts';
import { type AlertState, evaluate } from './evaluate.ts';
import { type ServerReading, takeReading } from './readings.ts';
import { alertRules, sayAlert } from './rules.ts';
import { type Alert, type AlertEvent, type AlertMetric, alert, alertEvent, alertMetrics } from './tables.ts';

const everyMs = 2000;
/** What shares, percentiles and restarts are counted over. */
const windowMs = 300_000;
const eventsMax = 10_000;
/** Events that a subscriber reads at a time. */
const pageRows = 100;

interface AlertServices {
  config: Pick<Config, 'dataDir'>;
  db: Db;
  bus: Bus;
  supervisor: Pick<Supervisor, 'health' | 'stats'>;
  backups: Pick<Backups, 'state'>;
}

export const listAlerts = (db: Queryable): Alert[] => db.select().from(alert).orderBy(asc(alert.since), asc(alert.metric)).all();

/** Returns the function that stops it. */
export function startAlerts(services: AlertServices, log: Log): () => void {
  const { db } = services;
  const states = storedStates(db);
  let readings: ServerReading[] = [];
  let stopped = false;
  /** Whether the last look failed: logged once, not at each. */
  let failed = false;
  let timer: NodeJS.Timeout | undefined;
  const look = async () => {
    try {
      const reading = await takeReading(services);
      if (stopped) return;
      readings = [...readings.filter(({ at }) => at >= reading.at - windowMs), reading];
      applyReadings(services, readings, states);
      failed = false;
    } catch (error) {
      // A locked database or a full disk passes: the next look finds the same.
      if (!stopped && !failed) log.error({ err: error }, 'the alert rules could not be evaluated; retrying');
      failed = true;
    }
    if (!stopped) timer = setTimeout(look, everyMs);
  };
  void look();
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}

export type AlertStates = Map<AlertMetric, ReadonlyMap<string, AlertState>>;

/** After a restart what was PENDING has to last for the whole duration again. */
export function storedStates(db: Queryable): AlertStates {
  const rows = listAlerts(db);
  const exceededAt = performance.now();
  return new Map(
    alertMetrics.map((name) => [
      name,
      new Map(rows.filter(({ metric }) => metric === name).map(({ deployment, state }) => [deployment, { state, exceededAt }])),
    ]),
  );
}

/** Brings `states` and the tables to what the readings say. */
export function applyReadings(
  { db, bus }: Pick<AlertServices, 'db' | 'bus'>,
  readings: readonly ServerReading[],
  states: AlertStates,
): void {
  const now = readings.at(-1)?.at ?? 0;
  const next: AlertStates = new Map();
  const changes: Omit<AlertEvent, 'seq' | 'at'>[] = [];
  for (const rule of alertRules(db)) {
    const before = states.get(rule.metric) ?? new Map<string, AlertState>();
    const after = evaluate(rule, readings, before, now);
    for (const [deployment, { state, value }] of after) {
      const { metric, threshold } = rule;
      if (state !== (before.get(deployment)?.state ?? 'OK')) changes.push({ metric, deployment, state, value, threshold });
    }
    next.set(rule.metric, new Map([...after].filter(([, { state }]) => state !== 'OK')));
  }
  // Urgent: the alert of a full disk must be stored on a full disk.
  const transact = changes.some(({ state }) => state === 'FIRING') ? inUrgentTransaction : inTransaction;
  if (changes.length > 0) transact(db, (tx) => storeChanges(tx, changes, states));
  for (const [metric, after] of next) states.set(metric, after);
  if (changes.length > 0) bus.wake('alertChanged', '');
}

function storeChanges(tx: Queryable, changes: Omit<AlertEvent, 'seq' | 'at'>[], before: AlertStates): void {
  const at = Date.now();
  for (const change of changes) {
    const { metric, deployment, state, value, threshold } = change;
    tx.delete(alert)
      .where(and(eq(alert.metric, metric), eq(alert.deployment, deployment)))
      .run();
    if (state !== 'OK' && value !== null) tx.insert(alert).values({ metric, deployment, state, since: at, value, threshold }).run();
    tx.insert(alertEvent)
      .values({ ...change, at })
      .run();
    const wasFiring = before.get(metric)?.get(deployment)?.state === 'FIRING';
    if (state !== 'FIRING' && !wasFiring) continue;
    const served = findDeploymentByName(tx, deployment);
    queueDeliveries(tx, 'ALERT_CHANGED', {
      metric,
      state,
      deployment: deployment || null,
      deploymentId: served ? opaqueId('Deployment', served.id) : null,
      value,
      threshold,
      says: sayAlert(change),
    });
  }
  const newest =
    tx
      .select({ seq: max(alertEvent.seq) })
      .from(alertEvent)
      .get()?.seq ?? 0;
  tx.delete(alertEvent)
    .where(lte(alertEvent.seq, newest - eventsMax))
    .run();
}

const readAlertEvents = (db: Queryable, after: number): AlertEvent[] =>
  db.select().from(alertEvent).where(gt(alertEvent.seq, after)).orderBy(asc(alertEvent.seq)).limit(pageRows).all();

/** The events behind `after`, without a gap; with null those from now on. */
export function watchAlerts({ db, bus }: Pick<AlertServices, 'db' | 'bus'>, after: number | null) {
  let seq =
    after ??
    db
      .select({ seq: max(alertEvent.seq) })
      .from(alertEvent)
      .get()?.seq ??
    0;
  return follow<AlertEvent>(
    (wake) => bus.on('alertChanged', '', wake),
    function* () {
      for (let rows = readAlertEvents(db, seq); rows.length > 0; rows = readAlertEvents(db, seq)) {
        for (const row of rows) {
          yield row;
          seq = row.seq;
        }
      }
      return false;
    },
  );
}
