/**
 * Deletes ended jobs for good, each with what it has made and nothing else keeps: attempts, events, curves, the log, its checkpoint; the
 * report, samples and history of a benchmark, the rates of a load test. A version that did not fail, an evaluation of one, or a study keeps its job.
 */
import { rm } from 'node:fs/promises';
import { and, eq, inArray, isNull, ne, notInArray, or } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
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
import { isInFamily, requireJob } from './jobs.ts';
import { logPath } from './logs.ts';
import { finalStates, isFinal } from './states.ts';
import { attempt, type Job, job, jobEvent, jobSubject, metricPoint } from './tables.ts';
import { removeAttempts, repeatedOnes } from './workFolders.ts';

const coordinator = alias(job, 'coordinator');

/** Deletes the job with the jobs that it has made. IN_USE while one of them runs, is repeated, or keeps something. */
export async function deleteJob(services: StorageServices, actor: Actor, id: string): Promise<Job> {
  const { deleted, ids } = inUrgentTransaction(services.db, (tx) => {
    const deleted = requireJob(tx, id);
    const family = tx.select({ id: job.id }).from(job).where(isInFamily(id)).all();
    const ids = family.map((one) => one.id);
    requireUnneeded(tx, deleted, ids);
    for (const one of ids) dropResults(tx, one);
    // At once: a child names its parent. What else names one of them makes this throw, and nothing is deleted.
    tx.delete(job).where(inArray(job.id, ids)).run();
    const { kind, state } = deleted;
    writeAudit(tx, actor, { action: 'deleteJob', target: { type: 'Job', id }, detail: { kind, state, jobs: ids.length } });
    return { deleted, ids };
  });
  // What is left here after a crash, the sweeps remove: it belongs to no job.
  for (const one of ids) {
    await rm(logPath(services.config.dataDir, one), { force: true });
    await removeAttempts(services, one, []);
  }
  return deleted;
}

function requireUnneeded(tx: Queryable, { state }: Job, ids: string[]): void {
  const inUse = (message: string) => refuse('IN_USE', 'jobId', message);
  if (!isFinal(state)) inUse(`The job is ${state}. Wait for its end or cancel it, then delete.`);
  const running = tx
    .select({ kind: job.kind, state: job.state })
    .from(job)
    .where(and(inArray(job.id, ids), notInArray(job.state, finalStates)))
    .get();
  if (running)
    inUse(`It has made a job that has not ended: ${running.kind} is ${running.state}. Wait for its end or cancel it, then delete.`);
  const repeated = repeatedOnes(tx);
  if (ids.some((id) => repeated.has(id)))
    inUse('A job that has not ended repeats it, and may need its checkpoint. Wait for its end, then delete.');

  const model = tx
    .select({ number: modelVersion.number })
    .from(modelVersion)
    .leftJoin(evaluation, eq(evaluation.modelVersionId, modelVersion.id))
    .where(
      and(
        isNull(modelVersion.deletedAt),
        ne(modelVersion.state, 'FAILED'),
        or(inArray(modelVersion.jobId, ids), inArray(evaluation.jobId, ids)),
      ),
    )
    .get();
  if (model) inUse(`Version ${model.number} of a model was made or evaluated by it, and shows it. Delete the version first.`);
  const dataset = tx
    .select({ number: datasetVersion.number })
    .from(datasetVersion)
    .where(and(isNull(datasetVersion.deletedAt), ne(datasetVersion.state, 'FAILED'), inArray(datasetVersion.jobId, ids)))
    .get();
  if (dataset) inUse(`Version ${dataset.number} of a dataset was made by it, and shows it. Delete the version first.`);
  const ofStudy =
    tx.select({ id: study.id }).from(study).where(inArray(study.jobId, ids)).get() ??
    tx
      .select({ id: trial.studyId })
      .from(trial)
      .where(or(inArray(trial.jobId, ids), inArray(trial.finalJobId, ids)))
      .get() ??
    // A trial's job of an earlier rung has the checkpoint that a later one continues from.
    tx
      .select({ id: job.id })
      .from(job)
      .innerJoin(coordinator, eq(coordinator.id, job.parentId))
      .where(and(inArray(job.id, ids), eq(coordinator.kind, 'TUNE')))
      .get();
  if (ofStudy) inUse('It belongs to a study, which needs the jobs of its trials.');
}

/** Removes all rows of a job but its own, and forgets it where a deleted or failed version, or a later try, names it. */
function dropResults(tx: Queryable, jobId: string): void {
  for (const table of [benchmarkPoint, benchmarkRow, benchmarkRun, regression, loadTestRate, loadTest, evaluation]) {
    tx.delete(table).where(eq(table.jobId, jobId)).run();
  }
  tx.delete(report).where(eq(report.benchmarkJobId, jobId)).run();
  for (const table of [jobEvent, metricPoint, jobSubject, attempt]) tx.delete(table).where(eq(table.jobId, jobId)).run();
  tx.delete(tag).where(eq(tag.subjectId, jobId)).run();
  dropArtifacts(tx, 'JOB', jobId);
  for (const table of [modelVersion, datasetVersion]) tx.update(table).set({ jobId: null }).where(eq(table.jobId, jobId)).run();
  tx.update(job).set({ retryOfId: null }).where(eq(job.retryOfId, jobId)).run();
}
