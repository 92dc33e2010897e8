/**
 * Where the children of jobs work: `work/<job>/<attempt>` in the data folder. Beside the attempt that runs, only the folder with the
 * checkpoint that it continues from stays. A job that FAILED or was CANCELLED keeps its newest checkpoint for a week, since `retryJob`
 * continues from it. It also keeps it while a job that has not ended repeats it.
 */
import { readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { and, desc, eq, notInArray, sql } from 'drizzle-orm';
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

/** How long after its end a job's checkpoint stays. */
export const keptMs = 7 * 24 * 3600_000;

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

/** The jobs that one which has not ended repeats, directly or not: it may continue from their checkpoints. */
export function repeatedOnes(db: Queryable): Set<string> {
  const rows = db.all<{ id: string }>(sql`
    WITH RECURSIVE repeated(id) AS (
      SELECT ${job.retryOfId} FROM ${job} WHERE ${notInArray(job.state, finalStates)} AND ${job.retryOfId} IS NOT NULL
      UNION SELECT ${job.retryOfId} FROM ${job} JOIN repeated ON ${job.id} = repeated.id WHERE ${job.retryOfId} IS NOT NULL
    ) SELECT id FROM repeated`);
  return new Set(rows.map(({ id }) => id));
}

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

/** Removes the folders of jobs that ended long ago, or in the moment in which a server died. To be called at the start, and now and then. */
export async function sweepWork(services: WorkServices): Promise<void> {
  const { config, db } = services;
  for (const id of await readdir(join(config.dataDir, 'work')).catch(() => [])) {
    const found = findJob(db, id);
    if (found && !isFinal(found.state)) continue;
    const isKept = found && ((found.endedAt ?? 0) > Date.now() - keptMs || repeatedOnes(db).has(id));
    if (isKept) await tidyWork(services, found);
    else await removeAttempts(services, id, []);
  }
}
