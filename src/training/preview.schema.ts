import { ApiError } from '../errors.ts';
import { builder, idOf } from '../graphql/builder.ts';
import { type AugmentedPicture, augmentationPreview, picturesMax } from './preview.ts';

const ClassShareType = builder.objectRef<AugmentedPicture['classes'][number]>('AugmentedClass').implement({
  description: 'A class that a training picture shows.',
  fields: (t) => ({
    class: t.exposeString('class', { description: 'Its name.' }),
    share: t.exposeFloat('share', { description: 'How much it counts, above 0: 1, or less where MixUp or CutMix shows two images.' }),
  }),
});

const AugmentedBoxType = builder.objectRef<AugmentedPicture['boxes'][number]>('AugmentedBox').implement({
  description: 'An object in a training picture, in its pixels.',
  fields: (t) => ({
    class: t.exposeString('class', { description: 'Name of its class.' }),
    x: t.exposeFloat('x', { description: 'Left edge.' }),
    y: t.exposeFloat('y', { description: 'Upper edge.' }),
    width: t.exposeFloat('width', { description: 'Its width.' }),
    height: t.exposeFloat('height', { description: 'Its height.' }),
    ignored: t.exposeBoolean('ignored', {
      description: 'Whether nothing is learned inside: a crowd, or an object of which too little is left.',
    }),
  }),
});

const AugmentedPictureType = builder.objectRef<AugmentedPicture>('AugmentedPicture').implement({
  description: 'A picture as the training sees it.',
  fields: (t) => ({
    dataUri: t.string({ description: 'The picture: a data URI with a JPEG.', resolve: ({ jpeg }) => `data:image/jpeg;base64,${jpeg}` }),
    classes: t.field({
      type: [ClassShareType],
      description: 'CLASSIFICATION: its class, or two that are mixed; otherwise empty.',
      extensions: { size: 2 },
      resolve: (p) => p.classes,
    }),
    boxes: t.field({
      type: [AugmentedBoxType],
      description: 'DETECTION: its objects; otherwise empty.',
      extensions: { size: 20 },
      resolve: (p) => p.boxes,
    }),
  }),
});

builder.queryField('augmentationPreview', (t) =>
  t.field({
    type: [AugmentedPictureType],
    description:
      'The first pictures of a training before it starts, with all random changes, made by the trainer in some seconds. ' +
      'UNAVAILABLE while two other previews are being made.',
    extensions: { size: (argument: (name: string) => unknown) => Number(argument('count')), cost: 1_000 },
    authScopes: { can: 'READ' },
    args: {
      datasetVersionId: t.arg.id({ required: true, description: 'Its train split is shown.' }),
      preset: t.arg.string({ required: true, description: 'Name of a preset: the query `presets` lists them.' }),
      hyperparameters: t.arg({ type: 'JSON', description: 'Those that differ from the defaults, as in `startTraining`.' }),
      seed: t.arg({ type: 'SafeInt', required: true, defaultValue: 0, description: 'That of the training: 0 to 2³² - 1.' }),
      count: t.arg.int({ required: true, defaultValue: 8, description: `How many pictures: 1 to ${picturesMax}.` }),
    },
    resolve: (_root, { datasetVersionId, hyperparameters, seed, ...asked }, context) => {
      if (seed < 0 || seed > 0xffff_ffff) throw new ApiError('INVALID', `seed is ${seed}: say 0 to 4294967295.`);
      return augmentationPreview(context, {
        ...asked,
        seed,
        hyperparameters: hyperparameters ?? {},
        datasetVersionId: idOf('DatasetVersion', String(datasetVersionId)),
      });
    },
  }),
);
