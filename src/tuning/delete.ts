/**
 * Deletes a study that has ended for good: its events, its trials, and the jobs that it has made. What made a version that is still there
 * stays: its conversion, the training that registered it, and the trainings of the earlier rungs, whose weights and curves that one continues.
 * They become a chain, each the parent of the one that continues it, so that `deleteJob` deletes them together later.
 */
import { and, asc, eq, lt, sql } from 'drizzle-orm';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import type { Bus } from '../bus.ts';
import { inUrgentTransaction, type Queryable } from '../db.ts';
import { refuse } from '../errors.ts';
import { dropInTurns, listFamilies, whyUnended } from '../jobs/delete.ts';
import { requireJob } from '../jobs/jobs.ts';
import { isFinal } from '../jobs/states.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import { job, jobSubject } from '../jobs/tables.ts';
import type { StorageServices } from '../storage/blobs.ts';
import { convertedJobId, requireStudy } from './studies.ts';
import { type Study, study, studyEvent, trial } from './tables.ts';

/**
 * IN_USE while it runs, or one of its jobs does. The study is gone at once, its jobs follow a few at a time: those that a crash leaves behind
 * belong to no study, and can be deleted as others.
 */
export async function deleteStudy(services: StorageServices & { bus: Bus }, actor: Actor, id: string): Promise<Study> {
  const { deleted, ids } = inUrgentTransaction(services.db, (tx) => deleteStudyRows(tx, actor, id));
  // Ends the streams of its events.
  services.bus.wake('jobChanged', deleted.jobId);
  await dropInTurns(services, ids.toReversed());
  return deleted;
}

/** All but the jobs that go with it: their ids are returned, each behind that of the job that made it. It throws IN_USE before it writes anything. */
function deleteStudyRows(tx: Queryable, actor: Actor, id: string): { deleted: Study; ids: string[] } {
  const deleted = requireStudy(tx, id);
  const { state } = requireJob(tx, deleted.jobId);
  if (!isFinal(state)) refuse('IN_USE', 'studyId', `The study is ${state}. Wait for its end or cancel its job, then delete.`);
  const coordinators = coordinatorsOf(tx, deleted);
  const reason = whyUnended(tx, coordinators);
  if (reason !== null) refuse('IN_USE', 'studyId', reason);
  const { ids, kept } = divide(tx, coordinators);
  for (const table of [studyEvent, trial]) tx.delete(table).where(eq(table.studyId, id)).run();
  tx.delete(study).where(eq(study.id, id)).run();
  for (const [one, parentId] of kept) tx.update(job).set({ parentId }).where(eq(job.id, one)).run();
  writeAudit(tx, actor, {
    action: 'deleteStudy',
    target: { type: 'Study', id },
    detail: { state, trials: deleted.trials, jobs: ids.length },
  });
  return { deleted, ids };
}

/** The jobs that have coordinated a study: the first one, its retries and extensions. */
const coordinatorsOf = (tx: Queryable, { id, modelId }: Study): string[] =>
  tx
    .select({ id: job.id })
    .from(jobSubject)
    .innerJoin(job, eq(job.id, jobSubject.jobId))
    .where(and(eq(jobSubject.subjectId, modelId), eq(job.kind, 'TUNE'), sql`${job.specJson} ->> 'studyId' = ${id}`))
    .all()
    .map((one) => one.id);

/** The jobs of a study that go with it, and those that stay, each with its new parent. */
function divide(tx: Queryable, coordinators: readonly string[]): { ids: string[]; kept: Map<string, string | null> } {
  const family = listFamilies(tx, coordinators);
  const parents = new Map(family.map(({ id, parentId }) => [id, parentId]));
  /** What a coordinator has made, of which this job is or comes. */
  const madeOf = (id: string): string => {
    const parentId = parents.get(id) ?? null;
    return parentId === null || coordinators.includes(parentId) ? id : madeOf(parentId);
  };
  const kept = new Map<string, string | null>();
  for (const { id, needed } of family) {
    for (let one: string | null = needed ? madeOf(id) : null; one !== null && !kept.has(one); ) {
      const source = sourceOf(tx, one);
      const parentId: string | null = source !== null && parents.has(source) ? madeOf(source) : null;
      kept.set(one, parentId);
      one = parentId;
    }
  }
  return { ids: family.flatMap(({ id }) => (kept.has(madeOf(id)) ? [] : [id])), kept };
}

/** The training from whose checkpoint a training continues, or whose version a conversion converts. */
function sourceOf(tx: Queryable, id: string): string | null {
  const found = requireJob(tx, id);
  if (found.kind === 'CONVERT') return convertedJobId(tx, found);
  if (found.kind !== 'TRAIN') return null;
  const { resumeOfJobId } = storedSpec(found) as { resumeOfJobId?: string | null };
  return resumeOfJobId ?? null;
}

/** Studies that ended before a moment (Unix milliseconds) and can be deleted, oldest first, each with how many jobs go with it. */
export function* deletableStudies(db: Queryable, before: number): Generator<{ id: string; jobs: number }> {
  const old = db
    .select({ study })
    .from(study)
    .innerJoin(job, eq(job.id, study.jobId))
    .where(lt(job.endedAt, before))
    .orderBy(asc(job.endedAt), asc(study.id))
    .all();
  for (const one of old) {
    const coordinators = coordinatorsOf(db, one.study);
    // A study that was deleted meanwhile has none.
    if (coordinators.length > 0 && whyUnended(db, coordinators) === null)
      yield { id: one.study.id, jobs: divide(db, coordinators).ids.length };
  }
}
