/** What jobs leave behind when they have ended: how much of it is due, and its removal, in batches that leave others their turn. */
import { readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { and, eq, exists, lt, sql } from 'drizzle-orm';
import type { Actor } from '../accounts/audit.ts';
import type { Bus } from '../bus.ts';
import { type Db, inUrgentTransaction, type Queryable } from '../db.ts';
import { InputError } from '../errors.ts';
import { deletableJobs, deleteRows, removeInTurns } from '../jobs/delete.ts';
import { findJob } from '../jobs/jobs.ts';
import { job, type jobEvent, type metricPoint } from '../jobs/tables.ts';
import { repeatedIds, repeatedOnes } from '../jobs/workFolders.ts';
import { deletableStudies, deleteStudy } from '../tuning/delete.ts';

interface Services {
  config: { dataDir: string };
  db: Db;
}

export function countDueJobs(db: Queryable, before: number): number {
  let count = 0;
  for (const { jobs } of deletableStudies(db, before)) count += jobs;
  for (const page of deletableJobs(db, before)) for (const { jobs } of page) count += jobs;
  return count;
}

export async function removeJobs(services: Services & { bus: Bus }, before: number): Promise<void> {
  for (const { id } of deletableStudies(services.db, before)) {
    await deleteStudy(services, server, id).catch(passOver);
    await setImmediate();
  }
  for (const page of deletableJobs(services.db, before)) {
    await removeInTurns(services, page, (tx, some) => some.flatMap(({ id }) => idsDeleted(() => deleteRows(tx, server, id))));
    await setImmediate();
  }
}

const server: Actor = { actorId: null, requestId: null };

/** What something that was made meanwhile needs stays. */
function passOver(error: unknown): void {
  if (!(error instanceof InputError)) throw error;
}

function idsDeleted(deleteThem: () => { ids: string[] }): string[] {
  try {
    return deleteThem().ids;
  } catch (error) {
    passOver(error);
    return [];
  }
}

type History = typeof jobEvent | typeof metricPoint;

/** Rows of jobs that ended before a moment. Where a job which has not ended repeats one, they name the checkpoint that it continues from. */
export function countDueHistory(db: Queryable, table: History, before: number): number {
  const row = db.get<{ n: number }>(sql`SELECT count(*) AS n FROM ${table} WHERE ${table.jobId} IN (
    SELECT ${job.id} FROM ${job} WHERE ${lt(job.endedAt, before)} AND ${job.id} NOT IN (${repeatedIds}))`);
  return row.n;
}

export async function removeHistory({ db }: Services, table: History, before: number): Promise<void> {
  const rows = db.select({ jobId: table.jobId }).from(table).where(eq(table.jobId, job.id));
  const ended = db
    .select({ id: job.id })
    .from(job)
    .where(and(lt(job.endedAt, before), exists(rows)))
    .all();
  for (const { id } of ended) {
    if (repeatedOnes(db).has(id)) continue;
    inUrgentTransaction(db, (tx) => tx.delete(table).where(eq(table.jobId, id)).run());
    await setImmediate();
  }
}

/** The logs of jobs that ended before a moment, and of no job. */
export async function dueLogs({ config, db }: Services, before: number): Promise<string[]> {
  const folder = join(config.dataDir, 'logs');
  const due: string[] = [];
  for (const [n, name] of (await readdir(folder).catch(() => [])).entries()) {
    if (n % 100 === 99) await setImmediate();
    const owner = findJob(db, basename(name, '.jsonl'));
    if (!owner || (owner.endedAt ?? before) < before) due.push(join(folder, name));
  }
  return due;
}

export async function removeLogs(services: Services, before: number): Promise<void> {
  for (const path of await dueLogs(services, before)) await rm(path, { force: true });
}
