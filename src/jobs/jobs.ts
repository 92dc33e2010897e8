import { desc, eq, type SQL, sql, sum } from 'drizzle-orm';
import { prepared, type Queryable } from '../db.ts';
import { notFound } from '../errors.ts';
import { type Attempt, attempt, type Job, job } from './tables.ts';

const jobQuery = prepared((db) =>
  db
    .select()
    .from(job)
    .where(eq(job.id, sql.placeholder('id')))
    .prepare(),
);

export function findJob(db: Queryable, id: string): Job | undefined {
  return jobQuery(db).get({ id });
}

export function requireJob(db: Queryable, id: string): Job {
  return findJob(db, id) ?? notFound('job');
}

/** Whether a row is this job, one that it has made, one that these have made, and so on. */
export const isInFamily = (id: string): SQL => sql`${job.id} IN (
  WITH RECURSIVE family(id) AS (VALUES (${id}) UNION SELECT child.id FROM ${job} AS child JOIN family ON child."parentId" = family.id)
  SELECT id FROM family)`;

/** The order in which jobs were made, whatever the clock did meanwhile: two may have the same `createdAt`, and it may run backwards. */
export const age = sql<number>`${job}.rowid`;

/** Attempts of a job, first to last; of many the last 50. */
export function newestAttempts(db: Queryable, jobId: string): Attempt[] {
  return db.select().from(attempt).where(eq(attempt.jobId, jobId)).orderBy(desc(attempt.number)).limit(50).all().reverse();
}

/** How long the attempts of a job took that have ended under a server. */
export function durationOf(db: Queryable, jobId: string): number {
  const total = sum(attempt.durationMs).mapWith(Number);
  return db.select({ total }).from(attempt).where(eq(attempt.jobId, jobId)).get()?.total ?? 0;
}
