/** Look-ups of studies and their trials. */
import { and, count, desc, eq, gt, inArray, isNotNull, isNull, lt, or } from 'drizzle-orm';
import type { Queryable } from '../db.ts';
import { ApiError, notFound } from '../errors.ts';
import { findJob } from '../jobs/jobs.ts';
import type { Failure } from '../jobs/states.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import { type Job, job } from '../jobs/tables.ts';
import { modelVersion } from '../models/tables.ts';
import { directionsOf, type ObjectiveName, objectives } from './objectives.ts';
import { nonDominated, type Ranked } from './ranking.ts';
import { hashOfTrial, StudySettings } from './settings.ts';
import { type Study, study, type Trial, trial } from './tables.ts';

export const findStudy = (db: Queryable, id: string): Study | undefined => db.select().from(study).where(eq(study.id, id)).get();

export const requireStudy = (db: Queryable, id: string): Study => findStudy(db, id) ?? notFound('study');

/** The study that a TUNE, ASK, MEASURE or TRAIN job works for, also where it is not the newest of its study. */
export function findStudyOf(db: Queryable, { kind, specJson, parentId }: Pick<Job, 'kind' | 'specJson' | 'parentId'>): Study | undefined {
  const { studyId } = specJson as { studyId?: string };
  if (studyId !== undefined) return findStudy(db, studyId);
  const parent = kind === 'TRAIN' && parentId !== null ? findJob(db, parentId) : undefined;
  return parent && findStudyOf(db, parent);
}

export const studySettings = ({ settingsJson }: Pick<Study, 'settingsJson'>): StudySettings => StudySettings.parse(settingsJson);

/** When a study was made, and its id. */
export const studyKey = ({ createdAt, id }: Study): string => `${createdAt} ${id}`;
export const isStudyKey = (key: unknown): key is string => typeof key === 'string' && /^\d{1,15} [\w-]{1,100}$/.test(key);

/** Newest first, behind the key `after`. */
export function listStudies(db: Queryable, limit: number, after: string | null): Study[] {
  const [at, id = ''] = after?.split(' ') ?? [];
  const isBehind =
    at === undefined ? undefined : or(lt(study.createdAt, Number(at)), and(eq(study.createdAt, Number(at)), lt(study.id, id)));
  return db.select().from(study).where(isBehind).orderBy(desc(study.createdAt), desc(study.id)).limit(limit).all();
}

/** In the order of their numbers. */
export const listTrials = (db: Queryable, studyId: string): Trial[] =>
  db.select().from(trial).where(eq(trial.studyId, studyId)).orderBy(trial.number).all();

/** A trial as `ranking.ts` compares it. */
export const ranked = (one: Trial): Trial & Ranked => ({ ...one, values: one.valuesJson });

/** Trials that have ended and that no other one is better than, the best by the first objective first; without copies. */
export function frontOf({ objectives: names }: Pick<StudySettings, 'objectives'>, trials: Trial[]): (Trial & Ranked)[] {
  const directions = directionsOf(names);
  const ended = trials.filter(({ outcome, copyOf }) => outcome !== null && copyOf === null).map(ranked);
  const sign = directions[0] === 'MAXIMIZE' ? -1 : 1;
  const first = ({ values }: Ranked) => sign * (values?.[0] ?? 0);
  return nonDominated(ended, directions).sort((a, b) => first(a) - first(b) || a.number - b.number);
}

export const countEnded = (db: Queryable, studyId: string): number =>
  db
    .select({ n: count() })
    .from(trial)
    .where(and(eq(trial.studyId, studyId), isNotNull(trial.outcome)))
    .get()?.n ?? 0;

/** Children of a job that have not ended. */
export const activeChildren = (db: Queryable, parentId: string): number =>
  db
    .select({ n: count() })
    .from(job)
    .where(and(eq(job.parentId, parentId), inArray(job.state, ['QUEUED', 'RUNNING', 'CANCELLING'])))
    .get()?.n ?? 0;

export const trialStates = {
  WAITING: 'Its training waits for its turn, or it waits at a rung for the others of its generation.',
  RUNNING: 'It trains.',
  COMPLETE: 'It was trained to its end, or is a copy of one that was.',
  STOPPED: 'It was weaker than others of its generation at a rung.',
  WORST: 'It diverged, had not enough memory, or was cancelled: it counts as worse than any other.',
} as const;

export function trialState(db: Queryable, { outcome, jobId }: Trial): keyof typeof trialStates {
  if (outcome !== null) return outcome;
  const state = jobId === null ? undefined : findJob(db, jobId)?.state;
  return state === 'RUNNING' || state === 'CANCELLING' ? 'RUNNING' : 'WAITING';
}

/** The trial whose newest training, or the training that registers it, a job is. */
export const findTrialOfTraining = (db: Queryable, jobId: string): Trial | undefined =>
  db
    .select()
    .from(trial)
    .where(or(eq(trial.jobId, jobId), eq(trial.finalJobId, jobId)))
    .get();

/** The trial that a TRAIN job trains, also to an earlier rung, and where a user has repeated it: by its hyperparameters. */
export function findTrialOf(db: Queryable, { id, kind, specJson, parentId }: Job): Trial | undefined {
  if (kind !== 'TRAIN' || parentId === null) return undefined;
  const newest = findTrialOfTraining(db, id);
  const row = newest ? undefined : findStudyOf(db, { kind, specJson, parentId });
  if (!row) return newest;
  const settings = studySettings(row);
  const { hyperparameters = {} } = specJson as { hyperparameters?: Trial['paramsJson'] };
  const params = Object.fromEntries(settings.space.map(({ name }) => [name, hyperparameters[name] as number | string]));
  const isFirst = and(eq(trial.studyId, row.id), eq(trial.hash, hashOfTrial(settings, params)), isNull(trial.copyOf));
  return db.select().from(trial).where(isFirst).get();
}

/** Why the training of a WORST trial failed, or that of the trial that it copies; null when it was cancelled, and of others. */
export function trialFailure(db: Queryable, { studyId, outcome, copyOf, jobId }: Trial): Failure | null {
  if (outcome !== 'WORST') return null;
  const isFirst = and(eq(trial.studyId, studyId), eq(trial.number, copyOf ?? -1));
  const trainedBy = copyOf === null ? jobId : db.select({ jobId: trial.jobId }).from(trial).where(isFirst).get()?.jobId;
  const training = trainedBy ? findJob(db, trainedBy) : undefined;
  return training?.failureCode ? { code: training.failureCode, message: training.failureMessage ?? '' } : null;
}

/** The trainings of a trial, that of the first rung first and that which registered it last: each continues the one before. */
export function trainingsOf(db: Queryable, { jobId, finalJobId }: Trial): Job[] {
  const found: Job[] = [];
  for (let id: unknown = finalJobId ?? jobId; typeof id === 'string'; ) {
    const one = findJob(db, id);
    if (one) found.unshift(one);
    id = one && storedSpec(one).resumeOfJobId;
  }
  return found;
}

/** The job that made the version which a conversion converts; null where that job was deleted. */
export function convertedJobId(db: Queryable, conversion: Job): string | null {
  const { modelVersionId } = storedSpec(conversion) as { modelVersionId?: string };
  const isSource = eq(modelVersion.id, String(modelVersionId));
  return db.select({ jobId: modelVersion.jobId }).from(modelVersion).where(isSource).get()?.jobId ?? null;
}

/** A page of trials behind the one with the number `after`: by number, or the best by an objective first. */
export function pageTrials(db: Queryable, row: Study, objective: ObjectiveName | null, limit: number, after: number | null): Trial[] {
  if (objective === null) {
    const isBehind = after === null ? undefined : gt(trial.number, after);
    return db
      .select()
      .from(trial)
      .where(and(eq(trial.studyId, row.id), isBehind))
      .orderBy(trial.number)
      .limit(limit)
      .all();
  }
  const trials = listTrials(db, row.id);
  const place = studySettings(row).objectives.indexOf(objective);
  if (place < 0)
    throw new ApiError(
      'INVALID',
      `The study does not optimise ${objective}: its objectives are ${studySettings(row).objectives.join(', ')}.`,
    );
  const sign = objectives[objective].direction === 'MAXIMIZE' ? -1 : 1;
  const worth = ({ valuesJson }: Trial) => (valuesJson ? sign * (valuesJson[place] as number) : Number.POSITIVE_INFINITY);
  trials.sort((a, b) => (worth(a) === worth(b) ? a.number - b.number : worth(a) - worth(b)));
  const start = after === null ? 0 : trials.findIndex(({ number }) => number === after) + 1;
  return trials.slice(start, start + limit);
}
