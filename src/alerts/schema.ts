import { findDeploymentByName } from '../deployments/deployments.ts';
import { DeploymentType } from '../deployments/schema.ts';
import { builder, enumValues, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import { type AlertRule, alertRules, sayAlert, updateAlertRule } from './rules.ts';
import { type Alert, type AlertEvent, type AlertMetric, type AlertStateName, alertMetrics } from './tables.ts';
import { listAlerts, watchAlerts } from './watch.ts';

const MetricType = builder.enumType('AlertMetric', {
  description: 'What a rule measures. LATENCY and ERRORS are measured for each deployment, over 5 minutes, from 20 requests on.',
  values: enumValues<AlertMetric>({
    QUEUE_WAIT: 'Seconds that the oldest job has waited, of those that were never started and are not held.',
    FAILED_JOBS: 'Jobs that FAILED within the last hour.',
    DISK_FREE: 'Percent of the disk of the data folder that are free. It is bad when it is less than the threshold.',
    HOST_RESTARTS: 'Deaths of the inference host within 5 minutes.',
    FAILED_BACKUPS:
      'Backups that have failed, or have found damaged files of the data folder, since the last one that did neither; where the server makes them.',
    LATENCY:
      'The P95 of the times of requests, late ones included, in percent of the deadline of the deployment: in steps of 5, and 105 when it is over.',
    ERRORS: 'Percent of the requests that were refused, late or failed.',
  }),
});

const StateType = builder.enumType('AlertState', {
  description: 'Where an alert stands.',
  values: enumValues<AlertStateName>({
    OK: 'The limit is kept, or nothing is measured.',
    PENDING: 'The limit is exceeded, but not yet for the duration of the rule.',
    FIRING: 'The limit has been exceeded for the duration of the rule.',
  }),
});

const RuleType = builder.objectRef<AlertRule>('AlertRule').implement({
  description: 'When an alert fires. There is one rule for each metric.',
  fields: (t) => ({
    metric: t.expose('metric', { type: MetricType, description: 'What is measured.' }),
    threshold: t.exposeFloat('threshold', {
      description: 'The limit, in the unit of the metric. DISK_FREE is to be at least this, others at most.',
    }),
    durationSeconds: t.exposeInt('durationSeconds', { description: 'For how long the limit must be exceeded.' }),
    enabled: t.exposeBoolean('enabled', { description: 'Whether it is evaluated.' }),
  }),
});

const AlertInterface = builder
  .interfaceRef<Pick<AlertEvent, 'metric' | 'deployment' | 'state' | 'value' | 'threshold'>>('AlertFacts')
  .implement({
    description: 'An alert in a state.',
    fields: (t) => ({
      metric: t.expose('metric', { type: MetricType, description: 'Of the rule.' }),
      deploymentName: t.string({
        nullable: true,
        description: 'The deployment that it is about; null when it is about the server.',
        resolve: (a) => a.deployment || null,
      }),
      deployment: t.field({
        type: DeploymentType,
        nullable: true,
        description: 'The same; null also when it was removed.',
        resolve: (a, _args, { db }) => (a.deployment ? findDeploymentByName(db, a.deployment) : null),
      }),
      state: t.expose('state', { type: StateType, description: 'The state.' }),
      value: t.exposeFloat('value', {
        nullable: true,
        description: 'What was measured when it got into this state; null when nothing was.',
      }),
      threshold: t.exposeFloat('threshold', { description: 'The limit at that moment.' }),
      says: t.string({ description: 'All that in words.', resolve: (a) => sayAlert(a) }),
    }),
  });

const AlertType = builder.objectRef<Alert>('Alert').implement({
  description: 'An alert that is PENDING or FIRING.',
  interfaces: [AlertInterface],
  fields: (t) => ({
    since: t.expose('since', { type: 'DateTime', description: 'When it got into this state.' }),
  }),
});

const EventType = builder.objectRef<AlertEvent>('AlertEvent').implement({
  description: 'A change of the state of an alert.',
  interfaces: [AlertInterface],
  fields: (t) => ({
    seq: t.expose('seq', { type: 'SafeInt', description: 'Number of the event, growing.' }),
    at: t.expose('at', { type: 'DateTime', description: 'When.' }),
  }),
});

builder.queryFields((t) => ({
  alerts: t.field({
    type: [AlertType],
    description: 'The alerts that are PENDING or FIRING, oldest first.',
    authScopes: { can: 'READ' },
    extensions: { size: 5 },
    resolve: (_root, _args, { db }) => listAlerts(db),
  }),
  alertRules: t.field({
    type: [RuleType],
    description: 'All rules.',
    authScopes: { can: 'READ' },
    extensions: { size: alertMetrics.length },
    resolve: (_root, _args, { db }) => alertRules(db),
  }),
}));

builder.subscriptionField('alertEvents', (t) =>
  t.field({
    type: EventType,
    description: 'Changes of alerts, without a gap; the last 10,000 are kept.',
    authScopes: { can: 'READ' },
    args: {
      after: t.arg({
        type: 'SafeInt',
        description: 'Seq of the last event that the client knows. Null: from now on. 0: all that are kept.',
      }),
    },
    subscribe: (_root, { after }, context) => watchAlerts(context, after ?? null),
    resolve: (event) => event as AlertEvent,
  }),
);

builder.relayMutationField(
  'updateAlertRule',
  {
    inputFields: (t) => ({
      metric: t.field({ type: MetricType, required: true, description: 'Which rule.' }),
      threshold: t.float({ description: 'The new limit.' }),
      durationSeconds: t.int({ description: 'For how long it must be exceeded, at most a day.' }),
      enabled: t.boolean({ description: 'False: it is not evaluated, and its alerts are OK.' }),
    }),
  },
  {
    description: 'Changes a rule within seconds; what is left out stays as it is.',
    authScopes: { can: 'CONFIGURE' },
    resolve: (_root, { input }, context) => payload(() => updateAlertRule(context, context.actor, input)),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<AlertRule>) => ({
      alertRule: t.field({ type: RuleType, nullable: true, description: 'The rule as it is now.', resolve: (p) => p.result }),
    }),
  },
);
