/**
 * Where the children of jobs work: `work/<job>/<attempt>` in the data folder. Beside the attempt that runs, only the folder with the
 * checkpoint that it continues from stays. A job that FAILED or was CANCELLED keeps its newest checkpoint for `workDays`, since `retryJob`
 * continues from it. It also keeps it while a job that has not ended repeats it.
 */
import { readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { and, desc, eq, notInArray, type SQL, sql } from 'drizzle-orm';
import type { Config } from '../config.ts';
import type { Db, Queryable } from '../db.ts';
import { hashFile } from '../hash.ts';
import { findJob } from './jobs.ts';
import { finalStates, isFinal } from './states.ts';
import { type Job, job, jobEvent } from './tables.ts';

interface WorkServices {
  config: Pick<Config, 'dataDir'>;
  db: Db;
}

const jobDir = (dataDir: string, jobId: string): string => join(dataDir, 'work', jobId);

export const workDirOf = (dataDir: string, jobId: string, number: number): string => join(jobDir(dataDir, jobId), String(number));

/** The newest checkpoint, of this job or else of the one that it repeats, whose file is there and whole. */
export async function newestCheckpoint(services: WorkServices, wanted: Job): Promise<string | null> {
  const { config, db } = services;
  for (const one of retried(db, wanted)) {
    const rows = db
      .select()
      .from(jobEvent)
      .where(and(eq(jobEvent.jobId, one.id), eq(jobEvent.type, 'CHECKPOINT')))
      .orderBy(desc(jobEvent.seq))
      .limit(4)
      .all();
    for (const { attemptNumber, payloadJson } of rows) {
      const path = join(workDirOf(config.dataDir, one.id, attemptNumber), String(payloadJson.file));
      const whole = await hashFile(path).then(
        (sha256) => sha256 === payloadJson.sha256,
        () => false,
      );
      if (whole) return path;
    }
  }
  return null;
}

/** A job, the one that it repeats, the one that that one repeats … */
function* retried(db: Db, first: Job): Generator<Job> {
  for (let one: Job | undefined = first; one; one = one.retryOfId ? findJob(db, one.retryOfId) : undefined) yield one;
}

/** Removes the folders of a job's attempts, but those in `kept`: checkpoints are large. */
export async function removeAttempts({ config }: WorkServices, jobId: string, kept: string[]): Promise<void> {
  const folder = jobDir(config.dataDir, jobId);
  const paths = (await readdir(folder).catch(() => [])).map((name) => join(folder, name));
  for (const path of paths.filter((one) => !kept.includes(one))) await rm(path, { recursive: true, force: true });
  if (kept.length === 0) await rm(folder, { recursive: true, force: true });
}

/** The ids of the jobs that one which has not ended repeats, directly or not: it may continue from their checkpoints. */
export const repeatedIds: SQL = sql`
  WITH RECURSIVE repeated(id) AS (
    SELECT ${job.retryOfId} FROM ${job} WHERE ${notInArray(job.state, finalStates)} AND ${job.retryOfId} IS NOT NULL
    UNION SELECT ${job.retryOfId} FROM ${job} JOIN repeated ON ${job.id} = repeated.id WHERE ${job.retryOfId} IS NOT NULL
  ) SELECT id FROM repeated`;

export const repeatedOnes = (db: Queryable): Set<string> => new Set(db.all<{ id: string }>(repeatedIds).map(({ id }) => id));

/**
 * Removes what nobody needs of a job: all but its newest checkpoint. One that SUCCEEDED needs nothing, nor do those that it repeated,
 * unless another job repeats them.
 */
export async function tidyWork(services: WorkServices, tidied: Job): Promise<void> {
  if (tidied.state === 'SUCCEEDED') {
    for (const { id } of retried(services.db, tidied)) {
      if (!repeatedOnes(services.db).has(id)) await removeAttempts(services, id, []);
    }
    return;
  }
  const checkpoint = await newestCheckpoint(services, { ...tidied, retryOfId: null });
  await removeAttempts(services, tidied.id, checkpoint === null ? [] : [dirname(checkpoint)]);
}

/** The work folders that no attempt uses; `kept`: the job that keeps its checkpoint in it, of those that ended before a moment none. */
export async function idleFolders({ config, db }: WorkServices, before: number): Promise<{ id: string; path: string; kept: Job | null }[]> {
  const repeated = repeatedOnes(db);
  return (await readdir(join(config.dataDir, 'work')).catch(() => [])).flatMap((id) => {
    const found = findJob(db, id);
    if (found && !isFinal(found.state)) return [];
    const isKept = found && ((found.endedAt ?? 0) > before || repeated.has(id));
    return [{ id, path: jobDir(config.dataDir, id), kept: isKept ? found : null }];
  });
}

/** Removes the folders of jobs that ended before a moment, and of those that ended when a server died. To be called at the start, and now and then. */
export async function sweepWork(services: WorkServices, before: number): Promise<void> {
  for (const { id, kept } of await idleFolders(services, before)) {
    if (kept) await tidyWork(services, kept);
    else await removeAttempts(services, id, []);
  }
}
