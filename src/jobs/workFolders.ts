/**
 * Where the children of jobs work: `work/<job>/<attempt>` in the data folder. Beside the attempt that runs, only the folder with the
 * checkpoint that it goes on from stays. A job that FAILED or was CANCELLED keeps its newest checkpoint for a week: `retryJob` goes on from it.
 */
import { readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { and, desc, eq } from 'drizzle-orm';
import type { Config } from '../config.ts';
import type { Db } from '../db.ts';
import { hashFile } from '../hash.ts';
import { findJob } from './jobs.ts';
import { isFinal } from './states.ts';
import { type Job, jobEvent } from './tables.ts';

interface WorkServices {
  config: Pick<Config, 'dataDir'>;
  db: Db;
}

/** How long after its end a job's checkpoint stays. */
const keptMs = 7 * 24 * 3600_000;

const jobDir = (dataDir: string, jobId: string): string => join(dataDir, 'work', jobId);

export const workDirOf = (dataDir: string, jobId: string, number: number): string => join(jobDir(dataDir, jobId), String(number));

/** The newest checkpoint, of this job or else of the one that it repeats, whose file is there and whole. */
export async function newestCheckpoint(services: WorkServices, job: Job): Promise<string | null> {
  const { config, db } = services;
  for (const one of retried(db, job)) {
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
function* retried(db: Db, job: Job): Generator<Job> {
  for (let one: Job | undefined = job; one; one = one.retryOfId ? findJob(db, one.retryOfId) : undefined) yield one;
}

/** Removes the folders of a job's attempts, but those in `kept`: checkpoints are large. */
export async function removeAttempts({ config }: WorkServices, jobId: string, kept: string[]): Promise<void> {
  const folder = jobDir(config.dataDir, jobId);
  const paths = (await readdir(folder).catch(() => [])).map((name) => join(folder, name));
  for (const path of paths.filter((one) => !kept.includes(one))) await rm(path, { recursive: true, force: true });
  if (kept.length === 0) await rm(folder, { recursive: true, force: true });
}

/** Removes what nobody needs of a job that has ended. One that SUCCEEDED needs nothing, nor do those that it repeated. */
export async function tidyWork(services: WorkServices, job: Job): Promise<void> {
  if (job.state === 'SUCCEEDED') {
    for (const { id } of retried(services.db, job)) await removeAttempts(services, id, []);
    return;
  }
  const checkpoint = await newestCheckpoint(services, { ...job, retryOfId: null });
  await removeAttempts(services, job.id, checkpoint === null ? [] : [dirname(checkpoint)]);
}

/** Removes the folders of jobs that ended long ago, or in the moment in which a server died. To be called at the start, and now and then. */
export async function sweepWork(services: WorkServices): Promise<void> {
  const { config, db } = services;
  for (const id of await readdir(join(config.dataDir, 'work')).catch(() => [])) {
    const job = findJob(db, id);
    if (job && !isFinal(job.state)) continue;
    if (job && (job.endedAt ?? 0) > Date.now() - keptMs) await tidyWork(services, job);
    else await removeAttempts(services, id, []);
  }
}
