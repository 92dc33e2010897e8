import { ApiError } from '../errors.ts';
import { builder } from '../graphql/builder.ts';
import { boxesPerImageMax } from '../jobs/manifest.ts';
import { findArtifact } from '../storage/blobs.ts';
import { thumbnailUrl } from '../storage/links.ts';
import { findItem, type Item, type ItemBox } from './datasets.ts';
import type { splits } from './tables.ts';

export const SplitType = builder.enumType('Split', {
  description: 'A part of a dataset.',
  values: {
    TRAIN: { value: 'train', description: 'Images to learn from.' },
    VAL: { value: 'val', description: 'Images that judge a training while it runs, and a conversion after it.' },
    TEST: { value: 'test', description: 'Images that nothing has been chosen by.' },
  } as const satisfies Record<Uppercase<(typeof splits)[number]>, unknown>,
});

const DatasetBoxType = builder.objectRef<ItemBox>('DatasetBox').implement({
  description:
    'An object in an image of a detection dataset, inside the image, in pixels of the image turned upright by its EXIF orientation.',
  fields: (t) => ({
    classIndex: t.exposeInt('label', { description: 'Index of its class.' }),
    class: t.exposeString('class', { description: 'Name of its class.' }),
    x: t.exposeFloat('x', { description: 'Left edge, in pixels from the left edge of the image.' }),
    y: t.exposeFloat('y', { description: 'Upper edge, in pixels from the upper edge of the image.' }),
    width: t.exposeFloat('width', { description: 'In pixels, above 0.' }),
    height: t.exposeFloat('height', { description: 'In pixels, above 0.' }),
    crowd: t.boolean({
      description:
        'Whether it holds many objects that nobody has marked one by one: training and evaluation ignore this class inside the box.',
      resolve: ({ crowd }) => crowd ?? false,
    }),
  }),
});

export const DatasetItemType = builder.node(builder.objectRef<Item>('DatasetItem'), {
  description: 'An image of a dataset version.',
  id: { resolve: (i) => `${i.versionId}:${i.n}`, description: 'Opaque id.' },
  loadOne: (id, { db }) => {
    const [versionId = '', n] = id.split(':');
    return findItem(db, versionId, Number(n));
  },
  authScopes: { can: 'READ' },
  fields: (t) => ({
    index: t.exposeInt('n', { description: 'Its place in the version, from 0: sorted by split, then by path.' }),
    split: t.expose('split', { type: SplitType, description: 'The part of the dataset that it belongs to.' }),
    class: t.exposeString('class', { nullable: true, description: 'CLASSIFICATION: name of its class; otherwise null.' }),
    boxes: t.field({
      type: [DatasetBoxType],
      nullable: true,
      description: 'DETECTION: its first boxes, by class, then from left to right; otherwise null.',
      args: { first: t.arg.int({ required: true, defaultValue: 100, description: `How many at most: 1 to ${boxesPerImageMax}.` }) },
      resolve: ({ boxes }, { first }) => {
        if (first < 1 || first > boxesPerImageMax) throw new ApiError('LIMIT', `first is 1 to ${boxesPerImageMax}.`);
        return boxes?.slice(0, first);
      },
    }),
    boxCount: t.int({
      nullable: true,
      description: 'DETECTION: how many boxes it has, crowds among them.',
      resolve: ({ boxes }) => boxes?.length,
    }),
    path: t.exposeString('path', {
      description:
        'Path in the dataset: `<class>/<image>`, or the image’s path in a detection dataset; behind `<split>/` where the zip has splits.',
    }),
    sha256: t.exposeString('sha256', { description: 'SHA-256 of the file as it was uploaded.' }),
    width: t.exposeInt('width', { description: 'In pixels, upright by the EXIF orientation.' }),
    height: t.exposeInt('height', { description: 'In pixels, upright by the EXIF orientation.' }),
    thumbnailUrl: t.string({
      nullable: true,
      description: 'Short-lived link to a WebP image of at most 96 × 96 pixels, which shows the boxes.',
      resolve: (i, _a, context) => {
        const thumbnails = findArtifact(context.db, 'DATASET_VERSION', i.versionId, 'THUMBNAILS');
        return thumbnails && thumbnailUrl(context, thumbnails, i.thumbnailOffset, i.thumbnailBytes);
      },
    }),
  }),
});

export const DatasetItemConnection = builder.connectionObject(
  { type: DatasetItemType, name: 'DatasetItemConnection', description: 'A page of images.' },
  { description: 'An image in a page.' },
);
