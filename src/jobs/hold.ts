import { sql } from 'drizzle-orm';
import type { Queryable } from '../db.ts';

/**
 * Holds a job with all that it has made, or resumes them. What waits does not start; the scheduler suspends what runs. Wake
 * `queueChanged` after the commit.
 */
export function setHeld(tx: Queryable, jobId: string, held: boolean): void {
  tx.run(sql`
    WITH RECURSIVE family(id) AS (VALUES(${jobId}) UNION SELECT job.id FROM job JOIN family ON job.parentId = family.id)
    UPDATE job SET held = ${held ? 1 : 0} WHERE id IN (SELECT id FROM family)`);
}
