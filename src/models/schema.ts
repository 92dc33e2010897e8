import { findUser } from '../accounts/users.ts';
import { findVersionEver } from '../datasets/datasets.ts';
import { DatasetVersionType } from '../datasets/schema.ts';
import { builder, enumValues, idOf, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import { page, pageArgs, pageInPieces, textKey, totalCount } from '../graphql/connection.ts';
import { TaskType, VersionStateType } from '../graphql/enums.ts';
import { findJob } from '../jobs/jobs.ts';
import { JobType } from '../jobs/schema.ts';
import { downloadUrl } from '../storage/links.ts';
import { TagFilterType } from '../tags/filter.schema.ts';
import { MetricFilterType } from '../training/search.schema.ts';
import type { PreprocessSpec } from '../vision/spec.ts';
import { deleteModel, deleteModelVersion, setModelAlias, updateModel } from './change.ts';
import { parentsOf } from './lineage.ts';
import {
  chooseModelVersion,
  countModels,
  findModel,
  findModelByName,
  findModelEver,
  findModelVersion,
  listAliases,
  listModels,
  listModelVersions,
  type ModelOrder,
  modelOrders,
} from './models.ts';
import { PreprocessSpecType } from './preprocess.schema.ts';
import { type FileSignature, ModelSignatureType } from './signature.schema.ts';
import type { formats, Model, ModelAlias, ModelVersion, origins, precisions } from './tables.ts';
import { countVersions } from './versions.ts';

export const ModelFormatType = builder.enumType('ModelFormat', {
  description: 'What kind of file a model version is.',
  values: enumValues<(typeof formats)[number]>({
    CHECKPOINT: 'Weights of a preset, as safetensors: can be trained on and converted to ONNX.',
    ONNX: 'A graph with its weights: can be benchmarked and served.',
  }),
});

export const PrecisionType = builder.enumType('Precision', {
  description: 'The narrowest number type of a model’s weights.',
  values: enumValues<(typeof precisions)[number]>({
    FP32: '32-bit floating point.',
    FP16: '16-bit floating point, where most of the weights are.',
    INT8: 'Quantised to 8-bit integers.',
  }),
});

const ModelOriginType = builder.enumType('ModelOrigin', {
  description: 'How a model version came about.',
  values: enumValues<(typeof origins)[number]>({
    UPLOADED: 'A user uploaded the file.',
    TRAINED: 'A training made it.',
    CONVERTED: 'Converted from its parent.',
    OPTIMIZED: 'Compressed from its parent.',
    DESCRIBED: 'The file of its parent with other labels or preprocessing.',
  }),
});

export const ModelVersionType = builder.node(builder.objectRef<ModelVersion>('ModelVersion'), {
  description: 'A file with its lineage. Once READY it never changes.',
  id: { resolve: (v) => v.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findModelVersion(db, id),
  authScopes: { can: 'READ' },
  fields: (t) => ({
    number: t.exposeInt('number', { description: 'Counted from 1 within the model.' }),
    state: t.expose('state', { type: VersionStateType, description: 'Where it stands.' }),
    format: t.expose('format', { type: ModelFormatType, description: 'What kind of file it is.' }),
    precision: t.field({
      type: PrecisionType,
      nullable: true,
      description: 'The narrowest number type of its weights; null until it is READY.',
      resolve: (v) => (v.state === 'READY' ? v.precision : null),
    }),
    origin: t.expose('origin', { type: ModelOriginType, description: 'How it came about.' }),
    preset: t.exposeString('preset', { nullable: true, description: 'The preset that its weights belong to; null for a foreign ONNX.' }),
    sizeBytes: t.expose('sizeBytes', { type: 'SafeInt', nullable: true, description: 'Size of the file.' }),
    sha256: t.exposeString('sha256', { nullable: true, description: 'SHA-256 of the file. A PyTorch upload is stored as safetensors.' }),
    weightsHash: t.exposeString('weightsHash', {
      nullable: true,
      description: 'SHA-256 over the tensors: the same in whatever format they are stored. Null for a foreign ONNX.',
    }),
    lineageHash: t.exposeString('lineageHash', {
      nullable: true,
      description:
        'SHA-256 over the file’s hash, what was asked for, the parents’ lineage hashes, the dataset’s hash and the code version.',
    }),
    signature: t.field({
      type: ModelSignatureType,
      nullable: true,
      description: 'What was found in the file; null until it is READY.',
      resolve: (v) => v.signatureJson as FileSignature | null,
    }),
    labels: t.field({
      type: ['String'],
      nullable: true,
      description: 'Class names in the order of the model’s output; null where nobody told.',
      extensions: { cost: 5 },
      resolve: (v) => v.labelsJson,
    }),
    downloadUrl: t.string({
      nullable: true,
      description: 'Link to the file, valid for 10 minutes at least and without a token; null until it is READY.',
      resolve: (v, _a, services) => (v.artifactId && v.state === 'READY' ? downloadUrl(services, { id: v.artifactId }) : null),
    }),
    preprocess: t.field({
      type: PreprocessSpecType,
      nullable: true,
      description: 'How an image becomes the input; null where nobody told.',
      resolve: (v) => v.preprocessJson as PreprocessSpec | null,
    }),
    gate: t.field({
      type: 'JSON',
      nullable: true,
      description: 'Numbers and verdict of the gate that it passed; null for an upload.',
      resolve: (v) => v.gateJson,
    }),
    aliases: t.stringList({
      description: 'Aliases that point at it, sorted.',
      resolve: (v, _a, { db }) =>
        listAliases(db, v.modelId)
          .filter((alias) => alias.versionId === v.id)
          .map((alias) => alias.name),
    }),
    job: t.field({
      type: JobType,
      nullable: true,
      description: 'The job that made it, or is making it.',
      resolve: (v, _a, { db }) => (v.jobId ? findJob(db, v.jobId) : null),
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was asked for.' }),
    deletedAt: t.expose('deletedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was deleted: it is then only seen in the lineage of others.',
    }),
  }),
});

builder.objectFields(ModelVersionType, (t) => ({
  parent: t.field({
    type: ModelVersionType,
    nullable: true,
    description: 'The version that it was made from.',
    resolve: (v, _a, { db }) => parentsOf(db, v)[0],
  }),
  datasetVersion: t.field({
    type: DatasetVersionType,
    nullable: true,
    description: 'The dataset version that it was trained on, deleted or not; null for an upload.',
    resolve: ({ datasetVersionId }, _a, { db }) => (datasetVersionId === null ? null : findVersionEver(db, datasetVersionId)),
  }),
  lineage: t.field({
    type: [ModelVersionType],
    description: 'Its parent, the parent’s parent, and so on up to the root; at most 100.',
    extensions: { size: 10, cost: 50 },
    resolve: (v, _a, { db }) => parentsOf(db, v),
  }),
}));

export const ModelVersionConnection = builder.connectionObject(
  { type: ModelVersionType, name: 'ModelVersionConnection', description: 'A page of model versions.', fields: totalCount },
  { description: 'A model version in a page.' },
);

const ModelAliasType = builder.objectRef<ModelAlias>('ModelAlias').implement({
  description: 'A name that points at one version of a model, such as `production`.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'Unique within the model.' }),
    version: t.field({
      type: ModelVersionType,
      description: 'The version that it points at.',
      resolve: (alias, _a, { db }) => findModelVersion(db, alias.versionId) as ModelVersion,
    }),
  }),
});

export const ModelType = builder.node(builder.objectRef<Model>('Model'), {
  description: 'A name under which versions are collected.',
  id: { resolve: (m) => m.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findModel(db, id),
  authScopes: { can: 'READ' },
  fields: (t) => ({
    name: t.exposeString('name', { description: 'Unique.' }),
    task: t.expose('task', { type: TaskType, description: 'What it does with an image.' }),
    notes: t.exposeString('notes', { description: 'What its users wrote about it.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When its first version was asked for.' }),
    createdByName: t.string({
      nullable: true,
      description: 'Name of the user who made it.',
      resolve: (m, _a, { db }) => (m.createdById ? findUser(db, m.createdById)?.name : null),
    }),
    aliases: t.field({
      type: [ModelAliasType],
      description: 'Its aliases by name; at most 100.',
      extensions: { size: 10 },
      resolve: (m, _a, { db }) => listAliases(db, m.id),
    }),
    version: t.field({
      type: ModelVersionType,
      nullable: true,
      description: 'The version with this number or alias; without either the newest that is READY.',
      args: { number: t.arg.int({ description: 'Its number.' }), alias: t.arg.string({ description: 'An alias that points at it.' }) },
      resolve: (m, which, { db }) => chooseModelVersion(db, m.id, which),
    }),
    versions: t.field({
      type: ModelVersionConnection,
      description: 'Its versions, newest first.',
      args: pageArgs(),
      resolve: async (m, args, context) => {
        const { db } = context;
        const listed = await pageInPieces(`versions ${m.id}`, args, context, (limit, after) => listModelVersions(db, m.id, limit, after));
        return { ...listed, count: () => countVersions({ db, request: context }, { modelId: m.id }, null) };
      },
    }),
  }),
});

builder.objectField(ModelVersionType, 'model', (t) =>
  t.field({
    type: ModelType,
    description: 'The model that it is a version of.',
    resolve: (v, _a, { db }) => findModelEver(db, v.modelId) as Model,
  }),
);

const ModelConnection = builder.connectionObject(
  { type: ModelType, name: 'ModelConnection', description: 'A page of models.', fields: totalCount },
  { description: 'A model in a page.' },
);

const ModelFilterType = builder.inputType('ModelFilter', {
  description: 'Which models.',
  fields: (t) => ({
    nameContains: t.string({ description: 'Part of the name, whatever the case.' }),
    task: t.field({ type: TaskType, description: 'Only models for this task.' }),
    alias: t.string({ description: 'Only models that have this alias.' }),
    tags: t.field({ type: [TagFilterType], description: 'Only models that have all of these tags themselves.' }),
    format: t.field({ type: ModelFormatType, description: 'Only models with a READY version of this format.' }),
    metrics: t.field({
      type: [MetricFilterType],
      description: 'Only models with a READY version that has an evaluation with this metric, for each of at most 5.',
    }),
  }),
});

const ModelOrderType = builder.enumType('ModelOrder', {
  description: 'Order of a list of models.',
  values: enumValues<ModelOrder>({ NAME: 'By name, from A to Z.', CREATED_AT: 'By creation, newest first.' }),
});

builder.queryFields((t) => ({
  model: t.field({
    type: ModelType,
    nullable: true,
    description: 'The model with this name; null when there is none.',
    authScopes: { can: 'READ' },
    args: { name: t.arg.string({ required: true, description: 'Its exact name.' }) },
    resolve: (_root, { name }, { db }) => findModelByName(db, name),
  }),
  models: t.field({
    type: ModelConnection,
    description: 'Models, by name unless told otherwise.',
    authScopes: { can: 'READ' },
    args: {
      ...pageArgs(),
      filter: t.arg({ type: ModelFilterType, description: 'Which models.' }),
      orderBy: t.arg({ type: ModelOrderType, required: true, defaultValue: 'NAME', description: 'In which order.' }),
    },
    resolve: (_root, { filter, orderBy, ...args }, { db }) => ({
      ...page(
        `models ${orderBy}`,
        args,
        textKey,
        (limit, after: string | null) => listModels(db, filter ?? {}, orderBy, limit, after),
        modelOrders[orderBy].key,
      ),
      count: () => countModels(db, filter ?? {}),
    }),
  }),
}));

const modelPayload = {
  interfaces: [PayloadType],
  outputFields: (t: PayloadFields<Model>) => ({
    model: t.field({ type: ModelType, nullable: true, description: 'The model as it is now.', resolve: (p) => p.result }),
  }),
};

const modelId = 'The model to change.';

builder.relayMutationField(
  'setModelAlias',
  {
    inputFields: (t) => ({
      modelId: t.id({ required: true, description: modelId }),
      name: t.string({ required: true, description: 'The alias: 1 to 64 small letters, digits, - or _, a letter first.' }),
      modelVersionId: t.id({ description: 'The READY version that it shall point at; null removes the alias.' }),
    }),
  },
  {
    description: 'Points a name such as `production` at a version of a model, whatever it pointed at before.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) =>
      payload(() => {
        const versionId = input.modelVersionId ? idOf('ModelVersion', input.modelVersionId) : null;
        return setModelAlias(context, context.actor, idOf('Model', input.modelId), input.name, versionId);
      }),
  },
  modelPayload,
);

builder.relayMutationField(
  'updateModel',
  {
    inputFields: (t) => ({
      modelId: t.id({ required: true, description: modelId }),
      name: t.string({ description: 'New name: 1 to 100 letters (of any script), digits or . _ -' }),
      notes: t.string({ description: 'New notes: at most 10,000 characters.' }),
    }),
  },
  {
    description: 'Changes the name or the notes of a model.',
    authScopes: { can: 'RUN_JOBS' },
    resolve: (_root, { input }, context) => payload(() => updateModel(context, context.actor, idOf('Model', input.modelId), input)),
  },
  modelPayload,
);

builder.relayMutationField(
  'deleteModel',
  { inputFields: (t) => ({ modelId: t.id({ required: true, description: 'The model to delete.' }) }) },
  {
    description:
      'Deletes a model with all its versions and aliases. Their metadata and hashes stay in the lineage of others; the name is free ' +
      'again, the files go within seconds, but for those that others share. IN_USE while a job needs one of them.',
    authScopes: { can: 'DELETE' },
    resolve: (_root, { input }, context) => payload(() => deleteModel(context, context.actor, idOf('Model', input.modelId))),
  },
  modelPayload,
);

builder.relayMutationField(
  'deleteModelVersion',
  { inputFields: (t) => ({ modelVersionId: t.id({ required: true, description: 'The version to delete.' }) }) },
  {
    description: 'Deletes one version with the aliases that point at it. IN_USE while a job needs it.',
    authScopes: { can: 'DELETE' },
    resolve: (_root, { input }, context) =>
      payload(() => deleteModelVersion(context, context.actor, idOf('ModelVersion', input.modelVersionId))),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<ModelVersion>) => ({
      modelVersion: t.field({
        type: ModelVersionType,
        nullable: true,
        description: 'What is left of it.',
        resolve: (p) => p.result,
      }),
    }),
  },
);
