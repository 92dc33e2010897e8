import { count } from 'drizzle-orm';
import { Counter, Gauge, Registry } from 'prom-client';
import type { Services } from './graphql/context.ts';
import { countRegressions } from './history/regressions.ts';
import { regressionMetrics } from './history/tables.ts';
import { jobStates, slot } from './jobs/tables.ts';
import { addProcessMetrics } from './processMetrics.ts';
import { countJobs } from './system/system.ts';

/** The server's metrics, read when they are asked for; the inference host has its own. */
export function createServerMetrics({ db, supervisor }: Pick<Services, 'db' | 'supervisor'>): Registry {
  const registry = new Registry();
  const registers = [registry];
  new Gauge({
    name: 'whetstone_jobs',
    help: 'Jobs by state.',
    labelNames: ['state'],
    registers,
    collect() {
      for (const state of jobStates) this.set({ state }, countJobs(db, state));
    },
  });
  new Gauge({
    name: 'whetstone_slots',
    help: 'Slots for jobs.',
    registers,
    collect() {
      this.set(db.select({ n: count() }).from(slot).get()?.n ?? 0);
    },
  });
  new Gauge({
    name: 'whetstone_slots_used',
    help: 'Slots that a job holds.',
    registers,
    collect() {
      this.set(
        db
          .select({ n: count(slot.jobId) })
          .from(slot)
          .get()?.n ?? 0,
      );
    },
  });
  new Counter({
    name: 'whetstone_inference_host_restarts_total',
    help: 'Deaths of the inference host since the start of the server.',
    registers,
    collect() {
      this.reset();
      this.inc(supervisor.health().restarts);
    },
  });
  new Counter({
    name: 'whetstone_regressions_total',
    help: 'Model versions that were found to be worse than an earlier one, by what they are worse in.',
    labelNames: ['metric'],
    registers,
    collect() {
      this.reset();
      for (const metric of regressionMetrics) this.inc({ metric }, countRegressions(db, metric));
    },
  });
  addProcessMetrics(registry);
  return registry;
}
