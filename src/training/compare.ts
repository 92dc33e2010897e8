/** Trainings beside each other: what was set differently, and what they reached. */
import { isDeepStrictEqual } from 'node:util';
import type { Db } from '../db.ts';
import { ApiError } from '../errors.ts';
import { type Curve, readCurves } from '../jobs/curves.ts';
import { storedHyperparameters } from '../jobs/presets.ts';
import { replaceIds } from '../jobs/references.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import type { Job } from '../jobs/tables.ts';
import { opaqueId } from '../naming.ts';
import type { TrainRequest } from './train.ts';

export const comparedMin = 2;
export const comparedMax = 8;
const pointsMax = 5000;

/** A setting by its name, with its value in each job; null where the job's preset does not have it. */
export interface ComparedSetting {
  name: string;
  values: unknown[];
}

/** A metric with a value for each job; null where the job has not measured it. */
export interface ComparedMetric {
  name: string;
  last: (number | null)[];
  best: (number | null)[];
  bestEpochs: (number | null)[];
}

export interface JobComparison {
  jobs: Job[];
  settings: ComparedSetting[];
  metrics: ComparedMetric[];
}

/** `request` is that of `inTurn`: a training may have many points. */
export async function compareJobs(db: Db, request: object, jobs: Job[]): Promise<JobComparison> {
  const other = jobs.find(({ kind }) => kind !== 'TRAIN');
  if (other) throw new ApiError('INVALID', `Trainings are compared; one of the jobs is ${other.kind}.`);
  const curves: Map<string, Curve>[] = [];
  for (const { id } of jobs) curves.push(new Map((await readCurves(db, request, id, null, pointsMax)).map((curve) => [curve.name, curve])));
  const names = [...new Set(curves.flatMap((ofJob) => [...ofJob.keys()]))].filter((name) => name !== 'learningRate').sort();
  return {
    jobs,
    settings: differing(jobs.map(settingsOf)),
    metrics: names.map((name) =>
      compareMetric(
        name,
        curves.map((ofJob) => ofJob.get(name)?.points ?? []),
      ),
    ),
  };
}

function settingsOf(job: Job): Record<string, unknown> {
  const { preset, hyperparameters, datasetVersionId, init, seed, device, cpuThreads, processes } = storedSpec(job) as TrainRequest;
  const run = replaceIds({ preset, datasetVersionId, init, seed, device, cpuThreads, processes }, opaqueId) as Record<string, unknown>;
  return { ...run, ...storedHyperparameters(preset, hyperparameters) };
}

function differing(settings: Record<string, unknown>[]): ComparedSetting[] {
  const names = [...new Set(settings.flatMap(Object.keys))];
  return names
    .map((name) => ({ name, values: settings.map((ofJob) => ofJob[name] ?? null) }))
    .filter(({ values }) => values.some((value) => !isDeepStrictEqual(value, values[0])));
}

function compareMetric(name: string, runs: Curve['points'][]): ComparedMetric {
  const sign = /loss$/i.test(name) ? -1 : 1;
  const best = runs.map((points) =>
    points.reduce((a, b) => (sign * b.value > sign * a.value ? b : a), points[0] as Curve['points'][number]),
  );
  return {
    name,
    last: runs.map((points) => points.at(-1)?.value ?? null),
    best: best.map((point) => point?.value ?? null),
    bestEpochs: best.map((point) => point?.epoch ?? null),
  };
}
