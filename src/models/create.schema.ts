import { builder, idOf, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import { TaskType } from '../graphql/enums.ts';
import { type CreatedModelVersion, createModel } from './create.ts';
import { describeModelVersion } from './describe.ts';
import { endings } from './files.ts';
import { PreprocessSpecInput } from './preprocess.schema.ts';
import { ModelType, ModelVersionType } from './schema.ts';

const createdPayload = {
  interfaces: [PayloadType],
  outputFields: (t: PayloadFields<CreatedModelVersion>) => ({
    model: t.field({ type: ModelType, nullable: true, description: 'The model.', resolve: (p) => p.result?.model }),
    modelVersion: t.field({ type: ModelVersionType, nullable: true, description: 'The version.', resolve: (p) => p.result?.version }),
  }),
};

builder.relayMutationField(
  'createModel',
  {
    inputFields: (t) => ({
      name: t.string({
        required: true,
        description: '1 to 100 letters (of any script), digits or . _ - : an existing model gets its next version.',
      }),
      task: t.field({ type: TaskType, required: true, description: 'What it does with an image.' }),
      uploadId: t.id({ required: true, description: `A complete upload of a file whose name ends in ${endings.join(', ')}.` }),
      sha256: t.string({ required: true, description: 'SHA-256 of the file in hexadecimal, as the client computed it.' }),
      dataUploadId: t.id({
        description:
          'A complete upload of the file in which the tensors of an .onnx file lie, with the name that they give it. Or upload a zip of both.',
      }),
      dataSha256: t.string({ description: 'SHA-256 of that file in hexadecimal.' }),
      preset: t.string({ description: 'The preset that a state dict belongs to, such as `resnet50`; none for ONNX.' }),
      labels: t.stringList({ description: 'Class names in the order of the output. A file that Whetstone made has them in it.' }),
      preprocess: t.field({
        type: PreprocessSpecInput,
        description: 'How an image becomes the input. A file that Whetstone made has it in it; a state dict gets its preset’s.',
      }),
      notes: t.string({ description: 'Notes of a new model; `updateModel` changes those of an existing one.' }),
      idempotencyKey: t.string({ description: 'The same key gives the same version, however often the mutation is sent.' }),
    }),
  },
  {
    description:
      'Makes a model version of an upload: its job checks the file. The same bytes with the same preset, labels and preprocessing ' +
      'are the same version: a model that has it gives it, without another job.',
    authScopes: { can: 'UPLOAD' },
    resolve: (_root, { input }, context) => payload(() => createModel(context, context.actor, input)),
  },
  createdPayload,
);

builder.relayMutationField(
  'describeModelVersion',
  {
    inputFields: (t) => ({
      modelVersionId: t.id({ required: true, description: 'The version to describe, which stays as it is.' }),
      labels: t.stringList({ description: 'Class names in the order of the output; without, those of the version.' }),
      preprocess: t.field({ type: PreprocessSpecInput, description: 'How an image becomes the input; without, that of the version.' }),
    }),
  },
  {
    description:
      'Makes a version of the same file with other labels or other preprocessing: READY at once, with the described version as its parent. ' +
      'A version of the model that is described like this already is given instead.',
    authScopes: { can: 'UPLOAD' },
    resolve: (_root, { input }, context) =>
      payload(() => describeModelVersion(context, context.actor, { ...input, modelVersionId: idOf('ModelVersion', input.modelVersionId) })),
  },
  createdPayload,
);
