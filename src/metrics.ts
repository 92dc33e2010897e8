import { count } from 'drizzle-orm';
import type { Services } from './graphql/context.ts';
import { jobStates, slot } from './jobs/tables.ts';
import { processFamilies, prometheusText } from './prometheus.ts';
import { countJobs } from './system/system.ts';

/** The server's metrics in Prometheus' text format; the inference host has its own. */
export function serverMetrics({ db, supervisor }: Pick<Services, 'db' | 'supervisor'>): string {
  const slots = db
    .select({ all: count(), used: count(slot.jobId) })
    .from(slot)
    .get() ?? { all: 0, used: 0 };
  return prometheusText([
    {
      name: 'whetstone_jobs',
      type: 'gauge',
      help: 'Jobs by state.',
      samples: jobStates.map((state) => ['', `state="${state}"`, countJobs(db, state)]),
    },
    { name: 'whetstone_slots', type: 'gauge', help: 'Slots for jobs.', samples: [['', '', slots.all]] },
    { name: 'whetstone_slots_used', type: 'gauge', help: 'Slots that a job holds.', samples: [['', '', slots.used]] },
    {
      name: 'whetstone_inference_host_restarts_total',
      type: 'counter',
      help: 'Deaths of the inference host since the start of the server.',
      samples: [['', '', supervisor.health().restarts]],
    },
    ...processFamilies(),
  ]);
}
