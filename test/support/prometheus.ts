/** What dashboards and alerts ask of Prometheus. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

const deploy = join(import.meta.dirname, '..', '..', 'deploy');
const read = (name: string): string => readFileSync(join(deploy, name), 'utf8');

/** Every query of the dashboard and every condition of the alerts, as Prometheus gets it. */
export function expressions(): string[] {
  const { panels } = JSON.parse(read('grafana/whetstone.json')) as { panels: { targets?: { expr: string }[] }[] };
  const { groups } = parse(read('prometheus/alerts.yml')) as { groups: { rules: { expr: string }[] }[] };
  const queries = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr.replaceAll('$__rate_interval', '1m')));
  return [...queries, ...groups.flatMap(({ rules }) => rules.map(({ expr }) => expr))];
}

/** The metrics in an expression, and the labels by which it selects or groups them. */
export function askedFor(expression: string): { metrics: string[]; labels: string[] } {
  const labels: string[] = [];
  const rest = expression.replace(/"[^"]*"|\[[^\]]*\]/g, '').replace(/\{([^}]*)\}|\bby \(([^)]*)\)/g, (_, selected = '', grouped = '') => {
    labels.push(...`${selected},${grouped}`.split(/[=!~,\s]+/).filter(Boolean));
    return '';
  });
  const metrics = [...rest.matchAll(/(?<![\w.])[a-z_][a-z0-9_]*(?!\w)(?!\s*\()/g)].map(([name]) => name);
  return { metrics: [...new Set(metrics)], labels };
}

/** The samples of a text in Prometheus' format: their names, each with the labels that it has. A metric without a sample has none. */
export function samplesOf(text: string): Map<string, Set<string>> {
  const samples = new Map<string, Set<string>>();
  for (const line of text.split('\n')) {
    const name = /^# TYPE (\S+)/.exec(line)?.[1];
    const [, sample, labels = ''] = /^(\w+)(?:\{(.*)\})? \S+$/.exec(line) ?? [];
    const known = samples.get(name ?? sample ?? '') ?? new Set();
    for (const [, label] of labels.matchAll(/(\w+)="(?:[^"\\]|\\.)*"/g)) known.add(label as string);
    if (name ?? sample) samples.set((name ?? sample) as string, known);
  }
  return samples;
}
