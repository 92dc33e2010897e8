import { setImmediate } from 'node:timers/promises';
import { and, count, eq, gt, inArray, isNull, lt, notExists, or } from 'drizzle-orm';
import { type Db, inUrgentTransaction, type Queryable } from '../db.ts';
import { job } from '../jobs/tables.ts';
import { dropArtifacts } from '../storage/blobs.ts';
import { artifact } from '../storage/tables.ts';
import { study, studyEvent, trial } from './tables.ts';

/**
 * Drops checkpoints of trials that no study will continue: those of a study that failed or was cancelled before a moment, and those of a
 * training that is not the newest of its trial. A study that succeeds drops its own.
 */
export function sweepStudies({ db }: { db: Db }, before: number): void {
  const isLive = or(isNull(job.endedAt), gt(job.endedAt, before));
  const needed = db
    .select({ number: trial.number })
    .from(trial)
    .innerJoin(study, eq(study.id, trial.studyId))
    .innerJoin(job, eq(job.id, study.jobId))
    .where(and(eq(trial.jobId, artifact.ownerId), isLive));
  const isOld = and(eq(artifact.ownerType, 'JOB'), eq(artifact.kind, 'CHECKPOINT'), lt(artifact.createdAt, before), notExists(needed));
  const old = db.select({ id: artifact.ownerId }).from(artifact).where(isOld).limit(1000).all();
  if (old.length === 0) return;
  inUrgentTransaction(db, (tx) => {
    for (const { id } of old) dropArtifacts(tx, 'JOB', id);
  });
}

/** Studies whose job ended before a moment. */
const endedBefore = (db: Queryable, before: number) =>
  db.select({ id: study.id }).from(study).innerJoin(job, eq(job.id, study.jobId)).where(lt(job.endedAt, before));

const isOfEnded = (db: Queryable, before: number) => inArray(studyEvent.studyId, endedBefore(db, before));

export const countDueStudyEvents = (db: Queryable, before: number): number =>
  db.select({ n: count() }).from(studyEvent).where(isOfEnded(db, before)).get()?.n ?? 0;

/** A study at a time. One that was extended meanwhile keeps its events. */
export async function removeStudyEvents(db: Db, before: number): Promise<void> {
  for (const { id } of endedBefore(db, before).all()) {
    inUrgentTransaction(db, (tx) =>
      tx
        .delete(studyEvent)
        .where(and(eq(studyEvent.studyId, id), isOfEnded(tx, before)))
        .run(),
    );
    await setImmediate();
  }
}
