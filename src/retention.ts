/**
 * What grows with use and nobody deletes: how long it stays. Rows are removed in batches that leave others their turn. Checkpoints, blobs
 * and uploads have rules of their own (`jobs/workFolders.ts`, `storage/sweeper.ts`).
 */
import { readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { and, eq, exists, isNull, lt, max, or, sql } from 'drizzle-orm';
import { audit } from './accounts/tables.ts';
import type { Config } from './config.ts';
import { type Db, inUrgentTransaction } from './db.ts';
import { InputError } from './errors.ts';
import { deleteJob } from './jobs/delete.ts';
import { findJob } from './jobs/jobs.ts';
import { job, jobEvent, metricPoint } from './jobs/tables.ts';
import { repeatedOnes } from './jobs/workFolders.ts';

interface Services {
  config: Pick<Config, 'dataDir' | 'auditDays' | 'jobDays' | 'jobHistoryDays' | 'jobLogDays'>;
  db: Db;
}

const dayMs = 86_400_000;
const batchRows = 1000;
/** Lines of the audit log: further ones push out the oldest, but none of the last day, which the database itself keeps. */
const auditRowsMax = 1_000_000;

/** What, its age in days (none: it stays), and what removes all that is from before that moment (Unix milliseconds). */
const rules: { days: (config: Services['config']) => number | undefined; remove: (services: Services, before: number) => Promise<void> }[] =
  [
    { days: ({ auditDays }) => auditDays, remove: removeAudit },
    { days: ({ jobDays }) => jobDays, remove: removeJobs },
    { days: ({ jobHistoryDays }) => jobHistoryDays, remove: (services, before) => removeOfJobs(services, jobEvent, before) },
    { days: ({ jobHistoryDays }) => jobHistoryDays, remove: (services, before) => removeOfJobs(services, metricPoint, before) },
    { days: ({ jobLogDays }) => jobLogDays, remove: removeLogs },
  ];

/** Removes what is older than the settings say. To be called at the start, and now and then. */
export async function sweepHistory(services: Services): Promise<void> {
  for (const { days, remove } of rules) {
    const age = days(services.config);
    if (age !== undefined) await remove(services, Date.now() - age * dayMs);
  }
}

async function removeAudit({ db }: Services, before: number): Promise<void> {
  const newest = db
    .select({ seq: max(audit.seq) })
    .from(audit)
    .get()?.seq;
  const isSurplus = and(lt(audit.seq, (newest ?? 0) - auditRowsMax + 1), lt(audit.at, Date.now() - dayMs - 60_000));
  const oldest = sql`${audit.seq} IN (SELECT ${audit.seq} FROM ${audit} ORDER BY ${audit.seq} LIMIT ${batchRows})`;
  for (;;) {
    const { changes } = inUrgentTransaction(db, (tx) =>
      tx
        .delete(audit)
        .where(and(oldest, or(lt(audit.at, before), isSurplus)))
        .run(),
    );
    if (changes === 0) return;
    await setImmediate();
  }
}

/** Jobs that ended before a moment, with their children; those that something needs stay. */
async function removeJobs(services: Services, before: number): Promise<void> {
  const ended = services.db
    .select({ id: job.id })
    .from(job)
    .where(and(lt(job.endedAt, before), isNull(job.parentId)))
    .all();
  for (const { id } of ended) {
    await deleteJob(services, { actorId: null, requestId: null }, id).catch((error: unknown) => {
      if (!(error instanceof InputError)) throw error;
    });
    await setImmediate();
  }
}

/** The rows of jobs that ended before a moment. Where a job which has not ended repeats one, they name the checkpoint that it continues from. */
async function removeOfJobs({ db }: Services, table: typeof jobEvent | typeof metricPoint, before: number): Promise<void> {
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

async function removeLogs({ config, db }: Services, before: number): Promise<void> {
  const folder = join(config.dataDir, 'logs');
  for (const name of await readdir(folder).catch(() => [])) {
    const owner = findJob(db, basename(name, '.jsonl'));
    if (!owner || (owner.endedAt ?? before) < before) await rm(join(folder, name), { force: true });
  }
}
