import { isDeepStrictEqual } from 'node:util';
import { and, desc, eq } from 'drizzle-orm';
import { z } from 'zod';
import type { Actor } from '../accounts/audit.ts';
import type { Queryable } from '../db.ts';
import { parseInput, refuse } from '../errors.ts';
import { submitJob } from '../jobs/enqueue.ts';
import type { AttemptContext, JobKind, JobServices } from '../jobs/kinds.ts';
import { recordLive } from '../jobs/moves.ts';
import { cpuThreadsOf, launchTrainer } from '../jobs/python.ts';
import { type PresetName, presets, SPEC_VERSION, Training, TrainSpec } from '../jobs/specs.ts';
import type { Job } from '../jobs/tables.ts';
import { findModelByName, insertModel } from '../models/models.ts';
import { type ModelVersion, modelVersion } from '../models/tables.ts';
import { Name } from '../naming.ts';
import { insertArtifact } from '../storage/blobs.ts';
import { requireDisk } from '../storage/disk.ts';
import { codeVersion } from '../version.ts';
import { type PreprocessSpec, presetPreprocess } from '../vision/spec.ts';
import { requirePublicWeights } from './publicWeights.ts';
import { acceptEvaluation, acceptOnnx, findCheckpoint, insertCheckpoint, type Origin, requireMade, storeMade } from './register.ts';
import { datasetRef, requireReadyDataset, requireReadyModel, requireTask, versionFile } from './sources.ts';

/** Three checkpoints of ResNet50 with AdamW's state and the ONNX file, with room to spare. */
const trainingBytes = 2 * 2 ** 30;
const dayMs = 86_400_000;

const Init = z.discriminatedUnion('from', [
  z.object({ from: z.literal('SCRATCH') }),
  z.object({ from: z.literal('PRETRAINED') }),
  z.object({ from: z.literal('WEIGHTS'), modelVersionId: z.string() }),
  z.object({ from: z.literal('CHECKPOINT'), modelVersionId: z.string() }),
]);

const Common = z.object({
  cpuThreads: z.int().min(1).max(1024),
  device: z.enum(['auto', 'cpu', 'cuda']),
  seed: z.int().min(0).max(0xffff_ffff),
});

/** `specJson` of a TRAIN job. */
export const TrainRequest = Common.extend({ modelId: z.string(), datasetVersionId: z.string(), init: Init }).and(Training);
export type TrainRequest = z.infer<typeof TrainRequest>;

const StartTrainingInput = z.object({
  modelName: Name,
  datasetVersionId: z.string(),
  preset: z.enum(Object.keys(presets) as [keyof typeof presets], 'There is no such preset: the query `presets` lists them.'),
  hyperparameters: z.record(z.string(), z.unknown()).default({}),
  init: Init,
  seed: Common.shape.seed,
  cpuThreads: Common.shape.cpuThreads.optional(),
  device: Common.shape.device,
  priority: z.int().min(-100).max(100).optional(),
  idempotencyKey: z.string().max(200).optional(),
});

/** The preset with the hyperparameters that were said and its defaults for the others; an InputError where they are not its own. */
function trainingOf(preset: PresetName, said: Record<string, unknown>): Training {
  const { hyperparameters } = parseInput(z.object({ hyperparameters: z.strictObject(presets[preset].hyperparameters.shape) }), {
    hyperparameters: said,
  });
  return Training.parse({ preset, hyperparameters });
}

/** What a training's images go through. */
const preprocessOf = ({ preset, hyperparameters }: Training): PreprocessSpec =>
  presetPreprocess(hyperparameters.imageSize, presets[preset].task);

const requestOf = ({ specJson }: Pick<Job, 'specJson'>): TrainRequest => TrainRequest.parse(specJson);

/** Puts a training into the queue; its model is made when there is none of that name. */
export async function startTraining(services: JobServices, actor: Actor, raw: unknown): Promise<Job> {
  const input = parseInput(StartTrainingInput, raw);
  const { modelName, datasetVersionId, preset, init, seed, device, priority, idempotencyKey } = input;
  const training = trainingOf(preset, input.hyperparameters);
  await requireDisk(services, trainingBytes);
  if (init.from === 'PRETRAINED') await requirePublicWeights(services, preset);
  return submitJob(services, actor, { kind: 'TRAIN', idempotencyKey, priority }, (tx): TrainRequest => {
    const dataset = requireReadyDataset(tx, datasetVersionId);
    if (!dataset.countsJson?.images.val) {
      refuse('INVALID', 'datasetVersionId', 'The dataset version has no validation images: a training is judged by them.');
    }
    if ('modelVersionId' in init) requireStart(tx, init.from, init.modelVersionId, preset, dataset.classesJson);
    const { task } = presets[preset];
    requireTask(tx, dataset, task);
    const found = findModelByName(tx, modelName);
    if (found && found.task !== task) refuse('INVALID', 'modelName', `The model ${modelName} is for ${found.task}.`);
    const model = found ?? insertModel(tx, { name: modelName, task, notes: '', createdById: actor.actorId });
    return {
      modelId: model.id,
      datasetVersionId,
      ...training,
      init,
      seed,
      device,
      cpuThreads: input.cpuThreads ?? cpuThreadsOf(services.config),
    };
  });
}

function requireStart(tx: Queryable, from: 'WEIGHTS' | 'CHECKPOINT', id: string, preset: string, classes: string[]): void {
  const row = requireReadyModel(tx, id);
  if (row.format !== 'CHECKPOINT' || row.preset !== preset) {
    refuse(
      'INVALID',
      'init',
      `A training of ${preset} starts from weights of ${preset}; this version is ${row.format} of ${row.preset ?? 'no preset'}.`,
    );
  }
  if (from === 'CHECKPOINT' && row.origin !== 'TRAINED') {
    refuse('INVALID', 'init', 'Only a version that was trained here has the state to go on from. Start from its WEIGHTS.');
  }
  // Its optimizer's memory belongs to the rows of these classes, which are known by their place only.
  if (from === 'CHECKPOINT' && !isDeepStrictEqual(row.labelsJson, classes)) {
    refuse(
      'INVALID',
      'init',
      `The run to continue had the classes ${(row.labelsJson ?? []).slice(0, 5).join(', ')}, …; this dataset has ${classes.slice(0, 5).join(', ')}, …. Start from its WEIGHTS: the classes are matched by name.`,
    );
  }
}

/** What the versions of a training were made from. */
function originOf(db: Queryable, { job }: AttemptContext): Origin {
  const { modelId, datasetVersionId, preset, hyperparameters, init, seed, cpuThreads, device } = requestOf(job);
  const { from } = init;
  return {
    modelId,
    jobId: job.id,
    datasetVersionId,
    parentId: 'modelVersionId' in init ? init.modelVersionId : null,
    labels: requireReadyDataset(db, datasetVersionId).classesJson,
    lineageSpec: { kind: 'TRAIN', preset, hyperparameters, from, seed, cpuThreads, device },
  };
}

/** The version that this job registered last. */
function newestCheckpointOf(db: Queryable, jobId: string): ModelVersion {
  const mine = and(eq(modelVersion.jobId, jobId), eq(modelVersion.format, 'CHECKPOINT'));
  const row = db.select().from(modelVersion).where(mine).orderBy(desc(modelVersion.number)).limit(1).get();
  if (!row) throw new Error('The child told of its files in another order.');
  return row;
}

/** The training job: weights, then the conversion of the best ones. */
export const trainJob: JobKind = {
  timeLimitMs: 14 * dayMs,

  async launch(services, { job, resumeFrom }) {
    const request = requestOf(job);
    const { init, preset, hyperparameters, datasetVersionId, cpuThreads, device, seed } = request;
    const start =
      init.from === 'WEIGHTS'
        ? {
            from: init.from,
            file: versionFile(services, init.modelVersionId, 'WEIGHTS'),
            classes: requireReadyModel(services.db, init.modelVersionId).labelsJson,
          }
        : init.from === 'CHECKPOINT'
          ? { from: init.from, file: versionFile(services, init.modelVersionId, 'CHECKPOINT') }
          : init.from === 'PRETRAINED'
            ? { from: init.from, file: null }
            : init;
    return launchTrainer(
      TrainSpec.parse({
        kind: 'TRAIN',
        specVersion: SPEC_VERSION,
        codeVersion,
        cpuThreads,
        device,
        seed,
        preset,
        dataset: await datasetRef(services, datasetVersionId),
        preprocess: preprocessOf(request),
        hyperparameters,
        init: start,
        resumeFrom,
        conversion: {},
      }),
    );
  },

  /** The checkpoint version is there before the conversion begins: a failed gate does not cost the training. */
  async artifact(services, attempt, made) {
    const { db } = services;
    const { id: jobId } = attempt.job;
    if (made.kind === 'WEIGHTS') {
      const request = requestOf(attempt.job);
      const stored = await storeMade(services, attempt, made);
      recordLive(db, jobId, attempt.attemptNumber, (tx) => {
        if (!findCheckpoint(tx, jobId, String(made.meta.weightsHash))) {
          insertCheckpoint(tx, originOf(tx, attempt), stored, made.meta, preprocessOf(request));
        }
      });
    }
    if (made.kind === 'CHECKPOINT') {
      const stored = await storeMade(services, attempt, made);
      recordLive(db, jobId, attempt.attemptNumber, (tx) => {
        const owner = newestCheckpointOf(tx, jobId);
        insertArtifact(tx, stored, {
          ownerType: 'MODEL_VERSION',
          ownerId: owner.id,
          kind: 'CHECKPOINT',
          name: String(made.file),
          metaJson: made.meta,
        });
      });
    }
    if (made.kind === 'EVALUATION') {
      const { datasetVersionId } = requestOf(attempt.job);
      const { id: modelVersionId } = newestCheckpointOf(db, jobId);
      const insert = await acceptEvaluation(services, attempt, made, { modelVersionId, datasetVersionId, split: 'val', engine: 'torch' });
      recordLive(db, jobId, attempt.attemptNumber, insert);
    }
  },

  async finish(services, attempt, outcome) {
    const { weightsHash } = requireMade(outcome, 'WEIGHTS').meta;
    const checkpoint = findCheckpoint(services.db, attempt.job.id, String(weightsHash));
    if (!checkpoint) throw new Error('The trained weights are not registered.');
    const origin = { ...originOf(services.db, attempt), parentId: checkpoint.id };
    const insert = await acceptOnnx(services, attempt, outcome, origin);
    return (tx) => ({ ...outcome.result, checkpointVersionId: checkpoint.id, modelVersionId: insert(tx).id });
  },
};
