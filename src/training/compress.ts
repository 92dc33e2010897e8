import { z } from 'zod';
import type { Actor } from '../accounts/audit.ts';
import type { Queryable } from '../db.ts';
import { parseInput, refuse } from '../errors.ts';
import { submitJob } from '../jobs/enqueue.ts';
import { JobFailure, type JobKind, type JobServices } from '../jobs/kinds.ts';
import { presetName } from '../jobs/presets.ts';
import { cpuThreadsOf, launchTrainer } from '../jobs/python.ts';
import { CompressSpec, ConvertSpec, SPEC_VERSION } from '../jobs/specs.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import type { Job } from '../jobs/tables.ts';
import { findModelVersion } from '../models/models.ts';
import type { ModelVersion } from '../models/tables.ts';
import { requireDisk } from '../storage/disk.ts';
import { codeVersion } from '../version.ts';
import { OutputLayout, PreprocessSpec } from '../vision/spec.ts';
import { Compression, calibrationMethods, compressedPrecisions } from './gates.ts';
import { RecoverInput, Recovery, recoverSpecOf, recoveryOf } from './recover.ts';
import { acceptEvaluatedOnnx } from './register.ts';
import {
  datasetFor,
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
import { storedTraining, trainingBytes } from './train.ts';

/** Fewer do not show the range of each tensor. */
const calibrationImagesMin = 96;

/** `specJson` of a COMPRESS job. */
export const CompressRequest = z.object({
  modelVersionId: z.string(),
  datasetVersionId: z.string().nullable(),
  outputLayout: OutputLayout.nullable(),
  cpuThreads: z.int().min(1).max(1024),
  /** Of the fine-tuning; all else is computed on the CPU. */
  device: ConvertSpec.shape.device,
  /** Of the choice of calibration images, and of the noise where there is no dataset. */
  seed: z.int().min(0).max(0xffff_ffff),
  compression: Compression,
  recover: Recovery.nullable(),
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
  recover: RecoverInput.nullish(),
  outputLayout: OutputLayout.nullish(),
  idempotencyKey: z.string().max(200).nullish(),
});
type StartCompressionInput = z.infer<typeof StartCompressionInput>;

function requestOf(job: Job): CompressRequest {
  const { recover, ...stored } = storedSpec(job) as CompressRequest;
  return CompressRequest.parse({ ...stored, recover: recover && storedTraining(recover) });
}

/** Puts the compression of an ONNX version with 32-bit weights into the queue. */
export async function startCompression(services: JobServices, actor: Actor, raw: unknown): Promise<Job> {
  const input = parseInput(StartCompressionInput, raw);
  const { modelVersionId, precision, budget, outputLayout = null } = input;
  const preset = presetName.safeParse(findModelVersion(services.db, modelVersionId)?.preset).data;
  // A foreign file has no preset; it is refused below.
  if (input.recover && preset) await requireDisk(services, trainingBytes(preset));
  return submitJob(services, actor, { kind: 'COMPRESS', input }, (tx): CompressRequest => {
    const source = requireSource(tx, modelVersionId);
    const datasetVersionId = datasetFor(tx, source, input.datasetVersionId);
    const trainImages = datasetVersionId ? requireImages(tx, source, datasetVersionId) : 0;
    const calibration = precision === 'INT8' ? calibrationOf(input, datasetVersionId, trainImages) : null;
    if (input.recover && !calibration)
      refuse('INVALID', 'recover', `Only INT8 can be fine-tuned, not ${precision}, which loses next to nothing. Leave \`recover\` out.`);
    return {
      modelVersionId,
      datasetVersionId,
      outputLayout,
      cpuThreads: cpuThreadsOf(services.config),
      device: input.recover ? 'auto' : 'cpu',
      seed: input.calibration?.seed ?? 0,
      compression: { precision, budget, calibration },
      recover: input.recover && datasetVersionId ? recoveryOf(tx, source, datasetVersionId, input.recover) : null,
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

  async launch(services, { job, resumeFrom }) {
    const { modelVersionId, datasetVersionId, outputLayout, recover, ...rest } = requestOf(job);
    const dataset = datasetVersionId ? await datasetRef(services, datasetVersionId) : null;
    const model = modelRef(services, modelVersionId, outputLayout);
    return launchTrainer(
      services.config,
      CompressSpec.parse({
        kind: 'COMPRESS',
        specVersion: SPEC_VERSION,
        codeVersion,
        ...rest,
        model,
        dataset,
        recover: recover && dataset ? recoverSpecOf(services, recover, { ...rest, model, dataset, resumeFrom }) : null,
      }),
    );
  },

  async finish(services, attempt, outcome) {
    const { modelVersionId, datasetVersionId, seed, compression, recover, device, cpuThreads } = requestOf(attempt.job);
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
        ...(recover ? { recover: { hyperparameters: recover.hyperparameters, device, cpuThreads } } : {}),
        imagesHash: numbers.calibration?.imagesHash ?? null,
        judgedBy: dataset?.contentHash ?? null,
      },
      how: 'OPTIMIZED',
    } as const;
    return acceptEvaluatedOnnx(services, attempt, outcome, origin, { kind: 'COMPRESS', datasetVersionId });
  },

  redo(tx, retried) {
    const { modelVersionId, datasetVersionId, recover } = requestOf(retried);
    requireReadyModel(tx, modelVersionId);
    if (recover) requireReadyModel(tx, recover.modelVersionId);
    if (datasetVersionId) requireReadyDataset(tx, datasetVersionId);
  },
};
