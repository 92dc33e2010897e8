/** Prometheus' text format (version 0.0.4). Labels are bounded: the loaded models, and the words of `stats.ts`. */
import type { Dispatcher } from './dispatcher.ts';
import type { ServedModel } from './models.ts';
import { bounds, outcomes, parts } from './stats.ts';

export function metricsText(models: Iterable<ServedModel>, depth: Dispatcher['depth'], bodyBytes: number): string {
  const lines: string[] = [];
  function family(
    name: string,
    type: 'counter' | 'gauge' | 'histogram',
    help: string,
    samples: [suffix: string, labels: string, value: number][],
  ) {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    for (const [suffix, labels, value] of samples) lines.push(`${name}${suffix}${labels && `{${labels}}`} ${value}`);
  }
  const all = [...models].map(({ config, stats }) => ({ stats, labels: `model="${config.name}",version="${config.version}"` }));
  family('whetstone_inference_queue_requests', 'gauge', 'Requests that wait for dispatch.', [['', '', depth.queued]]);
  family('whetstone_inference_dispatched_runs', 'gauge', 'Runs that compute or are staged.', [['', '', depth.dispatched]]);
  family('whetstone_inference_body_bytes', 'gauge', 'Bytes of bodies that arrive or wait for an answer.', [['', '', bodyBytes]]);
  family(
    'whetstone_inference_requests_total',
    'counter',
    'Requests by how they ended.',
    all.flatMap(({ stats, labels }) =>
      outcomes.map((outcome) => ['', `${labels},outcome="${outcome}"`, stats.ended[outcome]] as [string, string, number]),
    ),
  );
  family(
    'whetstone_inference_runs_total',
    'counter',
    'Runs of the model; one may compute several requests.',
    all.map(({ stats, labels }) => ['', labels, stats.executions]),
  );
  family(
    'whetstone_inference_seconds',
    'histogram',
    'Time of answered requests by part.',
    all.flatMap(({ stats, labels }) =>
      parts.flatMap((part) => {
        const { counts, count, sumMs } = stats.parts[part];
        const own = `${labels},part="${part}"`;
        let below = 0;
        const buckets = [...bounds, '+Inf'].map((bound, i): [string, string, number] => {
          below += counts[i] as number;
          return ['_bucket', `${own},le="${bound}"`, below];
        });
        return [...buckets, ['_sum', own, sumMs / 1000] as [string, string, number], ['_count', own, count] as [string, string, number]];
      }),
    ),
  );
  return `${lines.join('\n')}\n`;
}
