import { findVersionEver } from '../datasets/datasets.ts';
import { SplitType } from '../datasets/items.schema.ts';
import { DatasetVersionType } from '../datasets/schema.ts';
import { builder, enumValues, idOf, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import { OutputLayoutType } from '../graphql/enums.ts';
import { idsIn } from '../jobs/references.ts';
import { JobType } from '../jobs/schema.ts';
import type { Job } from '../jobs/tables.ts';
import { findModel, findModelVersion } from '../models/models.ts';
import { ModelType, ModelVersionType } from '../models/schema.ts';
import { startConversion } from './convert.ts';
import { startEvaluation } from './evaluate.ts';
import { EvaluationType, TestTimeAugmentationType } from './evaluation.schema.ts';
import { findEvaluationOf, listEvaluations } from './evaluations.ts';
import { startTraining } from './train.ts';

export const jobPayload = {
  interfaces: [PayloadType],
  outputFields: (t: PayloadFields<Job>) => ({
    job: t.field({ type: JobType, nullable: true, description: 'The job, waiting in the queue.', resolve: (p) => p.result }),
  }),
};

export const idempotencyKey =
  'The same key gives the same job, however often the request is sent; with another input it is IDEMPOTENCY_CONFLICT.';

export const DeviceType = builder.enumType('Device', {
  description: 'What a job computes on.',
  values: enumValues({
    AUTO: 'The GPU of its slot where there is one, otherwise the processor.',
    CPU: 'The processor.',
    CUDA: 'A GPU; without one the job fails.',
  }),
});

const InitType = builder.inputType('TrainingInit', {
  description: 'Where the weights of a training come from: one of these.',
  isOneOf: true,
  fields: (t) => ({
    scratch: t.boolean({ description: 'Random weights from the seed. Say true.' }),
    pretrained: t.boolean({ description: 'The public weights of the preset, or of its backbone, downloaded once. Say true.' }),
    weightsOf: t.id({
      description:
        'The weights of a model version of the same preset. With as many classes, those of the same name keep their part of the head; ' +
        'otherwise the head starts from random values. A detector on the backbone of a classifier also takes a version of that classifier.',
    }),
    continueFrom: t.id({
      description:
        'A model version that was trained here on the same classes: its optimizer, schedule and hyperparameters continue. `epochs` counts from its first epoch.',
    }),
  }),
});

type Init = typeof InitType.$inferInput;

const initOf = (init: Init | null | undefined) => {
  if (init?.weightsOf) return { from: 'WEIGHTS', modelVersionId: idOf('ModelVersion', init.weightsOf) };
  if (init?.continueFrom) return { from: 'CHECKPOINT', modelVersionId: idOf('ModelVersion', init.continueFrom) };
  return { from: init?.pretrained ? 'PRETRAINED' : 'SCRATCH' };
};

builder.relayMutationField(
  'startTraining',
  {
    inputFields: (t) => ({
      modelName: t.string({ required: true, description: 'Model that the versions are added to; made when there is none of this name.' }),
      datasetVersionId: t.id({ required: true, description: 'What it learns from: its train split, judged by its val split.' }),
      preset: t.string({ required: true, description: 'Name of a preset: the query `presets` lists them.' }),
      hyperparameters: t.field({
        type: 'JSON',
        description:
          'An object with those that differ from the defaults, or from those of the run to continue; the preset lists them with their ranges.',
      }),
      init: t.field({ type: InitType, description: 'Where the weights come from; random ones unless told otherwise.' }),
      seed: t.field({
        type: 'SafeInt',
        required: true,
        defaultValue: 0,
        description: 'Same seed, data, threads and machine: same weights. 0 to 2³² - 1.',
      }),
      cpuThreads: t.int({
        description: 'Threads of PyTorch; by default the cores divided by the slots. Results on a processor depend on it.',
      }),
      workers: t.int({
        description:
          'Processes that prepare its batches, 0 to 64; by default as many as cpuThreads on a GPU, none on a processor. Results do not depend on it.',
      }),
      processes: t.int({
        description:
          'Processes that train together, 1 unless told otherwise; each takes a slot, with a GPU of its own where the machine has any. ' +
          'They share each batch, so batchSize is that of all together. Results depend on their number.',
      }),
      device: t.field({ type: DeviceType, required: true, defaultValue: 'AUTO', description: 'What it computes on.' }),
      convert: t.boolean({
        required: true,
        defaultValue: true,
        description: 'Whether a child job converts the checkpoint version to ONNX when the training has ended.',
      }),
      priority: t.int({ description: 'Higher starts first, -100 to 100; 0 unless told otherwise. The conversion has the same.' }),
      idempotencyKey: t.string({ description: idempotencyKey }),
    }),
  },
  {
    description:
      'Trains a model: a checkpoint version with its evaluation. Its child job converts it: an ONNX version behind the conversion gate.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) =>
      payload(() =>
        startTraining(context, context.actor, {
          ...input,
          datasetVersionId: idOf('DatasetVersion', input.datasetVersionId),
          init: initOf(input.init),
          device: input.device.toLowerCase(),
        }),
      ),
  },
  jobPayload,
);

builder.relayMutationField(
  'startConversion',
  {
    inputFields: (t) => ({
      modelVersionId: t.id({ required: true, description: 'A checkpoint version.' }),
      datasetVersionId: t.id({ description: 'Its val split goes through the gate; by default that of the training, else seeded noise.' }),
      idempotencyKey: t.string({ description: idempotencyKey }),
    }),
  },
  {
    description: 'Converts a checkpoint version to ONNX behind the conversion gate, and evaluates the ONNX version.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) =>
      payload(() =>
        startConversion(context, context.actor, {
          ...input,
          modelVersionId: idOf('ModelVersion', input.modelVersionId),
          datasetVersionId: input.datasetVersionId ? idOf('DatasetVersion', input.datasetVersionId) : null,
        }),
      ),
  },
  jobPayload,
);

builder.relayMutationField(
  'startEvaluation',
  {
    inputFields: (t) => ({
      modelVersionId: t.id({ required: true, description: 'The version to measure.' }),
      datasetVersionId: t.id({ required: true, description: 'What it is measured on. It has the classes of the model.' }),
      split: t.field({ type: SplitType, required: true, defaultValue: 'val', description: 'Which split.' }),
      testTimeAugmentation: t.field({
        type: TestTimeAugmentationType,
        required: true,
        defaultValue: 'NONE',
        description:
          'Whether mirror images count too. Such figures are not those of the model when it serves: nothing is compared with them.',
      }),
      outputLayout: t.field({
        type: OutputLayoutType,
        description: 'How the outputs of a detector hold boxes and scores. Needed where neither the file’s metadata nor its shapes say it.',
      }),
      idempotencyKey: t.string({ description: idempotencyKey }),
    }),
  },
  {
    description: 'Measures a model version on a split of a dataset version.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) =>
      payload(() =>
        startEvaluation(context, context.actor, {
          ...input,
          modelVersionId: idOf('ModelVersion', input.modelVersionId),
          datasetVersionId: idOf('DatasetVersion', input.datasetVersionId),
        }),
      ),
  },
  jobPayload,
);

builder.objectFields(JobType, (t) => ({
  model: t.field({
    type: ModelType,
    nullable: true,
    description:
      'The model that it makes a version of, or on whose version it works; of a benchmark of several the first. Null when it was deleted.',
    resolve: ({ specJson }, _a, { db }) => {
      const [modelId] = idsIn([specJson], 'Model');
      const [versionId] = idsIn([specJson], 'ModelVersion');
      const id = modelId ?? (versionId === undefined ? undefined : findModelVersion(db, versionId)?.modelId);
      return id === undefined ? null : findModel(db, id);
    },
  }),
  datasetVersion: t.field({
    type: DatasetVersionType,
    nullable: true,
    description: 'The dataset version that it works on, or that an import has made.',
    resolve: ({ specJson, resultJson }, _a, { db }) => {
      // An import of content that was there already ends with the version that has it.
      const [id] = idsIn([resultJson, specJson], 'DatasetVersion');
      return id === undefined ? null : findVersionEver(db, id);
    },
  }),
  modelVersions: t.field({
    type: [ModelVersionType],
    description: 'The model versions that it works on, then those that it has made (their `job` is this one); without deleted ones.',
    extensions: { size: 2 },
    resolve: ({ specJson, resultJson }, _a, { db }) =>
      idsIn([specJson, resultJson], 'ModelVersion').flatMap((id) => findModelVersion(db, id) ?? []),
  }),
  evaluation: t.field({
    type: EvaluationType,
    nullable: true,
    description: 'What it has measured; null until it has.',
    resolve: (j, _a, { db }) => findEvaluationOf(db, j.id),
  }),
}));

builder.objectFields(ModelVersionType, (t) => ({
  evaluations: t.field({
    type: [EvaluationType],
    description: 'What it was measured to reach, newest first; at most 100.',
    extensions: { size: 10 },
    resolve: (v, _a, { db }) => listEvaluations(db, v.id, 100),
  }),
}));
