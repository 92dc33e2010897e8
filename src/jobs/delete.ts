/**
 * Deletes ended jobs for good, each with what it has made and nothing else keeps: attempts, events, curves, the log, its checkpoint; the
 * report, samples and history of a benchmark, the rates of a load test. A version that did not fail, an evaluation of one, or a study keeps its job.
 * `tuning/delete.ts` deletes a study with its jobs.
 */
import { rm } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import { and, isNull, lt, ne, notInArray, type SQL, sql } from 'drizzle-orm';
import type { SQLiteColumn } from 'drizzle-orm/sqlite-core';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import { benchmarkRow, benchmarkRun } from '../benchmark/tables.ts';
import { datasetVersion } from '../datasets/tables.ts';
import { inUrgentTransaction, type Queryable } from '../db.ts';
import { refuse } from '../errors.ts';
import { benchmarkPoint, regression } from '../history/tables.ts';
import { loadTest, loadTestRate } from '../loadTest/tables.ts';
import { modelVersion } from '../models/tables.ts';
import { report } from '../reports/tables.ts';
import { dropArtifacts, type StorageServices } from '../storage/blobs.ts';
import { tag } from '../tags/tables.ts';
import { evaluation } from '../training/tables.ts';
import { study, trial } from '../tuning/tables.ts';
import { age, isInFamily, requireJob } from './jobs.ts';
import { logPath } from './logs.ts';
import { finalStates, isFinal } from './states.ts';
import { attempt, type Job, job, jobEvent, jobHyperparameter, jobSubject, metricPoint } from './tables.ts';
import { removeAttempts, repeatedIds } from './workFolders.ts';

/** Jobs that are looked at without a pause. */
const pageRows = 200;

/** Deletes the job with the jobs that it has made. IN_USE while one of them runs, is repeated, or keeps something. */
export async function deleteJob(services: StorageServices, actor: Actor, id: string): Promise<Job> {
  const { deleted, ids } = inUrgentTransaction(services.db, (tx) => deleteRows(tx, actor, id));
  await removeFiles(services, ids);
  return deleted;
}

/** Jobs of a transaction: each transaction waits for the disk, and each job takes some milliseconds of the event loop. */
export const deletedAtOnce = 4;

/** Removes jobs a few at a time. `remove` removes the rows of some, and gives the ids of the jobs that went. */
export async function removeInTurns<T>(
  services: StorageServices,
  jobs: readonly T[],
  remove: (tx: Queryable, some: readonly T[]) => string[],
): Promise<void> {
  for (let n = 0; n < jobs.length; n += deletedAtOnce) {
    const some = jobs.slice(n, n + deletedAtOnce);
    await removeFiles(
      services,
      inUrgentTransaction(services.db, (tx) => remove(tx, some)),
    );
    await setImmediate();
  }
}

/**
 * Removes ended jobs that nothing needs: `ids` has each before the job that made it. One that a new job repeats meanwhile stays, with that
 * which made it.
 */
export const dropInTurns = (services: StorageServices, ids: readonly string[]): Promise<void> =>
  removeInTurns(services, ids, (tx, some) => {
    const free = some.filter((id) => whyUnended(tx, [id]) === null);
    dropJobs(tx, free);
    return free;
  });

/** What is left here after a crash, the sweeps remove: it belongs to no job. */
async function removeFiles(services: StorageServices, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    await rm(logPath(services.config.dataDir, id), { force: true });
    await removeAttempts(services, id, []);
  }
}

/** In one transaction; `removeFiles` follows it. It throws IN_USE before it writes anything. */
export function deleteRows(tx: Queryable, actor: Actor, id: string): { deleted: Job; ids: string[] } {
  const deleted = requireJob(tx, id);
  const family = tx.select({ id: job.id }).from(job).where(isInFamily(id)).all();
  const ids = family.map((one) => one.id);
  requireUnneeded(tx, deleted);
  dropJobs(tx, ids);
  const { kind, state } = deleted;
  writeAudit(tx, actor, { action: 'deleteJob', target: { type: 'Job', id }, detail: { kind, state, jobs: ids.length } });
  return { deleted, ids };
}

/** What keeps a job that has ended: a query that gives a value for a job with this id, and what a refusal says of that value. */
interface Need {
  of: (id: SQL) => SQL;
  says: (value: unknown) => string;
}

const ofUnended: Need[] = [
  {
    of: (id) =>
      sql`SELECT ${job.kind} || ' is ' || ${job.state} FROM ${job} WHERE ${job.id} = ${id} AND ${notInArray(job.state, finalStates)}`,
    says: (which) => `It has made a job that has not ended: ${which}. Wait for its end or cancel it, then delete.`,
  },
  {
    of: (id) => sql`SELECT 1 WHERE ${id} IN (${repeatedIds})`,
    says: () => 'A job that has not ended repeats it, and may need its checkpoint. Wait for its end, then delete.',
  },
];

const ofVersions: Need[] = [
  {
    of: (id) => sql`SELECT ${modelVersion.number} FROM ${modelVersion} WHERE ${modelVersion.jobId} = ${id} AND ${shown(modelVersion)}`,
    says: (number) => `Version ${number} of a model was made by it, and shows it. Delete the version first.`,
  },
  {
    of: (
      id,
    ) => sql`SELECT ${modelVersion.number} FROM ${evaluation} JOIN ${modelVersion} ON ${modelVersion.id} = ${evaluation.modelVersionId}
      WHERE ${evaluation.jobId} = ${id} AND ${shown(modelVersion)}`,
    says: (number) => `Version ${number} of a model was evaluated by it, and shows it. Delete the version first.`,
  },
  {
    of: (id) =>
      sql`SELECT ${datasetVersion.number} FROM ${datasetVersion} WHERE ${datasetVersion.jobId} = ${id} AND ${shown(datasetVersion)}`,
    says: (number) => `Version ${number} of a dataset was made by it, and shows it. Delete the version first.`,
  },
];

const ofStudies: Need[] = [
  (id: SQL) => sql`SELECT 1 FROM ${study} WHERE ${study.jobId} = ${id}`,
  (id: SQL) => sql`SELECT 1 FROM ${trial} WHERE ${trial.jobId} = ${id} OR ${trial.finalJobId} = ${id}`,
  // A trial's job of an earlier rung has the checkpoint that a later one continues from.
  (id: SQL) => sql`SELECT 1 FROM ${job} JOIN ${job} AS coordinator ON coordinator.id = ${job.parentId}
    JOIN ${study} ON ${study.id} = coordinator."specJson" ->> 'studyId' WHERE ${job.id} = ${id} AND coordinator.kind = 'TUNE'`,
].map((of) => ({ of, says: () => 'It belongs to a study, which needs the jobs of its trials. Delete the study, with `deleteStudy`.' }));

const needs = [...ofUnended, ...ofVersions, ...ofStudies];

const shown = ({ deletedAt, state }: typeof modelVersion | typeof datasetVersion) => and(isNull(deletedAt), ne(state, 'FAILED'));

function requireUnneeded(tx: Queryable, { id, state }: Job): void {
  if (!isFinal(state)) refuse('IN_USE', 'jobId', `The job is ${state}. Wait for its end or cancel it, then delete.`);
  const reason = whyNeeded(tx, [id], needs);
  if (reason !== null) refuse('IN_USE', 'jobId', reason);
}

function whyNeeded(tx: Queryable, roots: readonly string[], some: readonly Need[]): string | null {
  for (const { of, says } of some) {
    const row = tx.get<{ value: unknown } | undefined>(sql`${familiesOf(idsOf(roots))}
      SELECT value FROM (SELECT (${of(sql`family.id`)} LIMIT 1) AS value FROM family) WHERE value IS NOT NULL LIMIT 1`);
    if (row) return says(row.value);
  }
  return null;
}

/** Why none of these jobs, with what they have made, may be deleted yet, whatever needs their results; null: they have all ended. */
export const whyUnended = (tx: Queryable, roots: readonly string[]): string | null => whyNeeded(tx, roots, ofUnended);

/** These jobs with those that they have made, each behind that which made it, and whether a version needs it. */
export const listFamilies = (tx: Queryable, roots: readonly string[]): { id: string; parentId: string | null; needed: number }[] =>
  tx.all(sql`${familiesOf(idsOf(roots))}
    SELECT family.id AS id, ${job.parentId} AS "parentId", ${anyOf(ofVersions)} AS needed FROM family JOIN ${job} ON ${job.id} = family.id ORDER BY ${age}`);

const anyOf = (some: readonly Need[]): SQL =>
  sql`(${sql.join(
    some.map(({ of }) => sql`EXISTS (${of(sql`family.id`)})`),
    sql` OR `,
  )})`;

const idsOf = (ids: readonly string[]): SQL => sql`SELECT value FROM json_each(${JSON.stringify(ids)})`;

/** `family`: the jobs that are selected, each as `root` of what it has made, directly or not. */
const familiesOf = (roots: SQL): SQL => sql`WITH RECURSIVE family(root, id) AS (
  SELECT id, id FROM ${job} WHERE id IN (${roots})
  UNION ALL SELECT family.root, child.id FROM ${job} AS child JOIN family ON child."parentId" = family.id)`;

/** A job that ended before a moment, and how many it would take along if it was deleted. */
export interface Deletable {
  id: string;
  jobs: number;
}

/** Jobs that a user started, that ended before a moment (Unix milliseconds), and that nothing needs; a page at a time. */
export function* deletableJobs(db: Queryable, before: number): Generator<Deletable[]> {
  for (let behind = { endedAt: 0, id: '' }; ; ) {
    const page = db
      .select({ id: job.id, endedAt: sql<number>`${job.endedAt}` })
      .from(job)
      .where(and(lt(job.endedAt, before), isNull(job.parentId), sql`(${job.endedAt}, ${job.id}) > (${behind.endedAt}, ${behind.id})`))
      .orderBy(job.endedAt, job.id)
      .limit(pageRows)
      .all();
    const last = page.at(-1);
    if (!last) return;
    behind = last;
    yield db.all<Deletable>(sql`${familiesOf(idsOf(page.map(({ id }) => id)))}
      SELECT root AS id, count(*) AS jobs FROM family GROUP BY root HAVING NOT max(${anyOf(needs)})`);
  }
}

/** Removes the rows of jobs, and forgets them where a deleted or failed version, or a later try, names one. */
function dropJobs(tx: Queryable, ids: readonly string[]): void {
  const isOne = (column: SQLiteColumn) => sql`${column} IN (${idsOf(ids)})`;
  for (const table of [benchmarkPoint, benchmarkRow, benchmarkRun, regression, loadTestRate, loadTest, evaluation]) {
    tx.delete(table).where(isOne(table.jobId)).run();
  }
  tx.delete(report).where(isOne(report.benchmarkJobId)).run();
  for (const table of [jobEvent, metricPoint, jobHyperparameter, jobSubject, attempt]) tx.delete(table).where(isOne(table.jobId)).run();
  tx.delete(tag).where(isOne(tag.subjectId)).run();
  for (const id of ids) dropArtifacts(tx, 'JOB', id);
  for (const table of [modelVersion, datasetVersion]) tx.update(table).set({ jobId: null }).where(isOne(table.jobId)).run();
  tx.update(job).set({ retryOfId: null }).where(isOne(job.retryOfId)).run();
  // At once: a child names its parent. What else names one of them makes this throw, and nothing is deleted.
  tx.delete(job).where(isOne(job.id)).run();
}
