/** The rules of alerts, one for each metric: how it is measured, and what is allowed unless an administrator says otherwise. */
import { z } from 'zod';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import { type Db, inTransaction, type Queryable } from '../db.ts';
import { parseInput, refuse } from '../errors.ts';
import { deadlineSteps } from '../inference/stats.ts';
import type { DeploymentReading, ServerReading } from './readings.ts';
import { type AlertMetric, alertMetrics, alertRule } from './tables.ts';

/** Requests of the last minutes below which shares and percentiles mean nothing. */
const requestsMin = 20;

/** What is measured, by the name of the deployment, or '' for the whole server. Nothing is where there is nothing to measure. */
type Values = ReadonlyMap<string, number>;

interface Definition {
  threshold: number;
  /** Largest threshold. */
  thresholdMax: number;
  durationSeconds: number;
  /** Whether it is the smaller values that are bad. */
  below?: true;
  /** `readings`: those of the last minutes, the oldest first. */
  values(readings: readonly ServerReading[]): Values;
  /** What is measured, in words. */
  says(value: number): string;
}

const ofServer = (value: number | undefined): Values => new Map(value === undefined ? [] : [['', value]]);
const digits = (value: number): string => String(Math.round(value * 10) / 10);
const minutes = (seconds: number): string => `${Math.round(seconds / 60)} minutes`;

const definitions: Record<AlertMetric, Definition> = {
  QUEUE_WAIT: {
    threshold: 4 * 3600,
    thresholdMax: 365 * 86_400,
    durationSeconds: 60,
    values: (readings) => ofServer(readings.at(-1)?.queueWaitSeconds),
    says: (value) => `a job has waited for ${minutes(value)}`,
  },
  FAILED_JOBS: {
    threshold: 2,
    thresholdMax: 1_000_000,
    durationSeconds: 0,
    values: (readings) => ofServer(readings.at(-1)?.failedJobs),
    says: (value) => `${value} jobs failed within an hour`,
  },
  DISK_FREE: {
    threshold: 5,
    thresholdMax: 100,
    durationSeconds: 60,
    below: true,
    values: (readings) => ofServer(readings.at(-1)?.diskFreePercent),
    says: (value) => `${digits(value)} % of the disk are free`,
  },
  HOST_RESTARTS: {
    threshold: 2,
    thresholdMax: 1_000_000,
    durationSeconds: 0,
    values: (readings) => ofServer((readings.at(-1)?.hostRestarts ?? 0) - (readings[0]?.hostRestarts ?? 0)),
    says: (value) => `the inference host was restarted ${value} times within 5 minutes`,
  },
  FAILED_BACKUPS: {
    threshold: 0,
    thresholdMax: 1_000_000,
    durationSeconds: 0,
    values: (readings) => ofServer(readings.at(-1)?.failedBackups),
    says: (value) =>
      `${value === 1 ? 'the last backup has' : `the last ${value} backups have`} failed or found damaged files: system.backups.problem says what to do`,
  },
  LATENCY: {
    threshold: 90,
    thresholdMax: 100,
    durationSeconds: 120,
    values: (readings) => ofDeployments(readings, p95Percent),
    says: (value) => (value > 100 ? 'the P95 latency is over the deadline' : `the P95 latency is ${digits(value)} % of the deadline`),
  },
  ERRORS: {
    threshold: 5,
    thresholdMax: 100,
    durationSeconds: 120,
    values: (readings) => ofDeployments(readings, ({ answered, unanswered }) => (100 * unanswered) / (answered + unanswered)),
    says: (value) => `${digits(value)} % of the requests got no answer`,
  },
};

/** `measure` of the requests of each deployment between the first and the last reading. */
function ofDeployments(readings: readonly ServerReading[], measure: (counts: DeploymentReading) => number): Values {
  const [first, last] = [readings[0], readings.at(-1)];
  const counts = new Map<string, DeploymentReading>();
  for (const now of last?.deployments ?? []) {
    // A host that was started again counts from 0, and so does a revision that is new.
    const isSame = (one: DeploymentReading) => one.name === now.name && one.revision === now.revision;
    const before = first?.hostRestarts === last?.hostRestarts ? first?.deployments.find(isSame) : undefined;
    const sum = counts.get(now.name);
    counts.set(now.name, {
      ...now,
      answered: (sum?.answered ?? 0) + now.answered - (before?.answered ?? 0),
      unanswered: (sum?.unanswered ?? 0) + now.unanswered - (before?.unanswered ?? 0),
      late: (sum?.late ?? 0) + now.late - (before?.late ?? 0),
      deadlineShares: now.deadlineShares.map((n, i) => (sum?.deadlineShares[i] ?? 0) + n - (before?.deadlineShares[i] ?? 0)),
    });
  }
  return new Map(
    [...counts].filter(([, { answered, unanswered }]) => answered + unanswered >= requestsMin).map(([name, one]) => [name, measure(one)]),
  );
}

/** Upper end of the step in which the P95 lies, in percent of the deadline; over 100 where it is behind it. */
function p95Percent({ answered, late, deadlineShares }: DeploymentReading): number {
  const rank = 0.95 * (answered + late);
  let sum = 0;
  for (const [step, n] of deadlineShares.entries()) {
    sum += n;
    if (sum >= rank) return (100 * (step + 1)) / deadlineSteps;
  }
  return 100 + 100 / deadlineSteps;
}

export interface AlertRule extends Definition {
  metric: AlertMetric;
  enabled: boolean;
}

/** All rules, with what an administrator changed. */
export function alertRules(db: Queryable): AlertRule[] {
  const changed = new Map(
    db
      .select()
      .from(alertRule)
      .all()
      .map((row) => [row.metric, row]),
  );
  return alertMetrics.map((metric) => ({ ...definitions[metric], enabled: true, metric, ...changed.get(metric) }));
}

/** What an alert says, such as: fruit: 7.2 % of the requests got no answer (more than 5). */
export function sayAlert(of: { metric: AlertMetric; deployment: string; value: number | null; threshold: number }): string {
  const { metric, deployment, value, threshold } = of;
  const { says, below } = definitions[metric];
  const limit = metric === 'QUEUE_WAIT' ? minutes(threshold) : digits(threshold);
  const what = value === null ? 'nothing is measured any more' : `${says(value)} (limit: ${below ? 'at least' : 'at most'} ${limit})`;
  return deployment === '' ? `${what.charAt(0).toUpperCase()}${what.slice(1)}` : `${deployment}: ${what}`;
}

const UpdateAlertRuleInput = z.object({
  metric: z.enum(alertMetrics),
  threshold: z.number().min(0).nullish(),
  durationSeconds: z.int().min(0).max(86_400).nullish(),
  enabled: z.boolean().nullish(),
});

/** What is left out stays as it is. */
export function updateAlertRule({ db }: { db: Db }, actor: Actor, raw: unknown): AlertRule {
  const { metric, threshold, durationSeconds, enabled } = parseInput(UpdateAlertRuleInput, raw);
  return inTransaction(db, (tx) => {
    const before = alertRules(tx).find((rule) => rule.metric === metric) as AlertRule;
    if (threshold && threshold > before.thresholdMax)
      refuse('INVALID', 'threshold', `The threshold of ${metric} is at most ${before.thresholdMax}; it is ${threshold}.`);
    const values = {
      threshold: threshold ?? before.threshold,
      durationSeconds: durationSeconds ?? before.durationSeconds,
      enabled: enabled ?? before.enabled,
    };
    tx.insert(alertRule)
      .values({ metric, ...values })
      .onConflictDoUpdate({ target: alertRule.metric, set: values })
      .run();
    writeAudit(tx, actor, { action: 'updateAlertRule', detail: { metric, ...values } });
    return { ...before, ...values };
  });
}
