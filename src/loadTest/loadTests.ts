/** Look-ups. */
import { and, asc, desc, eq, sql } from 'drizzle-orm';
import type { Queryable } from '../db.ts';
import { job } from '../jobs/tables.ts';
import { RateResult } from './rates.ts';
import { type LoadTest, loadTest, loadTestRate } from './tables.ts';

export function findLoadTest(db: Queryable, jobId: string): LoadTest | undefined {
  return db.select().from(loadTest).where(eq(loadTest.jobId, jobId)).get();
}

/** Newest first. */
export function listLoadTests(db: Queryable, deploymentId: string, limit: number): LoadTest[] {
  return db.select().from(loadTest).where(eq(loadTest.deploymentId, deploymentId)).orderBy(desc(loadTest.endedAt)).limit(limit).all();
}

/** When load tests, but for this one, last sent requests to a deployment, in Unix milliseconds: now, if one does; 0 without any. */
export function lastDrivenAt(db: Queryable, deploymentId: string, exceptJobId: string | null): number {
  const tests = db
    .select({ id: job.id, startedAt: job.startedAt, endedAt: job.endedAt })
    .from(job)
    .where(and(eq(job.kind, 'LOAD_TEST'), eq(sql`${job.specJson} ->> '$.deploymentId'`, deploymentId)))
    .all();
  const times = tests.filter(({ id, startedAt }) => startedAt !== null && id !== exceptJobId).map(({ endedAt }) => endedAt ?? Date.now());
  return Math.max(0, ...times);
}

export function readRates(db: Queryable, jobId: string): RateResult[] {
  const rows = db.select().from(loadTestRate).where(eq(loadTestRate.jobId, jobId)).orderBy(asc(loadTestRate.n)).all();
  return rows.map(({ resultJson }) => RateResult.parse(resultJson));
}
