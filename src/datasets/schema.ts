import { findUser } from '../accounts/users.ts';
import { ApiError } from '../errors.ts';
import { builder, enumValues, idOf, type PayloadFields, PayloadType, payload } from '../graphql/builder.ts';
import { numberKey, page, pageArgs, pageInPieces, textKey, totalCount } from '../graphql/connection.ts';
import type { Context } from '../graphql/context.ts';
import { TaskType, VersionStateType } from '../graphql/enums.ts';
import type { FieldCost } from '../graphql/limits.ts';
import { findJob } from '../jobs/jobs.ts';
import { JobType } from '../jobs/schema.ts';
import { findArtifact } from '../storage/blobs.ts';
import { downloadUrl } from '../storage/links.ts';
import type { Artifact } from '../storage/tables.ts';
import { TagFilterType } from '../tags/filter.schema.ts';
import { deleteDataset, deleteDatasetVersion, updateDataset } from './change.ts';
import {
  chooseDatasetVersion,
  countDatasets,
  countDatasetVersions,
  type DatasetOrder,
  datasetOrders,
  findDataset,
  findDatasetByName,
  findDatasetEver,
  findDatasetVersion,
  listDatasets,
  listDatasetVersions,
  listItems,
} from './datasets.ts';
import type { ExportForm } from './export/forms.ts';
import { exportUrl } from './export/serve.ts';
import { DatasetItemConnection, SplitType } from './items.schema.ts';
import type { Dataset, DatasetCounts, DatasetVersion, splits } from './tables.ts';

type SplitCounts = Record<(typeof splits)[number], number>;

const SplitCountsType = builder.objectRef<SplitCounts>('SplitCounts').implement({
  description: 'Numbers of images, or of boxes, by split.',
  fields: (t) => ({
    total: t.int({ description: 'In all splits.', resolve: (c) => c.train + c.val + c.test }),
    train: t.exposeInt('train', { description: 'In TRAIN.' }),
    val: t.exposeInt('val', { description: 'In VAL.' }),
    test: t.exposeInt('test', { description: 'In TEST.' }),
  }),
});

interface DatasetClass {
  index: number;
  name: string;
  counts: SplitCounts;
  boxCounts: SplitCounts | null;
}

const DatasetClassType = builder.objectRef<DatasetClass>('DatasetClass').implement({
  description: 'A class of a dataset version.',
  fields: (t) => ({
    index: t.exposeInt('index', { description: 'Place in the order of the classes, which is the order of a model’s outputs.' }),
    name: t.exposeString('name', { description: 'Its name in the zip: of its folder, in data.yaml or in categories.' }),
    counts: t.expose('counts', { type: SplitCountsType, description: 'The images that show it.' }),
    boxCounts: t.expose('boxCounts', {
      type: SplitCountsType,
      nullable: true,
      description: 'DETECTION: its boxes without crowds; otherwise null.',
    }),
  }),
});

/** Classes that a dataset may have, and that can be asked for at once. */
const classesMax = 10_000;

/** Numbers by split of one class. */
const countsOf = (bySplit: DatasetCounts['bySplit'], label: number): SplitCounts => ({
  train: bySplit.train[label] ?? 0,
  val: bySplit.val[label] ?? 0,
  test: bySplit.test[label] ?? 0,
});

/** Numbers by split of all classes. */
function sumsOf(bySplit: DatasetCounts['bySplit']): SplitCounts {
  const sum = (numbers: number[]) => numbers.reduce((total, n) => total + n, 0);
  return { train: sum(bySplit.train), val: sum(bySplit.val), test: sum(bySplit.test) };
}

const DatasetFormType = builder.enumType('DatasetForm', {
  description: 'How a zip writes a detection dataset.',
  values: enumValues<ExportForm>({
    YOLO: 'A data.yaml, images/<split>/… and for each image a text file in labels/<split>/…. It cannot write crowds: they are left out.',
    COCO: 'A JSON file annotations/instances_<split>.json for each split, and images/<split>/….',
  }),
});

type LeftOut = NonNullable<DatasetCounts['leftOut']>;

const LeftOutImageType = builder.objectRef<LeftOut['first'][number]>('LeftOutImage').implement({
  description: 'An image of a zip that was left out.',
  fields: (t) => ({
    file: t.exposeString('file', { description: 'Its name in the zip.' }),
    reason: t.exposeString('reason', { description: 'What is wrong with it.' }),
  }),
});

const LeftOutType = builder.objectRef<LeftOut>('LeftOutImages').implement({
  description: 'Images of a zip that were left out.',
  fields: (t) => ({
    count: t.exposeInt('count', { description: 'How many.' }),
    first: t.field({
      type: [LeftOutImageType],
      description: 'The first 100 by name.',
      extensions: { size: 10 } satisfies FieldCost,
      resolve: ({ first }) => first,
    }),
  }),
});

function linkTo(context: Context, { id }: DatasetVersion, kind: Artifact['kind']): string | null {
  const found = findArtifact(context.db, 'DATASET_VERSION', id, kind);
  return found ? downloadUrl(context, found) : null;
}

export const DatasetVersionType = builder.node(builder.objectRef<DatasetVersion>('DatasetVersion'), {
  description: 'The images of a dataset at one time. Once READY it never changes.',
  id: { resolve: (v) => v.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findDatasetVersion(db, id),
  authScopes: { can: 'READ' },
  fields: (t) => ({
    number: t.exposeInt('number', { description: 'Counted from 1 within the dataset.' }),
    state: t.expose('state', { type: VersionStateType, description: 'Where it stands.' }),
    contentHash: t.exposeString('contentHash', {
      nullable: true,
      description:
        'SHA-256 over the splits, paths, classes or boxes, and hashes of all images: the same content is the same, however it was zipped.',
    }),
    splitSeed: t.field({
      type: 'SafeInt',
      description: 'What divided images whose zip has no split folders.',
      resolve: (v) => v.splitSeed,
    }),
    classes: t.field({
      type: [DatasetClassType],
      description: 'Its classes, of class folders by name, of a detection dataset in the order of its files; empty before it is READY.',
      args: {
        first: t.arg.int({ required: true, defaultValue: 1000, description: `How many at most: 1 to ${classesMax}.` }),
        after: t.arg.int({ required: true, defaultValue: -1, description: 'Only those behind the class of this index.' }),
      },
      extensions: { size: (argument) => Number(argument('first')) / 10 } satisfies FieldCost,
      resolve: ({ classesJson, countsJson }, { first, after }) => {
        if (first < 1 || first > classesMax) throw new ApiError('LIMIT', `\`first\` is between 1 and ${classesMax}; it is ${first}.`);
        if (!countsJson) return [];
        const { bySplit, boxesBySplit } = countsJson;
        const from = Math.max(0, after + 1);
        return (classesJson ?? []).slice(from, from + first).map((name, i) => {
          const index = from + i;
          return { index, name, counts: countsOf(bySplit, index), boxCounts: boxesBySplit && countsOf(boxesBySplit, index) };
        });
      },
    }),
    counts: t.field({
      type: SplitCountsType,
      nullable: true,
      description: 'Its images; null before it is READY.',
      resolve: ({ countsJson }) => countsJson?.images,
    }),
    boxCounts: t.field({
      type: SplitCountsType,
      nullable: true,
      description: 'DETECTION: its boxes without crowds; otherwise, and before it is READY, null.',
      resolve: ({ countsJson }) => countsJson?.boxesBySplit && sumsOf(countsJson.boxesBySplit),
    }),
    duplicatesAcrossSplits: t.int({
      nullable: true,
      description: 'Distinct images whose bytes are in more than one split: they flatter every metric.',
      resolve: ({ countsJson }) => countsJson?.duplicatesAcrossSplits,
    }),
    leftOut: t.field({
      type: LeftOutType,
      nullable: true,
      description:
        'Images of the zip that are not in it (`onProblem: LEAVE_OUT`), and files such as `.mp4` that are no images; null before it is READY.',
      resolve: ({ countsJson }) => countsJson && (countsJson.leftOut ?? { count: 0, first: [] }),
    }),
    sizeBytes: t.expose('sizeBytes', { type: 'SafeInt', nullable: true, description: 'Bytes of its images.' }),
    items: t.field({
      type: DatasetItemConnection,
      description: 'Its images, sorted by split, then by path.',
      args: {
        ...pageArgs(),
        split: t.arg({ type: SplitType, description: 'Only this split.' }),
        class: t.arg.string({ description: 'Only images that show the class of this name.' }),
      },
      resolve: (v, { split, class: name, ...args }, { db }) =>
        page(
          `items ${v.id}`,
          args,
          numberKey,
          (limit, after: number | null) => listItems(db, v, { split, class: name }, limit, after),
          (item) => item.n,
        ),
    }),
    job: t.field({
      type: JobType,
      nullable: true,
      description: 'The import that makes it, or made it.',
      resolve: (v, _a, { db }) => (v.jobId ? findJob(db, v.jobId) : null),
    }),
    downloadUrl: t.string({
      nullable: true,
      description: 'Short-lived link to the zip as it was uploaded.',
      resolve: (v, _a, context) => linkTo(context, v, 'DATASET_ZIP'),
    }),
    exportUrl: t.string({
      nullable: true,
      description:
        'DETECTION: short-lived link to the dataset as a zip in this form, which `createDataset` takes again; otherwise, and before it is READY, null.',
      args: { form: t.arg({ type: DatasetFormType, required: true, description: 'How boxes are written.' }) },
      resolve: (v, { form }, context) => (v.countsJson?.boxesBySplit && v.deletedAt === null ? exportUrl(context, v, form) : null),
    }),
    manifestUrl: t.string({
      nullable: true,
      description: 'Short-lived link to the list of its images, one JSON object a line; null before it is READY.',
      resolve: (v, _a, context) => linkTo(context, v, 'MANIFEST'),
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was asked for.' }),
    deletedAt: t.expose('deletedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was deleted: it is then only seen in the lineage of models.',
    }),
  }),
});

const DatasetVersionConnection = builder.connectionObject(
  { type: DatasetVersionType, name: 'DatasetVersionConnection', description: 'A page of dataset versions.', fields: totalCount },
  { description: 'A dataset version in a page.' },
);

export const DatasetType = builder.node(builder.objectRef<Dataset>('Dataset'), {
  description: 'A name under which versions are collected.',
  id: { resolve: (d) => d.id, description: 'Opaque id.' },
  loadOne: (id, { db }) => findDataset(db, id),
  authScopes: { can: 'READ' },
  fields: (t) => ({
    name: t.exposeString('name', { description: 'Unique.' }),
    task: t.expose('task', { type: TaskType, description: 'What its labels are for.' }),
    notes: t.exposeString('notes', { description: 'What its users wrote about it.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When its first version was asked for.' }),
    createdByName: t.string({
      nullable: true,
      description: 'Name of the user who made it.',
      resolve: (d, _a, { db }) => (d.createdById ? findUser(db, d.createdById)?.name : null),
    }),
    version: t.field({
      type: DatasetVersionType,
      nullable: true,
      description: 'The version with this number; without one the newest that is READY.',
      args: { number: t.arg.int({ description: 'Its number.' }) },
      resolve: (d, { number }, { db }) => chooseDatasetVersion(db, d.id, number),
    }),
    versions: t.field({
      type: DatasetVersionConnection,
      description: 'Its versions, newest first.',
      args: pageArgs(),
      resolve: async (d, args, context) => {
        const { db } = context;
        const listed = await pageInPieces(`versions ${d.id}`, args, context, (limit, after) => listDatasetVersions(db, d.id, limit, after));
        return { ...listed, count: () => countDatasetVersions(db, d.id) };
      },
    }),
  }),
});

builder.objectField(DatasetVersionType, 'dataset', (t) =>
  t.field({
    type: DatasetType,
    description: 'The dataset that it is a version of.',
    resolve: (v, _a, { db }) => findDatasetEver(db, v.datasetId) as Dataset,
  }),
);

const DatasetConnection = builder.connectionObject(
  { type: DatasetType, name: 'DatasetConnection', description: 'A page of datasets.', fields: totalCount },
  { description: 'A dataset in a page.' },
);

const DatasetFilterType = builder.inputType('DatasetFilter', {
  description: 'Which datasets.',
  fields: (t) => ({
    nameContains: t.string({ description: 'Part of the name, whatever the case.' }),
    task: t.field({ type: TaskType, description: 'Only datasets for this task.' }),
    tags: t.field({ type: [TagFilterType], description: 'Only datasets that have all of these tags themselves.' }),
  }),
});

const DatasetOrderType = builder.enumType('DatasetOrder', {
  description: 'Order of a list of datasets.',
  values: enumValues<DatasetOrder>({ NAME: 'By name, from A to Z.', CREATED_AT: 'By creation, newest first.' }),
});

builder.queryFields((t) => ({
  dataset: t.field({
    type: DatasetType,
    nullable: true,
    description: 'The dataset with this name; null when there is none.',
    authScopes: { can: 'READ' },
    args: { name: t.arg.string({ required: true, description: 'Its exact name.' }) },
    resolve: (_root, { name }, { db }) => findDatasetByName(db, name),
  }),
  datasets: t.field({
    type: DatasetConnection,
    description: 'Datasets, by name unless told otherwise.',
    authScopes: { can: 'READ' },
    args: {
      ...pageArgs(),
      filter: t.arg({ type: DatasetFilterType, description: 'Which datasets.' }),
      orderBy: t.arg({ type: DatasetOrderType, required: true, defaultValue: 'NAME', description: 'In which order.' }),
    },
    resolve: (_root, { filter, orderBy, ...args }, { db }) => ({
      ...page(
        `datasets ${orderBy}`,
        args,
        textKey,
        (limit, after: string | null) => listDatasets(db, filter ?? {}, orderBy, limit, after),
        datasetOrders[orderBy].key,
      ),
      count: () => countDatasets(db, filter ?? {}),
    }),
  }),
}));

const datasetPayload = {
  interfaces: [PayloadType],
  outputFields: (t: PayloadFields<Dataset>) => ({
    dataset: t.field({ type: DatasetType, nullable: true, description: 'The dataset as it is now.', resolve: (p) => p.result }),
  }),
};

builder.relayMutationField(
  'updateDataset',
  {
    inputFields: (t) => ({
      datasetId: t.id({ required: true, description: 'The dataset to change.' }),
      name: t.string({ description: 'New name: 1 to 100 letters (of any script), digits or . _ -' }),
      notes: t.string({ description: 'New notes: at most 10,000 characters.' }),
    }),
  },
  {
    description: 'Changes the name or the notes of a dataset.',
    authScopes: { can: 'UPLOAD' },
    resolve: (_root, { input }, context) => payload(() => updateDataset(context, context.actor, idOf('Dataset', input.datasetId), input)),
  },
  datasetPayload,
);

builder.relayMutationField(
  'deleteDataset',
  { inputFields: (t) => ({ datasetId: t.id({ required: true, description: 'The dataset to delete.' }) }) },
  {
    description:
      'Deletes a dataset with all its versions. Their metadata and hashes stay in the lineage of models; the name is free again, the ' +
      'files go within seconds, but for those that others share. IN_USE while a job needs one of them.',
    authScopes: { can: 'DELETE' },
    resolve: (_root, { input }, context) => payload(() => deleteDataset(context, context.actor, idOf('Dataset', input.datasetId))),
  },
  datasetPayload,
);

builder.relayMutationField(
  'deleteDatasetVersion',
  { inputFields: (t) => ({ datasetVersionId: t.id({ required: true, description: 'The version to delete.' }) }) },
  {
    description: 'Deletes one version. IN_USE while a job needs it.',
    authScopes: { can: 'DELETE' },
    resolve: (_root, { input }, context) =>
      payload(() => deleteDatasetVersion(context, context.actor, idOf('DatasetVersion', input.datasetVersionId))),
  },
  {
    interfaces: [PayloadType],
    outputFields: (t: PayloadFields<DatasetVersion>) => ({
      datasetVersion: t.field({ type: DatasetVersionType, nullable: true, description: 'What is left of it.', resolve: (p) => p.result }),
    }),
  },
);
