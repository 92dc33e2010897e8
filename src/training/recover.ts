/** The fine-tuning with fake quantisation that a compression to INT8 may begin with: a training of the checkpoint behind the ONNX version. */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { Queryable } from '../db.ts';
import { refuse } from '../errors.ts';
import type { JobServices } from '../jobs/kinds.ts';
import { type CompressSpec, SPEC_VERSION, Training, TrainingRuntime } from '../jobs/specs.ts';
import { findModelVersion } from '../models/models.ts';
import type { ModelVersion } from '../models/tables.ts';
import { codeVersion } from '../version.ts';
import { requireReadyDataset, versionFile } from './sources.ts';
import { trainingOf, trainingOfRun } from './train.ts';

/** Of the learning rate of the training: the weights are to move little. */
const rateShare = 0.1;

export const RecoverInput = z.object({
  epochs: z.int().min(1).max(20).default(3),
  learningRate: z.number().gt(0).max(10).nullish(),
});

/** What is stored of it: the checkpoint version that it begins with, and the training. */
export const Recovery = z.object({ modelVersionId: z.string() }).and(Training);
export type Recovery = z.infer<typeof Recovery>;

/** The training with the hyperparameters of the run that made the checkpoint. An InputError where there is no such run. */
export function recoveryOf(tx: Queryable, source: ModelVersion, datasetVersionId: string, input: z.infer<typeof RecoverInput>): Recovery {
  const parent = source.origin === 'CONVERTED' && source.parentId ? findModelVersion(tx, source.parentId) : null;
  if (parent?.origin !== 'TRAINED') {
    refuse(
      'INVALID',
      'recover',
      `Only a version that was converted from a checkpoint trained here can be fine-tuned: ${whyNot(source, parent)}. Leave \`recover\` out.`,
    );
  }
  const { classesJson } = requireReadyDataset(tx, datasetVersionId);
  if (!isDeepStrictEqual(source.labelsJson, classesJson)) {
    refuse(
      'INVALID',
      'datasetVersionId',
      'A fine-tuning needs a dataset with all classes of the model in the same order. Name one, or leave `recover` out.',
    );
  }
  const { preset, hyperparameters } = trainingOfRun(tx, parent.jobId);
  const changed = {
    epochs: input.epochs,
    learningRate: input.learningRate ?? rateShare * hyperparameters.learningRate,
    // The weights that were rounded are kept, not an average of them; 16-bit floats would round on their own.
    emaDecay: 0,
    mixedPrecision: 'OFF',
    // The graph with fake quantisation is another one.
    compile: false,
    earlyStopping: 0,
    ...('mosaicUntil' in hyperparameters ? { mosaicUntil: 0 } : {}),
  };
  return { modelVersionId: parent.id, ...trainingOf(preset, changed, hyperparameters) };
}

function whyNot(source: ModelVersion, parent: ModelVersion | null | undefined): string {
  if (source.origin !== 'CONVERTED') return `this one is ${source.origin}`;
  return parent ? `its checkpoint is ${parent.origin}` : 'its checkpoint was deleted';
}

/** The training as the trainer runs it. */
export function recoverSpecOf(
  services: JobServices,
  { modelVersionId, ...training }: Recovery,
  spec: Pick<z.infer<typeof CompressSpec>, 'device' | 'seed' | 'cpuThreads' | 'model'> & {
    dataset: NonNullable<z.infer<typeof CompressSpec>['dataset']>;
    resumeFrom: string | null;
  },
): NonNullable<z.infer<typeof CompressSpec>['recover']> {
  const { device, seed, cpuThreads, model, dataset, resumeFrom } = spec;
  return {
    kind: 'TRAIN',
    specVersion: SPEC_VERSION,
    codeVersion,
    ...training,
    device,
    seed,
    cpuThreads,
    processes: 1,
    dataset,
    preprocess: model.preprocess,
    init: { from: 'WEIGHTS', file: versionFile(services, modelVersionId, 'WEIGHTS'), classes: model.classes },
    resumeFrom,
    cacheDiskBytesMax: services.config.trainingCacheDiskBytes,
    ...TrainingRuntime.parse({}),
  };
}
