import { z } from 'zod';
import type { Actor } from '../accounts/audit.ts';
import type { Queryable } from '../db.ts';
import { parseInput, refuse } from '../errors.ts';
import { submitJob } from '../jobs/enqueue.ts';
import { JobFailure, type JobKind, type JobServices } from '../jobs/kinds.ts';
import { cpuThreadsOf, launchTrainer } from '../jobs/python.ts';
import { CompressSpec, SPEC_VERSION } from '../jobs/specs.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import type { Job } from '../jobs/tables.ts';
import type { ModelVersion } from '../models/tables.ts';
import { codeVersion } from '../version.ts';
import { OutputLayout, PreprocessSpec } from '../vision/spec.ts';
import { Compression, calibrationMethods, compressedPrecisions } from './gates.ts';
import { acceptEvaluatedOnnx } from './register.ts';
import {
  datasetRef,
  modelRef,
  requireClasses,
  requireLabels,
  requirePreprocess,
  requireReadyDataset,
  requireReadyModel,
  requireTask,
  taskOf,
} from './sources.ts';

/** Fewer do not show the range of each tensor. */
const calibrationImagesMin = 96;

/** `specJson` of a COMPRESS job. */
export const CompressRequest = z.object({
  modelVersionId: z.string(),
  datasetVersionId: z.string().nullable(),
  outputLayout: OutputLayout.nullable(),
  cpuThreads: z.int().min(1).max(1024),
  device: z.literal('cpu'),
  /** Of the choice of calibration images, and of the noise where there is no dataset. */
  seed: z.int().min(0).max(0xffff_ffff),
  compression: Compression,
});
export type CompressRequest = z.infer<typeof CompressRequest>;

const StartCompressionInput = z.object({
  modelVersionId: z.string(),
  precision: z.enum(compressedPrecisions),
  budget: Compression.shape.budget.default(1),
  datasetVersionId: z.string().nullish(),
  calibration: z
    .object({
      method: z.enum(calibrationMethods).default('MINMAX'),
      images: z.int().min(calibrationImagesMin).max(512).default(256),
      seed: CompressRequest.shape.seed.default(0),
    })
    .nullish(),
  outputLayout: OutputLayout.nullish(),
  idempotencyKey: z.string().max(200).nullish(),
});
type StartCompressionInput = z.infer<typeof StartCompressionInput>;

const requestOf = (job: Job): CompressRequest => CompressRequest.parse(storedSpec(job));

/** Puts the compression of an ONNX version with 32-bit weights into the queue. */
export function startCompression(services: JobServices, actor: Actor, raw: unknown): Job {
  const input = parseInput(StartCompressionInput, raw);
  const { modelVersionId, precision, budget, outputLayout = null } = input;
  return submitJob(services, actor, { kind: 'COMPRESS', input }, (tx): CompressRequest => {
    const source = requireSource(tx, modelVersionId);
    // By default the data that it was trained on.
    const datasetVersionId = input.datasetVersionId ?? source.datasetVersionId;
    const trainImages = datasetVersionId ? requireImages(tx, source, datasetVersionId) : 0;
    return {
      modelVersionId,
      datasetVersionId,
      outputLayout,
      cpuThreads: cpuThreadsOf(services.config),
      device: 'cpu',
      seed: input.calibration?.seed ?? 0,
      compression: { precision, budget, calibration: precision === 'INT8' ? calibrationOf(input, datasetVersionId, trainImages) : null },
    };
  });
}

function requireSource(tx: Queryable, modelVersionId: string): ModelVersion {
  const source = requireReadyModel(tx, modelVersionId);
  if (source.format !== 'ONNX')
    refuse('INVALID', 'modelVersionId', 'Only an ONNX version can be compressed: convert the checkpoint with `startConversion` first.');
  if (source.precision !== 'FP32')
    refuse('INVALID', 'modelVersionId', `The version is ${source.precision} already: compress the FP32 version that it was made from.`);
  requireLabels(source);
  requirePreprocess(source);
  return source;
}

/** How many images there are to calibrate on. An InputError where the dataset cannot judge the model. */
function requireImages(tx: Queryable, source: ModelVersion, datasetVersionId: string): number {
  const dataset = requireReadyDataset(tx, datasetVersionId);
  requireTask(tx, dataset, taskOf(tx, source));
  requireClasses(source, dataset.classesJson);
  if (!dataset.countsJson?.images.val)
    refuse('INVALID', 'datasetVersionId', 'The dataset version has no validation images: a compressed model is judged by them.');
  return dataset.countsJson.images.train;
}

function calibrationOf({ calibration }: StartCompressionInput, datasetVersionId: string | null, trainImages: number) {
  if (!datasetVersionId)
    refuse('INVALID', 'datasetVersionId', 'INT8 needs a dataset: name one with `datasetVersionId`, or compress to FP16.');
  if (trainImages < calibrationImagesMin) {
    refuse(
      'INVALID',
      'datasetVersionId',
      `INT8 is calibrated on at least ${calibrationImagesMin} images of the train split; this dataset version has ${trainImages}.`,
    );
  }
  const { method = 'MINMAX', images = 256 } = calibration ?? {};
  return { method, images: Math.min(images, trainImages) };
}

/** An ONNX version becomes a smaller one behind the compression gate, with an evaluation of its own. */
export const compressJob: JobKind = {
  timeLimitMs: 24 * 3_600_000,

  async launch(services, { job }) {
    const { modelVersionId, datasetVersionId, outputLayout, ...rest } = requestOf(job);
    return launchTrainer(
      CompressSpec.parse({
        kind: 'COMPRESS',
        specVersion: SPEC_VERSION,
        codeVersion,
        ...rest,
        model: modelRef(services, modelVersionId, outputLayout),
        dataset: datasetVersionId ? await datasetRef(services, datasetVersionId) : null,
      }),
    );
  },

  async finish(services, attempt, outcome) {
    const { modelVersionId, datasetVersionId, seed, compression } = requestOf(attempt.job);
    const source = requireReadyModel(services.db, modelVersionId);
    const dataset = datasetVersionId ? requireReadyDataset(services.db, datasetVersionId) : null;
    const numbers = outcome.gates.at(-1)?.numbers;
    if (!numbers || !('steps' in numbers)) throw new JobFailure('GATE_FAILED', 'The compressed model was not measured.');
    const origin = {
      modelId: source.modelId,
      jobId: attempt.job.id,
      datasetVersionId: source.datasetVersionId,
      parentId: source.id,
      labels: requireLabels(source),
      preprocess: PreprocessSpec.parse(source.preprocessJson),
      lineageSpec: {
        kind: 'COMPRESS',
        seed,
        ...compression,
        imagesHash: numbers.calibration?.imagesHash ?? null,
        judgedBy: dataset?.contentHash ?? null,
      },
      how: 'OPTIMIZED',
    } as const;
    return acceptEvaluatedOnnx(services, attempt, outcome, origin, { kind: 'COMPRESS', datasetVersionId });
  },

  redo(tx, retried) {
    const { modelVersionId, datasetVersionId } = requestOf(retried);
    requireReadyModel(tx, modelVersionId);
    if (datasetVersionId) requireReadyDataset(tx, datasetVersionId);
  },
};
