import { z } from 'zod';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import { inTransaction } from '../db.ts';
import { parseInput, refuse } from '../errors.ts';
import { isInFamily, requireJob } from './jobs.ts';
import type { JobServices } from './kinds.ts';
import { isFinal } from './states.ts';
import { type Job, job } from './tables.ts';

/** Higher starts first. */
export const JobPriority = z.int().min(-100).max(100);

/** Moves a job that has not ended within the queue, with all that it has made and will make. */
export function setJobPriority({ db, bus }: Pick<JobServices, 'db' | 'bus'>, actor: Actor, id: string, raw: unknown): Job {
  const { priority } = parseInput(z.object({ priority: JobPriority }), raw);
  const changed = inTransaction(db, (tx) => {
    const before = requireJob(tx, id);
    if (isFinal(before.state)) refuse('INVALID', 'jobId', `The job has ended already: it is ${before.state}.`);
    tx.update(job).set({ priority }).where(isInFamily(id)).run();
    writeAudit(tx, actor, { action: 'setJobPriority', target: { type: 'Job', id }, detail: { from: before.priority, to: priority } });
    return requireJob(tx, id);
  });
  bus.wake('jobChanged', id);
  bus.wake('queueChanged', '');
  return changed;
}
