import { cpus, freemem, loadavg, totalmem } from 'node:os';
import { and, asc, count, eq, gt, inArray, lt, or } from 'drizzle-orm';
import type { Queryable } from '../db.ts';
import { age } from '../jobs/jobs.ts';
import { type Job, job, type Slot, slot } from '../jobs/tables.ts';

export interface Cpu {
  cores: number;
  /** Share of all cores that was busy since the last reading, 0 to 100. */
  utilizationPercent: number;
  loadAverage1m: number;
}

let last = { busy: 0, total: 0 };
let utilizationPercent = 0;

/** The processor's load. Readings within half a second of each other give the same value: the counters have steps of 10 ms. */
export function readCpu(): Cpu {
  const all = cpus();
  let busy = 0;
  let total = 0;
  for (const { times } of all) {
    const sum = times.user + times.nice + times.sys + times.idle + times.irq;
    total += sum;
    busy += sum - times.idle;
  }
  if (total - last.total >= 500 * all.length) {
    utilizationPercent = (100 * (busy - last.busy)) / (total - last.total);
    last = { busy, total };
  }
  return { cores: all.length, utilizationPercent, loadAverage1m: loadavg()[0] ?? 0 };
}

export interface MachineMemory {
  totalBytes: number;
  freeBytes: number;
  serverRssBytes: number;
}

export function readMemory(): MachineMemory {
  return { totalBytes: totalmem(), freeBytes: freemem(), serverRssBytes: process.memoryUsage.rss() };
}

export function readSlots(db: Queryable): Slot[] {
  return db.select().from(slot).orderBy(asc(slot.n)).all();
}

export function countJobs(db: Queryable, ...states: Job['state'][]): number {
  return db.select({ n: count() }).from(job).where(inArray(job.state, states)).get()?.n ?? 0;
}

/** Place of a waiting job in the order of the queue, from 1; null when it does not wait. */
export function queuePosition(db: Queryable, { id, state, priority }: Job): number | null {
  if (state !== 'QUEUED') return null;
  const older = lt(age, db.select({ age }).from(job).where(eq(job.id, id)));
  const before = or(gt(job.priority, priority), and(eq(job.priority, priority), older));
  return (
    1 +
    (db
      .select({ n: count() })
      .from(job)
      .where(and(eq(job.state, 'QUEUED'), before))
      .get()?.n ?? 0)
  );
}
