import { and, desc, eq, sql } from 'drizzle-orm';
import { findVersionEver } from '../datasets/datasets.ts';
import type { Queryable } from '../db.ts';
import { attempt, type Job, job, jobEvent } from '../jobs/tables.ts';
import type { TrainRequest } from '../training/train.ts';
import { type GenerationWork, workOfGeneration } from './halving.ts';
import { hyperparametersOfTrial, type StudySettings } from './settings.ts';

/** Trainings from whose speed the duration is estimated. */
const trainingsMax = 20;

/** How much work a study is, before it starts. */
export interface StudyPlan {
  trials: number;
  generations: number;
  /** At most: copies and trials that diverge train less. */
  epochs: number;
  /** With the starts of their processes. Null where no training of the preset tells how fast this machine is. */
  estimatedMs: number | null;
  /** Number of earlier trainings whose speed it is estimated from. */
  basedOn: number;
}

export function planOf(db: Queryable, settings: StudySettings, datasetVersionId: string, trials: number, slots: number): StudyPlan {
  const { population, halving } = settings;
  const { epochs: epochsOfTrial, imageSize } = hyperparametersOfTrial(settings, middleOf(settings)).hyperparameters;
  const [whole, rest] = [Math.floor(trials / population), trials % population];
  const [full, last] = [population, rest].map((size) => workOfGeneration(halving, epochsOfTrial, size)) as [GenerationWork, GenerationWork];
  const epochs = whole * full.epochs + last.epochs;
  const trainings = whole * full.trainings + last.trainings;
  const paces = pacesOf(db, settings.preset);
  const msPerPixel = medianOf(paces.map((pace) => pace.msPerPixel));
  const startMs = medianOf(paces.map((pace) => pace.startMs));
  const pixels = epochs * trainImages(db, datasetVersionId) * imageSize ** 2;
  const estimatedMs =
    msPerPixel === undefined || startMs === undefined
      ? null
      : Math.round((pixels * msPerPixel + trainings * startMs) / Math.min(slots, population));
  return { trials, generations: Math.ceil(trials / population), epochs, estimatedMs, basedOn: paces.length };
}

/** The middle of the space: what a trial costs on the average. */
const middleOf = ({ space }: StudySettings) =>
  Object.fromEntries(
    space.map(({ name, type, low, high, step, choices }) => {
      if (choices) return [name, choices[Math.floor(choices.length / 2)] as number | string];
      const middle = ((low as number) + (high as number)) / 2;
      const unit = step ?? (type === 'INT' ? 1 : null);
      return [name, unit === null ? middle : (low as number) + Math.floor((middle - (low as number)) / unit) * unit];
    }),
  );

const trainImages = (db: Queryable, datasetVersionId: string): number =>
  findVersionEver(db, datasetVersionId)?.countsJson?.images.train ?? 0;

/** How fast a training was. */
interface Pace {
  /** For a pixel of an epoch. */
  msPerPixel: number;
  /** From the start of its process to its first batch. Every rung of a trial has a process of its own. */
  startMs: number;
}

const medianOf = (numbers: number[]): number | undefined => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

/** Of the newest trainings of the preset. */
function pacesOf(db: Queryable, preset: string): Pace[] {
  const isOfPreset = and(eq(job.kind, 'TRAIN'), eq(job.state, 'SUCCEEDED'), sql`json_extract(${job.specJson}, '$.preset') = ${preset}`);
  const jobs = db.select().from(job).where(isOfPreset).orderBy(desc(job.createdAt)).limit(trainingsMax).all();
  return jobs.flatMap((one) => paceOf(db, one));
}

function paceOf(db: Queryable, { id, specJson }: Job): Pace[] {
  const { datasetVersionId, hyperparameters } = specJson as TrainRequest;
  const isEpoch = and(eq(jobEvent.jobId, id), eq(jobEvent.type, 'EPOCH'));
  const events = db.select().from(jobEvent).where(isEpoch).orderBy(desc(jobEvent.seq)).limit(10).all();
  const median = medianOf(events.map(({ payloadJson }) => Number(payloadJson.durationMs)));
  const pixels = trainImages(db, datasetVersionId) * hyperparameters.imageSize ** 2;
  return median === undefined || pixels === 0 ? [] : [{ msPerPixel: median / pixels, startMs: startMsOf(db, id) }];
}

/** Of the attempt that trained first. */
function startMsOf(db: Queryable, jobId: string): number {
  const isTraining = and(eq(jobEvent.jobId, jobId), eq(jobEvent.type, 'PHASE'), sql`${jobEvent.payloadJson} ->> 'phase' = 'training'`);
  const isOfAttempt = and(eq(attempt.jobId, jobEvent.jobId), eq(attempt.number, jobEvent.attemptNumber));
  const first = db
    .select({ startedAt: attempt.startedAt, trainedAt: jobEvent.at })
    .from(jobEvent)
    .innerJoin(attempt, isOfAttempt)
    .where(isTraining)
    .orderBy(jobEvent.seq)
    .limit(1)
    .get();
  // The clock of the machine may have been set back meanwhile.
  return first ? Math.max(0, first.trainedAt - first.startedAt) : 0;
}
