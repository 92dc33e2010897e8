/**
 * The events of a study. Each is stored in the transaction of the change that it describes. So whatever is killed, the stream has no gap and
 * nothing twice. A study keeps its numbers when a retry or an extension gives it another job.
 */
import { and, asc, eq, gt, sql } from 'drizzle-orm';
import type { Bus } from '../bus.ts';
import type { Db, Queryable } from '../db.ts';
import { notFound } from '../errors.ts';
import { follow } from '../follow.ts';
import { findJob } from '../jobs/jobs.ts';
import type { Failure } from '../jobs/states.ts';
import type { Job, JobState } from '../jobs/tables.ts';
import { convertedJobId, findStudy, findTrialOfTraining, frontOf, listTrials, requireStudy, studySettings } from './studies.ts';
import { type Study, type StudyEvent, study, studyEvent, type Trial, type TrialOutcome, trial } from './tables.ts';

/** Events that are read at a time. */
const pageRows = 200;

type OfTrial = Pick<Trial, 'number' | 'generation'>;

export interface StudyEventPayloads {
  STATE: { state: JobState; paused: boolean; jobId: string; failure: Failure | null };
  TRIAL_ENQUEUED: OfTrial & { params: Trial['paramsJson']; jobId: string; stopAfterEpoch: number | null; registers: boolean };
  TRIAL_STARTED: OfTrial & { jobId: string; attempt: number };
  RUNG_ENDED: OfTrial & { values: number[]; epochs: number };
  PROMOTION: OfTrial & { values: number[] | null; epochs: number; jobId: string; stopAfterEpoch: number | null };
  TRIAL_ENDED: OfTrial & {
    params: Trial['paramsJson'];
    outcome: TrialOutcome;
    /** Of the training of a WORST one; null when that was cancelled. */
    failure: Failure | null;
    values: number[] | null;
    epochs: number;
    copyOf: number | null;
  };
  REGISTRATION_ENDED: OfTrial & { jobId: string; state: JobState; modelVersionId: string | null };
  GENERATION_ENDED: { generation: number; trials: number };
  FRONT_CHANGED: { front: number[] };
  EXTENDED: { generations: number; trialsWanted: number };
}

/** In the transaction of what it describes. Announce a move of the study's job, or of a child of it, once that is committed. */
export function appendStudyEvent<T extends StudyEvent['type']>(
  tx: Queryable,
  studyId: string,
  type: T,
  payload: StudyEventPayloads[T],
): void {
  const { next } =
    tx
      .update(study)
      .set({ nextSeq: sql`${study.nextSeq} + 1` })
      .where(eq(study.id, studyId))
      .returning({ next: study.nextSeq })
      .get() ?? notFound('study');
  tx.insert(studyEvent)
    .values({ studyId, seq: next - 1, at: Date.now(), type, payloadJson: { ...payload } })
    .run();
}

export function recordState(tx: Queryable, studyId: string, { id, state, held, failureCode, failureMessage }: Job): void {
  const failure = failureCode === null ? null : { code: failureCode, message: failureMessage ?? '' };
  appendStudyEvent(tx, studyId, 'STATE', { state, paused: held, jobId: id, failure });
}

/** An attempt at the training of a trial starts. Other children, and trainings that a user repeated, belong to no trial. */
export function recordStart(tx: Queryable, { id, attemptNumber }: Job): void {
  const one = findTrialOfTraining(tx, id);
  if (!one) return;
  const { studyId, number, generation } = one;
  appendStudyEvent(tx, studyId, 'TRIAL_STARTED', { number, generation, jobId: id, attempt: attemptNumber });
}

/** Of a training that registers a trial, or of the conversion of what one has registered; nothing of other jobs. */
export function recordRegistration(tx: Queryable, studyId: string, ended: Job): void {
  const { id, kind, state, resultJson } = ended;
  const training = kind === 'CONVERT' ? convertedJobId(tx, ended) : id;
  const one = tx
    .select()
    .from(trial)
    .where(and(eq(trial.studyId, studyId), eq(trial.finalJobId, String(training))))
    .get();
  if (!one) return;
  const modelVersionId = resultJson?.modelVersionId ? String(resultJson.modelVersionId) : null;
  const { number, generation } = one;
  appendStudyEvent(tx, studyId, 'REGISTRATION_ENDED', { number, generation, jobId: id, state, modelVersionId });
}

/** Once for each change of the front. */
export function recordFront(tx: Queryable, { id }: Study): void {
  const row = requireStudy(tx, id);
  const front = frontOf(studySettings(row), listTrials(tx, id)).map(({ number }) => number);
  if (front.join() === (row.toldFrontJson ?? []).join()) return;
  tx.update(study).set({ toldFrontJson: front }).where(eq(study.id, id)).run();
  appendStudyEvent(tx, id, 'FRONT_CHANGED', { front });
}

/** When all of the trials have ended; nothing when that is known already. An extension may fill up a generation that was not full. */
export function recordGenerationEnd(tx: Queryable, { id }: Study, trials: readonly Trial[]): void {
  const last = trials.at(-1);
  if (!last || requireStudy(tx, id).toldTrials === trials.length) return;
  tx.update(study).set({ toldTrials: trials.length }).where(eq(study.id, id)).run();
  appendStudyEvent(tx, id, 'GENERATION_ENDED', { generation: last.generation, trials: trials.length });
}

/** At most `limit` events with a seq greater than `after`, in order. */
export const readStudyEvents = (db: Queryable, studyId: string, after: number, limit: number): StudyEvent[] =>
  db
    .select()
    .from(studyEvent)
    .where(and(eq(studyEvent.studyId, studyId), gt(studyEvent.seq, after)))
    .orderBy(asc(studyEvent.seq))
    .limit(limit)
    .all();

/**
 * The events of a study with a seq greater than `after`, without a gap. A retry or an extension can follow every end, so the stream ends only
 * when the study is deleted. NOT_FOUND without such a study.
 */
export function watchStudyEvents({ db, bus }: { db: Db; bus: Bus }, studyId: string, after: number) {
  requireStudy(db, studyId);
  let seq = after;
  return follow<StudyEvent>(
    (wake) => {
      let jobId = findStudy(db, studyId)?.jobId;
      // A move of a child wakes `jobEvent` of the job that coordinates it.
      const isOurs = (key: string) => key === jobId;
      const offs = [
        bus.on('jobEvent', null, (key) => isOurs(key) && wake()),
        bus.on('jobChanged', null, (key) => {
          // Of a deleted study each change wakes, so that the stream ends.
          jobId = findStudy(db, studyId)?.jobId ?? key;
          if (isOurs(key)) wake();
        }),
      ];
      return () => {
        for (const off of offs) off();
      };
    },
    function* () {
      for (let rows = readStudyEvents(db, studyId, seq, pageRows); rows.length > 0; rows = readStudyEvents(db, studyId, seq, pageRows)) {
        for (const row of rows) {
          yield row;
          seq = row.seq;
        }
      }
      return findStudy(db, studyId) === undefined;
    },
  );
}

/** The job that an event names; null when it was deleted. */
export const jobOfEvent = (db: Queryable, { payloadJson }: StudyEvent): Job | null => findJob(db, String(payloadJson.jobId)) ?? null;
