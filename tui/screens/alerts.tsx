/** Rules of alerts, each with the alerts that are PENDING or FIRING for it. */
import { useState } from 'react';
import { graphql, type ResultOf } from '../graphql.ts';
import { useData } from '../session/live.tsx';
import { age, number } from '../ui/format.ts';
import { Behind, List } from '../ui/List.tsx';
import { useFrame } from '../ui/nav.tsx';
import { theme } from '../ui/theme.ts';
import { ActionForm } from './actionForm.tsx';

export const AlertsQuery = graphql(`
  query TuiAlerts {
    alertRules { metric threshold durationSeconds enabled }
    alerts { metric deploymentName state since says }
  }
`);

type Data = ResultOf<typeof AlertsQuery>;
type Rule = Data['alertRules'][number];

interface Row {
  rule: Rule;
  alert: Data['alerts'][number] | null;
}

/** A rule that is measured for each deployment may have several alerts: each is a row. */
const rowsOf = ({ alertRules, alerts }: Data): Row[] =>
  alertRules.flatMap((rule): Row[] => {
    const own = alerts.filter(({ metric }) => metric === rule.metric);
    return own.length === 0 ? [{ rule, alert: null }] : own.map((alert) => ({ rule, alert }));
  });

const stateOf = ({ rule, alert }: Row): string => (alert ? `! ${alert.state}` : rule.enabled ? '✓ OK' : '○ off');

const colorOf = ({ rule, alert }: Row): string | undefined =>
  alert ? (alert.state === 'FIRING' ? theme.bad : theme.warn) : rule.enabled ? theme.good : theme.muted;

export function Alerts() {
  const { width, height } = useFrame();
  const { data, again } = useData(AlertsQuery, {}, 5000);
  const [changed, setChanged] = useState<Rule | null>(null);
  const front = changed && (
    <ActionForm
      title={`Change the rule ${changed.metric}`}
      submitLabel="change"
      action="updateAlertRule"
      type="UpdateAlertRuleInput"
      about={{
        metric: null,
        threshold: { initial: String(changed.threshold) },
        durationSeconds: { initial: String(changed.durationSeconds) },
        enabled: { initial: String(changed.enabled) },
      }}
      fixed={{ metric: changed.metric }}
      width={width}
      height={height}
      onCancel={() => setChanged(null)}
      onDone={() => {
        setChanged(null);
        again();
      }}
    />
  );
  return (
    <Behind front={front}>
      <List
        rows={data ? rowsOf(data) : []}
        isActive={!front}
        keyOf={({ rule, alert }) => `${rule.metric} ${alert?.deploymentName ?? ''}`}
        width={width}
        height={height}
        empty="Reading …"
        keys={({ rule }) => [{ keys: 'e', label: 'change the rule', does: 'updateAlertRule', hint: true, run: () => setChanged(rule) }]}
        columns={[
          { title: 'Metric', width: 14, text: ({ rule }) => rule.metric },
          { title: 'State', width: 10, text: stateOf, color: colorOf },
          { title: 'Limit', width: 8, align: 'right', text: ({ rule }) => number(rule.threshold) },
          { title: 'For', width: 7, align: 'right', text: ({ rule }) => `${rule.durationSeconds} s` },
          { title: 'Since', width: 7, from: 70, text: ({ alert }) => age(alert?.since) },
          { title: 'Alert', text: ({ alert }) => alert?.says ?? '' },
        ]}
      />
    </Behind>
  );
}
