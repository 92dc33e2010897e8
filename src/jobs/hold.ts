import type { Queryable } from '../db.ts';
import { isInFamily } from './jobs.ts';
import { job } from './tables.ts';

/**
 * Holds a job with all that it has made, or resumes them. What waits does not start; the scheduler suspends what runs. Wake
 * `queueChanged` after the commit.
 */
export function setHeld(tx: Queryable, jobId: string, held: boolean): void {
  tx.update(job).set({ held }).where(isInFamily(jobId)).run();
}
