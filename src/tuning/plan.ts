import { and, desc, eq, sql } from 'drizzle-orm';
import { findVersionEver } from '../datasets/datasets.ts';
import type { Queryable } from '../db.ts';
import { type Job, job, jobEvent } from '../jobs/tables.ts';
import type { TrainRequest } from '../training/train.ts';
import { epochsOfGeneration } from './halving.ts';
import { hyperparametersOfTrial, type StudySettings } from './settings.ts';

/** Trainings from whose speed the duration is estimated. */
const trainingsMax = 20;

/** How much work a study is, before it starts. */
export interface StudyPlan {
  trials: number;
  generations: number;
  /** At most: copies and trials that diverge train less. */
  epochs: number;
  /** Null where no training of the preset tells how fast this machine is. */
  estimatedMs: number | null;
  /** Number of earlier trainings whose speed it is estimated from. */
  basedOn: number;
}

export function planOf(db: Queryable, settings: StudySettings, datasetVersionId: string, trials: number, slots: number): StudyPlan {
  const { population, halving } = settings;
  const { epochs, imageSize } = hyperparametersOfTrial(settings, middleOf(settings)).hyperparameters;
  const [whole, rest] = [Math.floor(trials / population), trials % population];
  const total = whole * epochsOfGeneration(halving, epochs, population) + (rest > 0 ? epochsOfGeneration(halving, epochs, rest) : 0);
  const speeds = speedsOf(db, settings.preset);
  const images = trainImages(db, datasetVersionId);
  const speed = speeds[Math.floor(speeds.length / 2)];
  const estimatedMs = speed === undefined ? null : Math.round((total * images * imageSize ** 2 * speed) / Math.min(slots, population));
  return { trials, generations: Math.ceil(trials / population), epochs: total, estimatedMs, basedOn: speeds.length };
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

/** Milliseconds for a pixel of an epoch, sorted: one for each of the newest trainings of the preset. */
function speedsOf(db: Queryable, preset: string): number[] {
  const isOfPreset = and(eq(job.kind, 'TRAIN'), eq(job.state, 'SUCCEEDED'), sql`json_extract(${job.specJson}, '$.preset') = ${preset}`);
  const jobs = db.select().from(job).where(isOfPreset).orderBy(desc(job.createdAt)).limit(trainingsMax).all();
  return jobs.flatMap((one) => speedOf(db, one)).sort((a, b) => a - b);
}

function speedOf(db: Queryable, { id, specJson }: Job): number[] {
  const { datasetVersionId, hyperparameters } = specJson as TrainRequest;
  const isEpoch = and(eq(jobEvent.jobId, id), eq(jobEvent.type, 'EPOCH'));
  const events = db.select().from(jobEvent).where(isEpoch).orderBy(desc(jobEvent.seq)).limit(10).all();
  const durations = events.map(({ payloadJson }) => Number(payloadJson.durationMs)).sort((a, b) => a - b);
  const median = durations[Math.floor(durations.length / 2)];
  const pixels = trainImages(db, datasetVersionId) * hyperparameters.imageSize ** 2;
  return median === undefined || pixels === 0 ? [] : [median / pixels];
}
