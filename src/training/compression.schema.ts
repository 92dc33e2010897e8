/** Starting a compression, and what a compressed version says of it. */
import { builder, enumValues, idOf, payload } from '../graphql/builder.ts';
import { OutputLayoutType } from '../graphql/enums.ts';
import { ModelVersionType } from '../models/schema.ts';
import { startCompression } from './compress.ts';
import { CompressionGate, type calibrationMethods, type compressedPrecisions } from './gates.ts';
import { idempotencyKey, jobPayload } from './jobs.schema.ts';

const CompressionPrecisionType = builder.enumType('CompressionPrecision', {
  description: 'What the weights of a compressed model are stored as.',
  values: enumValues<(typeof compressedPrecisions)[number]>({
    FP16: '16-bit floats: half of the bytes, next to no loss. Faster on GPUs, not on processors. Inputs and outputs stay in 32 bits.',
    INT8: '8-bit integers: a quarter of the bytes, faster on processors. It is calibrated on images.',
  }),
});

const CalibrationMethodType = builder.enumType('CalibrationMethod', {
  description: 'How the range of a tensor is found on the calibration images.',
  values: enumValues<(typeof calibrationMethods)[number]>({
    MINMAX: 'From the smallest to the largest value.',
    ENTROPY: 'The range that loses the least information: it leaves out rare values.',
    PERCENTILE: 'The range of 99.999 % of the values.',
  }),
});

const CalibrationInputType = builder.inputType('CalibrationInput', {
  description: 'How INT8 is calibrated. The images are of the train split.',
  fields: (t) => ({
    method: t.field({ type: CalibrationMethodType, required: true, defaultValue: 'MINMAX', description: 'How ranges are found.' }),
    images: t.int({ required: true, defaultValue: 256, description: 'How many images, 96 to 512; all where the split has fewer.' }),
    seed: t.field({ type: 'SafeInt', required: true, defaultValue: 0, description: 'Which images. 0 to 2³² - 1.' }),
  }),
});

const RecoverInputType = builder.inputType('RecoverInput', {
  description: 'How weights are fine-tuned with fake quantisation before INT8.',
  fields: (t) => ({
    epochs: t.int({ required: true, defaultValue: 3, description: 'Passes over the training images, 1 to 20.' }),
    learningRate: t.float({ description: 'Peak; by default a tenth of that of the training. The rest is as in the training.' }),
  }),
});

builder.relayMutationField(
  'startCompression',
  {
    inputFields: (t) => ({
      modelVersionId: t.id({ required: true, description: 'An ONNX version with 32-bit weights.' }),
      precision: t.field({ type: CompressionPrecisionType, required: true, description: 'What its weights become.' }),
      budget: t.float({
        required: true,
        defaultValue: 1,
        description:
          'Points of the metric (top-1 or mAP50-95 on the val split) that it may lose, 0 to 100. INT8 keeps operators in 32 bits until it is inside.',
      }),
      datasetVersionId: t.id({
        description:
          'What it is calibrated on and judged by; by default that of the training. FP16 needs none: then only outputs are compared.',
      }),
      calibration: t.field({ type: CalibrationInputType, description: 'How INT8 is calibrated; FP16 is not.' }),
      recover: t.field({
        type: RecoverInputType,
        description:
          'Fine-tunes the weights for INT8, for a version that was converted from a checkpoint trained here. They are kept only where they are better.',
      }),
      outputLayout: t.field({
        type: OutputLayoutType,
        description: 'How the outputs of a detector hold boxes and scores. Needed where neither the file’s metadata nor its shapes say it.',
      }),
      idempotencyKey: t.string({ description: idempotencyKey }),
    }),
  },
  {
    description:
      'Makes a smaller version of an ONNX version, with an evaluation of its own. It is registered only when its metric stays inside the budget.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) =>
      payload(() =>
        startCompression(context, context.actor, {
          ...input,
          modelVersionId: idOf('ModelVersion', input.modelVersionId),
          datasetVersionId: input.datasetVersionId ? idOf('DatasetVersion', input.datasetVersionId) : null,
        }),
      ),
  },
  jobPayload,
);

type Step = CompressionGate['steps'][number];
type Kept = CompressionGate['kept'][number];
type Calibration = NonNullable<CompressionGate['calibration']>;
type Recovery = NonNullable<CompressionGate['recovery']>;

const StepType = builder.objectRef<Step>('CompressionStep').implement({
  description: 'A file that was measured on the way to a compressed version.',
  fields: (t) => ({
    operators: t.exposeInt('operators', { description: 'Operators that stayed in 32-bit floats, the most harmful first.' }),
    recovered: t.exposeBoolean('recovered', { description: 'Whether it was made of the fine-tuned weights.' }),
    metric: t.exposeFloat('metric', { description: 'On the whole val split, 0 to 1.' }),
    sizeBytes: t.expose('sizeBytes', { type: 'SafeInt', description: 'Size of the file.' }),
  }),
});

const KeptType = builder.objectRef<Kept>('KeptOperator').implement({
  description: 'An operator that stayed in 32-bit floats because of the budget.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'Of its node in the graph.' }),
    error: t.exposeFloat('error', {
      description: 'Squared error of the outputs when only this operator is in INT8, relative to their variance.',
    }),
  }),
});

const CalibrationType = builder.objectRef<Calibration>('Calibration').implement({
  description: 'What the ranges of INT8 were found on.',
  fields: (t) => ({
    method: t.expose('method', { type: CalibrationMethodType, description: 'How they were found.' }),
    images: t.exposeInt('images', { description: 'Images of the train split.' }),
    seed: t.expose('seed', { type: 'SafeInt', description: 'Which images.' }),
    imagesHash: t.exposeString('imagesHash', { description: 'SHA-256 over their positions and hashes.' }),
  }),
});

const RecoveryType = builder.objectRef<Recovery>('CompressionRecovery').implement({
  description: 'The fine-tuning with fake quantisation before INT8.',
  fields: (t) => ({
    epochs: t.exposeInt('epochs', { description: 'Passes over the training images.' }),
    learningRate: t.exposeFloat('learningRate', { description: 'Its peak.' }),
    bestEpoch: t.exposeInt('bestEpoch', { description: 'The epoch whose weights were taken, counted from 1.' }),
    kept: t.exposeBoolean('kept', { description: 'Whether this version has them; false: the parent’s weights gave the better file.' }),
  }),
});

const CompressionType = builder.objectRef<CompressionGate>('Compression').implement({
  description: 'What a compression has cost, and what it was made with.',
  fields: (t) => ({
    parentMetric: t.float({
      nullable: true,
      description: 'Top-1 or mAP50-95 of the parent on the val split. Null without a dataset: then only outputs were compared.',
      resolve: ({ metric }) => metric?.parent,
    }),
    metric: t.float({
      nullable: true,
      description: 'The same of this version, by the same code.',
      resolve: ({ metric }) => metric?.candidate,
    }),
    budget: t.float({ nullable: true, description: 'Points that it was allowed to lose.', resolve: ({ metric }) => metric?.budget }),
    decisions: t.exposeInt('decisions', { description: 'Of the parent: the class of each image, or boxes that score at least 0.25.' }),
    decisionsDiffer: t.exposeInt('decisionsDiffer', { description: 'Images with another class, or boxes that only one of the two finds.' }),
    operators: t.exposeInt('quantisable', { description: 'Operators that INT8 can quantise; 0 for FP16.' }),
    kept: t.field({
      type: [KeptType],
      description: 'Those that stayed in 32-bit floats, the most harmful first; at most 300.',
      extensions: { size: 10 },
      resolve: ({ kept }) => kept,
    }),
    steps: t.field({
      type: [StepType],
      description: 'Every file that was measured, in this order.',
      extensions: { size: 5 },
      resolve: ({ steps }) => steps,
    }),
    calibration: t.field({
      type: CalibrationType,
      nullable: true,
      description: 'Of INT8; null for FP16.',
      resolve: ({ calibration }) => calibration,
    }),
    recovery: t.field({
      type: RecoveryType,
      nullable: true,
      description: 'The fine-tuning before INT8; null where none was asked for.',
      resolve: ({ recovery }) => recovery,
    }),
  }),
});

builder.objectField(ModelVersionType, 'compression', (t) =>
  t.field({
    type: CompressionType,
    nullable: true,
    description: 'What its compression has cost; null where it was not compressed here.',
    resolve: ({ gateJson }) => CompressionGate.safeParse(gateJson).data ?? null,
  }),
);
