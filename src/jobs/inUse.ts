import { and, inArray, or, sql } from 'drizzle-orm';
import type { Queryable } from '../db.ts';
import { refuse } from '../errors.ts';
import { job } from './tables.ts';

/** Refuses (IN_USE) to delete something that a job which has not ended is making (`jobId`), or names in its specification. */
export function requireUnused(tx: Queryable, { id, jobId, what }: { id: string; jobId: string | null; what: string }): void {
  // Ids are unique over all tables, so wherever one stands in a specification, it is meant.
  const needs = or(sql`${job.id} = ${jobId}`, sql`instr(${job.specJson}, ${id}) > 0`);
  const user = tx
    .select({ kind: job.kind })
    .from(job)
    .where(and(inArray(job.state, ['QUEUED', 'RUNNING', 'CANCELLING']), needs))
    .get();
  if (user) refuse('IN_USE', null, `A job (${user.kind}) needs ${what}. Wait for its end or cancel it, then delete.`);
}
