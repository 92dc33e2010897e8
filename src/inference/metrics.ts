/** The host's metrics. Labels are bounded: the loaded models, and the words of `stats.ts`. */
import { type Family, processFamilies, prometheusText, type Sample } from '../prometheus.ts';
import type { Dispatcher } from './dispatcher.ts';
import type { ServedModel } from './models.ts';
import { bounds, outcomes, parts } from './stats.ts';

/** What is true of the host, whatever its models. */
interface HostFigures {
  depth: Dispatcher['depth'];
  bodyBytes: number;
  authRefusals: Record<401 | 403, number>;
  /** Null where the host asks no server. */
  accountsAgeMs: number | null;
}

export function metricsText(models: Iterable<ServedModel>, { depth, bodyBytes, authRefusals, accountsAgeMs }: HostFigures): string {
  const all = [...models].map(({ config, stats }) => ({ stats, labels: `model="${config.name}",version="${config.version}"` }));
  const gauge = (name: string, help: string, value: number): Family => ({ name, type: 'gauge', help, samples: [['', '', value]] });
  return prometheusText([
    gauge('whetstone_inference_queue_requests', 'Requests that wait for dispatch.', depth.queued),
    gauge('whetstone_inference_dispatched_runs', 'Runs that compute or are staged.', depth.dispatched),
    gauge('whetstone_inference_body_bytes', 'Bytes of bodies that arrive or wait, and of answers that are being sent.', bodyBytes),
    ...(accountsAgeMs === null
      ? []
      : [gauge('whetstone_inference_accounts_age_seconds', 'Time since the server last confirmed the accounts.', accountsAgeMs / 1000)]),
    {
      name: 'whetstone_inference_auth_refusals_total',
      type: 'counter',
      help: 'Requests without a valid key or token (401), or with one that is not for this (403).',
      samples: Object.entries(authRefusals).map(([status, count]): Sample => ['', `status="${status}"`, count]),
    },
    {
      name: 'whetstone_inference_requests_total',
      type: 'counter',
      help: 'Requests by how they ended.',
      samples: all.flatMap(({ stats, labels }) =>
        outcomes.map((outcome): Sample => ['', `${labels},outcome="${outcome}"`, stats.ended[outcome]]),
      ),
    },
    {
      name: 'whetstone_inference_runs_total',
      type: 'counter',
      help: 'Runs of the model; one may compute several requests.',
      samples: all.map(({ stats, labels }) => ['', labels, stats.executions]),
    },
    {
      name: 'whetstone_inference_seconds',
      type: 'histogram',
      help: 'Time of answered requests by part.',
      samples: all.flatMap(({ stats, labels }) =>
        parts.flatMap((part) => {
          const { counts, count, sumMs } = stats.parts[part];
          const own = `${labels},part="${part}"`;
          let below = 0;
          const buckets = [...bounds, '+Inf'].map((bound, i): Sample => {
            below += counts[i] as number;
            return ['_bucket', `${own},le="${bound}"`, below];
          });
          return [...buckets, ['_sum', own, sumMs / 1000] as Sample, ['_count', own, count] as Sample];
        }),
      ),
    },
    ...processFamilies(),
  ]);
}
