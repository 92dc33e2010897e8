/** Look-ups, and what a load test says in words. */
import { and, asc, desc, eq, sql } from 'drizzle-orm';
import type { Queryable } from '../db.ts';
import { job } from '../jobs/tables.ts';
import { highestRateOf, isClientLate, isInDeadline, RateResult, shareInDeadline } from './rates.ts';
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

const number = (value: number): string => String(Number(value.toPrecision(3)));
const listed = (rates: readonly RateResult[]): string => rates.map(({ rate }) => number(rate)).join(', ');

/** First how much traffic the deployment bears, then what makes the figures less certain. */
export function sentencesOf({ deadlineMs, capacityPerSecond }: LoadTest, rates: readonly RateResult[]): string[] {
  const percent = 100 * shareInDeadline;
  const highest = highestRateOf(rates);
  const missed = rates.filter((one) => highest !== null && one.arrivals > 0 && one.rate < highest && !isInDeadline(one));
  const late = rates.filter(isClientLate);
  const beside = rates.filter(({ otherRequests }) => otherRequests);
  const few = rates.filter(({ latency }) => latency.p99.kind === 'INSUFFICIENT');
  return [
    highest === null
      ? `At no rate were ${percent} % of the requests answered within ${number(deadlineMs)} ms.`
      : `At ${number(highest)} requests a second, ${percent} % or more are answered within ${number(deadlineMs)} ms; at no higher rate that was driven.`,
    `Asked for as much as it could do, it answered ${number(capacityPerSecond)} requests a second.`,
    ...(missed.length > 0
      ? [
          `At ${listed(missed)} requests a second, which is less, they were not: something disturbed the machine, or there were too few requests.`,
        ]
      : []),
    ...(late.length > 0
      ? [
          `The load generator was late at ${listed(late)} requests a second: the latencies there are too long. Use a machine with more free cores.`,
        ]
      : []),
    ...(beside.length > 0
      ? [`The host answered requests of others at ${listed(beside)} requests a second: they took a part of the machine.`]
      : []),
    ...(few.length > 0 ? [`There are too few requests for P99 at ${listed(few)} requests a second: drive each rate for longer.`] : []),
  ];
}
