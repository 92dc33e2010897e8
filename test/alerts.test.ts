import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { type AlertState, evaluate, nextState } from '../src/alerts/evaluate.ts';
import type { DeploymentReading, ServerReading } from '../src/alerts/readings.ts';
import { type AlertRule, alertRules } from '../src/alerts/rules.ts';
import type { AlertMetric } from '../src/alerts/tables.ts';
import { applyReadings, listAlerts, storedStates, watchAlerts } from '../src/alerts/watch.ts';
import { createBus } from '../src/bus.ts';
import { openDatabase } from '../src/db.ts';
import { ModelStats, summaryOf } from '../src/inference/stats.ts';
import { createWebhook, listDeliveries } from '../src/webhooks/webhooks.ts';
import { nextAnswer, withEvents } from './support/events.ts';
import { nobody } from './support/jobs.ts';
import { adminName, withFolder, withServer } from './support/server.ts';
import { logIn, withTui } from './support/tui.ts';

const limit = { enabled: true, threshold: 10, durationSeconds: 60 };
const ok: AlertState = { state: 'OK', exceededAt: 0 };
const pending: AlertState = { state: 'PENDING', exceededAt: 1000 };
const firing: AlertState = { state: 'FIRING', exceededAt: 1000 };

describe('the next state of an alert', () => {
  test.each<[string, object, number | null, AlertState, number, AlertState['state']]>([
    ['stays OK at its limit', {}, 10, ok, 5000, 'OK'],
    ['is PENDING beyond it', {}, 10.1, ok, 5000, 'PENDING'],
    ['is PENDING until the duration is over', {}, 11, pending, 60_999, 'PENDING'],
    ['is FIRING from then on', {}, 11, pending, 61_000, 'FIRING'],
    ['is FIRING at once without a duration', { durationSeconds: 0 }, 11, ok, 5000, 'FIRING'],
    ['is OK when the limit is kept again', {}, 10, pending, 5000, 'OK'],
    ['is OK after FIRING too', {}, 10, firing, 500_000, 'OK'],
    ['stays FIRING when the duration is made longer', { durationSeconds: 600 }, 11, firing, 62_000, 'FIRING'],
    ['is OK when nothing is measured', {}, null, firing, 500_000, 'OK'],
    ['is OK when the rule is disabled', { enabled: false }, 11, firing, 500_000, 'OK'],
    ['is bad below the limit where less is worse', { below: true }, 9, ok, 5000, 'PENDING'],
    ['is good above it then', { below: true }, 11, pending, 5000, 'OK'],
  ])('%s', (_what, rule, value, before, now, state) => {
    expect(nextState({ ...limit, ...rule }, value, before, now).state).toBe(state);
  });

  test('fires exactly when every value of the whole duration was beyond the limit', () => {
    const steps = fc.array(fc.record({ ms: fc.integer({ min: 1, max: 40_000 }), value: fc.constantFrom(null, 5, 15) }), { maxLength: 60 });
    fc.assert(
      fc.property(steps, (all) => {
        let [now, state] = [0, ok];
        let exceededSince: number | null = null;
        for (const { ms, value } of all) {
          now += ms;
          state = nextState(limit, value, state, now);
          exceededSince = value === 15 ? (exceededSince ?? now) : null;
          const expected = exceededSince === null ? 'OK' : now - exceededSince >= 60_000 ? 'FIRING' : 'PENDING';
          expect(state.state).toBe(expected);
        }
      }),
    );
  });
});

const good: ServerReading = {
  at: 0,
  queueWaitSeconds: 0,
  failedJobs: 0,
  diskFreePercent: 50,
  hostRestarts: 0,
  failedBackups: undefined,
  deployments: [],
};

/** What a host says of `n` answered requests that each took so many milliseconds of a deadline of 100. */
function deploymentOf(times: number[], ended: { refused?: number; expired?: number; failed?: number } = {}): DeploymentReading {
  const stats = new ModelStats(100, { part: () => {}, request: () => {} });
  for (const ms of times) stats.answered(1, { queueMs: 0, preprocessingMs: 0, computeMs: ms, postprocessingMs: 0 }, ms);
  const { refused = 0, expired = 0, failed = 0 } = ended;
  const { ok: answered, deadlineShares } = summaryOf(stats);
  return {
    name: 'fruit',
    revision: 1,
    answered,
    unanswered: refused + expired + failed,
    late: expired,
    deadlineShares: [...deadlineShares],
  };
}

describe('what is measured', () => {
  let rules: AlertRule[] = [];
  beforeAll(() =>
    withFolder(async (folder) => {
      const { db, close } = openDatabase(folder);
      rules = alertRules(db);
      close();
    }),
  );
  const measured = (metric: AlertMetric, ...readings: Partial<ServerReading>[]): number | null => {
    const all = readings.map((reading) => ({ ...good, ...reading }));
    const rule = rules.find((one) => one.metric === metric) as AlertRule;
    return [...evaluate(rule, all, new Map(), 0).values()][0]?.value ?? null;
  };
  const times = (n: number, ms: number) => Array<number>(n).fill(ms);

  test('by the limits and durations that the document names', () => {
    const text = readFileSync(join(import.meta.dirname, '..', 'docs', 'webhooks.md'), 'utf8');
    const documented = [...text.matchAll(/^\| `([A-Z_]+)` \| .* \| (\d+) \| (?:at once|(\d+) s) \|$/gm)];
    expect(documented.map(([, metric, threshold, seconds]) => [metric, Number(threshold), Number(seconds ?? 0)])).toEqual(
      rules.map(({ metric, threshold, durationSeconds }) => [metric, threshold, durationSeconds]),
    );
  });

  test.each<[string, AlertMetric, Partial<ServerReading>[], number | null]>([
    ['the wait of the oldest job', 'QUEUE_WAIT', [{ queueWaitSeconds: 7 }], 7],
    ['failed jobs', 'FAILED_JOBS', [{ failedJobs: 3 }], 3],
    ['the free part of the disk', 'DISK_FREE', [{ diskFreePercent: 4.5 }], 4.5],
    ['restarts since the first reading', 'HOST_RESTARTS', [{ hostRestarts: 4 }, {}, { hostRestarts: 7 }], 3],
    ['failed backups', 'FAILED_BACKUPS', [{ failedBackups: 2 }], 2],
    ['nothing where the server makes no backups', 'FAILED_BACKUPS', [{}], null],
    ['no errors of fewer than 20 requests', 'ERRORS', [{}, { deployments: [deploymentOf(times(18, 1), { failed: 1 })] }], null],
    ['the share of errors', 'ERRORS', [{}, { deployments: [deploymentOf(times(30, 1), { refused: 5, expired: 4, failed: 1 })] }], 25],
    [
      'the share of errors since the first reading',
      'ERRORS',
      [{ deployments: [deploymentOf(times(10, 1), { failed: 90 })] }, { deployments: [deploymentOf(times(40, 1), { failed: 100 })] }],
      25,
    ],
    [
      'all that a host counts which was started again',
      'ERRORS',
      [{ deployments: [deploymentOf(times(10, 1))] }, { hostRestarts: 1, deployments: [deploymentOf(times(30, 1), { failed: 10 })] }],
      25,
    ],
    ['nothing at the first reading', 'ERRORS', [{ deployments: [deploymentOf(times(30, 1), { failed: 10 })] }], null],
    ['the P95 against the deadline', 'LATENCY', [{}, { deployments: [deploymentOf([...times(95, 42), ...times(5, 99)])] }], 45],
    ['the P95 with one more slow one', 'LATENCY', [{}, { deployments: [deploymentOf([...times(94, 42), ...times(6, 99)])] }], 100],
    ['a P95 among those that were late', 'LATENCY', [{}, { deployments: [deploymentOf(times(94, 42), { expired: 6 })] }], 105],
    [
      'revisions of a deployment together',
      'ERRORS',
      [{}, { deployments: [deploymentOf(times(30, 1)), { ...deploymentOf([], { failed: 10 }), revision: 2 }] }],
      25,
    ],
  ])('%s', (_what, metric, readings, value) => {
    expect(measured(metric, ...readings)).toBe(value);
  });
});

test('an alert is stored with its events, told to webhooks when it fires and when it is over, and outlives a restart', () =>
  withFolder(async (folder) => {
    const { db, close } = openDatabase(folder);
    const services = { db, bus: createBus(), config: { webhookAddresses: [] } };
    const { row } = createWebhook(services, nobody, { url: 'https://lab.example/', events: ['ALERT_CHANGED'] });
    const told = () => listDeliveries(db, row.id, null, 10, null).map(({ body }) => JSON.parse(body).data);
    const readings = (...all: Partial<ServerReading>[]) => all.map((reading) => ({ ...good, ...reading }));
    const states = storedStates(db);

    applyReadings(services, readings({ at: 0, diskFreePercent: 4 }), states);
    expect(listAlerts(db)).toMatchObject([{ metric: 'DISK_FREE', deployment: '', state: 'PENDING', value: 4, threshold: 5 }]);
    expect(told()).toEqual([]);
    applyReadings(services, readings({ at: 60_000, diskFreePercent: 3 }), states);
    expect(listAlerts(db)).toMatchObject([{ metric: 'DISK_FREE', state: 'FIRING', value: 3 }]);
    const facts = { metric: 'DISK_FREE', deployment: null, deploymentId: null, threshold: 5 };
    const says = '3 % of the disk are free (limit: at least 5)';
    expect(told()).toEqual([{ ...facts, state: 'FIRING', value: 3, says }]);

    const afterRestart = storedStates(db);
    applyReadings(services, readings({ at: 1000, diskFreePercent: 3 }), afterRestart);
    expect(told()).toHaveLength(1);
    applyReadings(services, readings({ at: 3000, diskFreePercent: 6 }), afterRestart);
    expect(listAlerts(db)).toEqual([]);
    expect(told()[0]).toMatchObject({ ...facts, state: 'OK', value: 6 });

    const seen: [number, string][] = [];
    for await (const { seq, state } of watchAlerts(services, 1)) if (seen.push([seq, state]) === 2) break;
    expect(seen).toEqual([
      [2, 'FIRING'],
      [3, 'OK'],
    ]);
    close();
  }));

test('an alert that fires is in the API, in a subscription without a gap, and in the overview of the terminal UI', () =>
  withServer(async (server) => {
    const token = await server.admin();
    const update = `mutation ($i: UpdateAlertRuleInput!) {
      updateAlertRule(input: $i) { alertRule { threshold durationSeconds enabled } userErrors { message } } }`;
    const change = async (input: object) =>
      (await server.graphql(update, { i: { metric: 'DISK_FREE', ...input } }, token)).data.updateAlertRule;
    expect((await change({ threshold: 101 })).userErrors).toMatchObject([
      { message: 'The threshold of DISK_FREE is at most 100; it is 101.' },
    ]);
    const follow = 'subscription { alertEvents(after: 0) { seq metric state says deployment { id } } }';
    await withEvents(server.url, follow, token, async (items) => {
      expect((await change({ threshold: 100, durationSeconds: 0 })).alertRule).toEqual({
        threshold: 100,
        durationSeconds: 0,
        enabled: true,
      });
      const { data } = await nextAnswer(items);
      expect(data.alertEvents).toEqual({
        seq: 1,
        metric: 'DISK_FREE',
        state: 'FIRING',
        says: expect.stringMatching(/^\d+(\.\d)? % of the disk are free \(limit: at least 100\)$/),
        deployment: null,
      });
      const alerts = (await server.graphql('{ alerts { metric state since deploymentName } }', {}, token)).data.alerts;
      expect(alerts).toMatchObject([{ metric: 'DISK_FREE', state: 'FIRING', deploymentName: null }]);
      await withTui(server.url, async (tui) => {
        await logIn(tui);
        await tui.shows(/! Alert for .*: \d+(\.\d)? % of the disk are free/);
      });
      await change({ enabled: false });
      expect((await nextAnswer(items)).data.alertEvents).toMatchObject({ seq: 2, state: 'OK' });
    });
    const rules = (await server.graphql('{ alertRules { metric threshold enabled } }', {}, token)).data.alertRules;
    expect(rules).toContainEqual({ metric: 'DISK_FREE', threshold: 100, enabled: false });
    const audit = (await server.graphql('{ auditLog(first: 1) { nodes { action actor { name } detail } } }', {}, token)).data.auditLog;
    const detail = { metric: 'DISK_FREE', threshold: 100, durationSeconds: 0, enabled: false };
    expect(audit.nodes).toEqual([{ action: 'updateAlertRule', actor: { name: adminName }, detail }]);
  }));
