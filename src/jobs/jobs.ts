import { eq, sql } from 'drizzle-orm';
import { prepared, type Queryable } from '../db.ts';
import { notFound } from '../errors.ts';
import { type Job, job } from './tables.ts';

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

/** The order in which jobs were made, whatever the clock did meanwhile: two may have the same `createdAt`, and it may run backwards. */
export const age = sql<number>`${job}.rowid`;
