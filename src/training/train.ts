import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { Actor } from '../accounts/audit.ts';
import type { Queryable } from '../db.ts';
import { parseInput, refuse } from '../errors.ts';
import { submitJob } from '../jobs/enqueue.ts';
import { requireInstalled } from '../jobs/extras.ts';
import { requireJob } from '../jobs/jobs.ts';
import { type AttemptContext, JobFailure, type JobKind, type JobServices } from '../jobs/kinds.ts';
import { checkpointBytes, defaultsWith, type PresetName, preprocessOf, presets, storedHyperparameters } from '../jobs/presets.ts';
import { JobPriority } from '../jobs/priority.ts';
import { cpuThreadsOf, launchTrainer } from '../jobs/python.ts';
import { results } from '../jobs/results.ts';
import { ConvertSpec, processes, SPEC_VERSION, StoredTraining, Training, TrainingRuntime, TrainSpec } from '../jobs/specs.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import type { Job } from '../jobs/tables.ts';
import { findModelByName, insertModel } from '../models/models.ts';
import type { ModelVersion } from '../models/tables.ts';
import { Name } from '../naming.ts';
import { blobPath, findArtifact } from '../storage/blobs.ts';
import { requireDisk } from '../storage/disk.ts';
import { strict } from '../suggest.ts';
import { codeVersion } from '../version.ts';
import type { PreprocessSpec } from '../vision/spec.ts';
import { batchSizeFor, slotMemory } from './batchSize.ts';
import { compilerProblem, requireCompilable, requireOneSize } from './compile.ts';
import { enqueueConversion } from './convert.ts';
import { requireBatchFor, requireSlots } from './processes.ts';
import { requirePublicWeights } from './publicWeights.ts';
import { acceptCheckpoint, acceptEvaluation, keepCheckpoint, requireMade, type VersionOrigin } from './register.ts';
import { datasetRef, requireModel, requireReadyDataset, requireReadyModel, requireTask, versionFile } from './sources.ts';

/** The last two checkpoints, the next one while it is written, and room for the weights and evaluations. */
export const trainingBytes = (preset: PresetName): number => 4 * checkpointBytes(preset);
const dayMs = 86_400_000;

const Init = z.discriminatedUnion('from', [
  z.object({ from: z.literal('SCRATCH') }),
  z.object({ from: z.literal('PRETRAINED') }),
  z.object({ from: z.literal('WEIGHTS'), modelVersionId: z.string() }),
  z.object({ from: z.literal('CHECKPOINT'), modelVersionId: z.string() }),
]);

/**
 * `specJson` of a TRAIN job. Without a model it is a trial of a study: nothing is registered, and its checkpoint stays for a job that
 * continues it.
 */
export const TrainRequest = z
  .object({
    modelId: z.string().nullable(),
    datasetVersionId: z.string(),
    init: Init,
    convert: z.boolean(),
    resumeOfJobId: z.string().nullable(),
  })
  .and(StoredTraining);
export type TrainRequest = z.infer<typeof TrainRequest>;

const StartTrainingInput = z.object({
  modelName: Name,
  datasetVersionId: z.string(),
  preset: z.enum(Object.keys(presets) as [keyof typeof presets], 'There is no such preset: the query `presets` lists them.'),
  hyperparameters: z.record(z.string(), z.unknown()).default({}),
  init: Init,
  seed: ConvertSpec.shape.seed,
  cpuThreads: ConvertSpec.shape.cpuThreads.nullish(),
  workers: TrainingRuntime.shape.workers.nullish(),
  processes: processes.nullish(),
  device: ConvertSpec.shape.device,
  convert: z.boolean(),
  priority: JobPriority.nullish(),
  idempotencyKey: z.string().max(200).nullish(),
});

/** The preset with the given hyperparameters, and `others` for the rest; an InputError where they are not its own. */
export function trainingOf(preset: PresetName, said: Record<string, unknown>, others: Record<string, unknown>): Training {
  const given = { ...others, ...said };
  const { hyperparameters } = parseInput(z.object({ hyperparameters: strict(presets[preset].hyperparameters.shape) }), {
    hyperparameters: { ...defaultsWith(given), ...given },
  });
  requireOneSize(hyperparameters, 'hyperparameters');
  return Training.parse({ preset, hyperparameters });
}

/** Frozen layers never learn: with random weights they would stay random. `field`: the argument that says so. */
export function requireWeightsToFreeze(from: string, hyperparameters: object, field: string): void {
  const { freeze } = hyperparameters as { freeze?: unknown };
  if (from !== 'SCRATCH' || freeze === undefined || freeze === 'NONE') return;
  refuse(
    'INVALID',
    field,
    `freeze is ${freeze}, but the training starts from random weights, which the frozen layers would keep. ` +
      'Start from `pretrained` weights or from those of a version, or say NONE.',
  );
}

const requestOf = (job: Job): TrainRequest => TrainRequest.parse(storedTraining(storedSpec(job) as TrainRequest));

/** With the hyperparameters that its version of the program did not know yet. */
export const storedTraining = <T extends Training>(stored: T) => ({
  ...stored,
  hyperparameters: storedHyperparameters(stored.preset, stored.hyperparameters),
});

/** Why a training that an earlier version of the program has stored cannot continue: ranges of hyperparameters may have become smaller. */
function outOfRange(job: Job): string | null {
  const { preset, hyperparameters } = storedSpec(job) as TrainRequest;
  const stored = storedHyperparameters(preset, hyperparameters);
  const { error } = presets[preset].hyperparameters.safeParse(stored);
  if (!error) return null;
  const problems = error.issues.map(({ path, message }) => `${path.join('.')} is ${stored[String(path[0])]} (${message})`);
  return `An earlier version of Whetstone took hyperparameters that this one does not: ${problems.join('; ')}. Start a new training with others.`;
}

/** Puts a training into the queue; its model is made when there is none of that name. */
export async function startTraining(services: JobServices, actor: Actor, raw: unknown): Promise<Job> {
  const input = parseInput(StartTrainingInput, raw);
  const { modelName, datasetVersionId, preset, init, seed, device, convert, priority } = input;
  const { batchSize, ...others } = input.hyperparameters;
  const processes = input.processes ?? 1;
  requireInstalled(preset);
  await requireSlots(services, processes, device);
  const memory = batchSize === 'AUTO' ? await slotMemory(services.config, device) : null;
  const said = memory ? others : input.hyperparameters;
  trainingOf(preset, said, {});
  await requireDisk(services, trainingBytes(preset));
  if (init.from === 'PRETRAINED') await requirePublicWeights(services, preset);
  // A run to continue may have been compiled.
  const mayCompile = said.compile === true || (init.from === 'CHECKPOINT' && said.compile !== false);
  const problem = mayCompile ? await compilerProblem(services, device) : null;
  return submitJob(services, actor, { kind: 'TRAIN', input, priority }, (tx): TrainRequest => {
    const dataset = requireReadyDataset(tx, datasetVersionId);
    if (!dataset.countsJson?.images.val) {
      refuse('INVALID', 'datasetVersionId', 'The dataset version has no validation images: a training is judged by them.');
    }
    const start = 'modelVersionId' in init ? requireStart(tx, init.from, init.modelVersionId, preset, dataset.classesJson) : null;
    const earlier = start && init.from === 'CHECKPOINT' ? hyperparametersOfRun(tx, start, input.hyperparameters.epochs) : {};
    const training = trainingOf(preset, said, earlier);
    if (memory) {
      const { train: images } = dataset.countsJson.images;
      training.hyperparameters.batchSize = batchSizeFor(preset, training.hyperparameters.imageSize, images, memory, processes);
    }
    requireBatchFor(processes, Math.min(training.hyperparameters.batchSize, dataset.countsJson.images.train));
    requireWeightsToFreeze(init.from, training.hyperparameters, 'hyperparameters');
    requireCompilable(training.hyperparameters, 'hyperparameters', processes, problem);
    const { task } = presets[preset];
    requireTask(tx, dataset, task);
    const found = findModelByName(tx, modelName);
    if (found && found.task !== task) refuse('INVALID', 'modelName', `The model ${modelName} is for ${found.task}.`);
    const model = found ?? insertModel(tx, { name: modelName, task, notes: '', createdById: actor.actorId });
    const cpuThreads = input.cpuThreads ?? cpuThreadsOf(services.config);
    const preprocess = preprocessOf(preset, training.hyperparameters);
    const computing = { seed, device, cpuThreads, processes, preprocess, ...TrainingRuntime.parse({ workers: input.workers ?? null }) };
    return { modelId: model.id, datasetVersionId, ...training, init, convert, resumeOfJobId: null, ...computing };
  });
}

function requireStart(tx: Queryable, from: 'WEIGHTS' | 'CHECKPOINT', id: string, preset: PresetName, classes: string[]): ModelVersion {
  const field = ['init', from === 'WEIGHTS' ? 'weightsOf' : 'continueFrom'];
  const row = requireReadyModel(tx, id, field);
  const { backbone } = presets[preset];
  const fitting: (string | null)[] = from === 'WEIGHTS' && backbone ? [preset, backbone] : [preset];
  if (row.format !== 'CHECKPOINT' || !fitting.includes(row.preset)) {
    refuse(
      'INVALID',
      field,
      `A training of ${preset} starts from weights of ${fitting.join(' or ')}; this version is ${row.format} of ${row.preset ?? 'no preset'}.`,
    );
  }
  if (from === 'CHECKPOINT' && row.origin !== 'TRAINED') {
    refuse(
      'INVALID',
      field,
      'Only a version that was trained here has the state to continue from. Use `weightsOf` instead of `continueFrom`.',
    );
  }
  // Its optimizer's memory belongs to the rows of these classes, which are known by their place only.
  if (from === 'CHECKPOINT' && !isDeepStrictEqual(row.labelsJson, classes)) {
    refuse(
      'INVALID',
      field,
      `The run to continue had the classes ${(row.labelsJson ?? []).slice(0, 5).join(', ')}, …; this dataset has ${classes.slice(0, 5).join(', ')}, …. Say \`weightsOf\` instead of \`continueFrom\`: the classes are matched by name.`,
    );
  }
  return row;
}

/** What the run that a version comes from was trained with. `epochs`, which counts from its first epoch, must be more than it had. */
function hyperparametersOfRun(tx: Queryable, { id, jobId }: ModelVersion, epochs: unknown): Training['hyperparameters'] {
  const done = Number(findArtifact(tx, 'MODEL_VERSION', id, 'CHECKPOINT')?.metaJson?.epoch ?? 0);
  if (!(Number(epochs ?? 0) > done)) {
    refuse(
      'INVALID',
      'hyperparameters',
      `The run to continue has done ${done} epochs, and \`epochs\` counts from its first: say more than ${done}.`,
    );
  }
  return trainingOfRun(tx, jobId).hyperparameters;
}

/** What the job that made a trained version was asked for. */
export const trainingOfRun = (tx: Queryable, jobId: string | null): TrainRequest => requestOf(requireJob(tx, String(jobId)));

/** What the versions of a training were made from. */
function originOf(db: Queryable, { job }: AttemptContext, modelId: string): VersionOrigin & { preprocess: PreprocessSpec } {
  const { datasetVersionId, preset, hyperparameters, init, seed, cpuThreads, processes, device, preprocess } = requestOf(job);
  const { from } = init;
  return {
    modelId,
    jobId: job.id,
    datasetVersionId,
    parentId: 'modelVersionId' in init ? init.modelVersionId : null,
    labels: requireReadyDataset(db, datasetVersionId).classesJson,
    preprocess,
    lineageSpec: { kind: 'TRAIN', preset, hyperparameters, from, seed, cpuThreads, processes, device },
  };
}

/** The training job: weights with their evaluation; its child makes an ONNX version of the best ones. */
export const trainJob: JobKind = {
  timeLimitMs: 14 * dayMs,

  async launch(services, { job, resumeFrom }) {
    const problem = outOfRange(job);
    if (problem) throw new JobFailure('SPEC_INVALID', problem);
    const { init, datasetVersionId, modelId: _, convert: _convert, resumeOfJobId, ...training } = requestOf(job);
    const earlier = resumeOfJobId === null ? undefined : findArtifact(services.db, 'JOB', resumeOfJobId, 'CHECKPOINT');
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
      services.config,
      TrainSpec.parse({
        kind: 'TRAIN',
        specVersion: SPEC_VERSION,
        codeVersion,
        ...training,
        dataset: await datasetRef(services, datasetVersionId),
        init: start,
        resumeFrom: resumeFrom ?? (earlier ? blobPath(services.config.dataDir, earlier.sha256) : null),
        cacheDiskBytesMax: services.config.trainingCacheDiskBytes,
      }),
    );
  },

  async finish(services, attempt, outcome) {
    const { modelId, datasetVersionId, convert } = requestOf(attempt.job);
    if (modelId === null) {
      const result = results.TRAIN.parse(outcome.result);
      const insertCheckpoint = await keepCheckpoint(services, attempt, outcome);
      return (tx) => {
        insertCheckpoint(tx);
        return result;
      };
    }
    const origin = originOf(services.db, attempt, modelId);
    const insertCheckpoint = await acceptCheckpoint(services, attempt, outcome, origin);
    const { engine } = results.TRAIN.parse(outcome.result);
    const made = requireMade(outcome, 'EVALUATION');
    const insertEvaluation = await acceptEvaluation(services, attempt, made, {
      datasetVersionId,
      split: 'val',
      engine,
      testTimeAugmentation: 'NONE',
    });
    return (tx) => {
      const { id } = insertCheckpoint(tx);
      const evaluationId = insertEvaluation(tx, id).id;
      const conversionJobId = convert ? enqueueConversion(tx, services, attempt.job, id).id : null;
      return { ...outcome.result, modelVersionId: id, evaluationId, conversionJobId };
    };
  },

  redo(tx, retried) {
    const problem = outOfRange(retried);
    if (problem) refuse('INVALID', 'jobId', problem);
    const { modelId, datasetVersionId, init } = requestOf(retried);
    if (modelId !== null) requireModel(tx, modelId, 'jobId');
    requireReadyDataset(tx, datasetVersionId);
    if ('modelVersionId' in init) requireReadyModel(tx, init.modelVersionId);
  },
};
