/**
 * The job MEASURE: how long an image of each size takes, for a study that has latency as an objective. The graph of a preset depends on the image
 * size and the number of classes, and its speed not on the weights. So it is measured once for all trials, before the first one.
 */
import { z } from 'zod';
import type { Queryable } from '../db.ts';
import { JobFailure, type JobKind } from '../jobs/kinds.ts';
import { preprocessOf } from '../jobs/presets.ts';
import { launchTrainer } from '../jobs/python.ts';
import { results } from '../jobs/results.ts';
import { MeasureSpec, SPEC_VERSION } from '../jobs/specs.ts';
import { type StoredJob, storedSpec } from '../jobs/storedSpec.ts';
import { requireReadyDataset } from '../training/sources.ts';
import { trainingOf } from '../training/train.ts';
import { codeVersion } from '../version.ts';
import { imageSizesOf } from './settings.ts';
import { requireStudy, studySettings } from './studies.ts';
import type { Study } from './tables.ts';

/** `specJson` of a MEASURE job. */
export const MeasureRequest = z.object({ studyId: z.string() });

const studyOf = (db: Queryable, job: StoredJob): Study => requireStudy(db, MeasureRequest.parse(storedSpec(job)).studyId);

/** Whether a study has to wait for latencies. */
export const lacksLatencies = (row: Study): boolean => row.latenciesJson === null && studySettings(row).objectives.includes('LATENCY');

export const measureJob: JobKind = {
  timeLimitMs: 4 * 3_600_000,

  launch({ config, db }, { job }) {
    const row = studyOf(db, job);
    const settings = studySettings(row);
    const { preset, fixed, seed, cpuThreads } = settings;
    const { hyperparameters } = trainingOf(preset, fixed, {});
    return launchTrainer(
      config,
      MeasureSpec.parse({
        kind: 'MEASURE',
        specVersion: SPEC_VERSION,
        codeVersion,
        cpuThreads,
        device: 'cpu',
        seed,
        preset,
        classCount: requireReadyDataset(db, row.datasetVersionId).classesJson.length,
        preprocess: imageSizesOf(settings).map((imageSize) => preprocessOf(preset, { ...hyperparameters, imageSize })),
      }),
    );
  },

  async finish({ db }, { job }, outcome) {
    const { latenciesMs } = results.MEASURE.parse(outcome.result);
    const sizes = imageSizesOf(studySettings(studyOf(db, job)));
    if (latenciesMs.length !== sizes.length)
      throw new JobFailure('INTERNAL', `The trainer has measured ${latenciesMs.length} of ${sizes.length} sizes.`);
    return () => ({ latencies: Object.fromEntries(sizes.map((size, n) => [size, latenciesMs[n]])) });
  },
};
