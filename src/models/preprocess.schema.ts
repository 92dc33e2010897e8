import { builder, enumValues } from '../graphql/builder.ts';
import type { PreprocessSpec } from '../vision/spec.ts';

const ResizeModeType = builder.enumType('ResizeMode', {
  description: 'How an image of any size becomes one of the input’s size.',
  values: enumValues<PreprocessSpec['mode']>({
    STRETCH: 'Resizes without regard to the aspect ratio.',
    CROP: 'Takes the largest centred part with the input’s aspect ratio (`cropFraction` of it) and resizes that.',
    LETTERBOX: 'Resizes the whole image to fit and pads the rest with `padColor`.',
  }),
});

const ChannelOrderType = builder.enumType('ChannelOrder', {
  description: 'The channels of a tensor in their order.',
  values: enumValues<PreprocessSpec['channels']>({
    RGB: 'Red, green, blue.',
    BGR: 'Blue, green, red.',
    GREY: 'One channel: the luma of red, green and blue.',
  }),
});

const TensorLayoutType = builder.enumType('TensorLayout', {
  description: 'Order of the dimensions in a tensor of images.',
  values: enumValues<PreprocessSpec['layout']>({ NCHW: 'Batch, channels, height, width.', NHWC: 'Batch, height, width, channels.' }),
});

const describe = {
  width: 'Input width in pixels, 1 to 4096.',
  height: 'Input height in pixels, 1 to 4096.',
  mode: 'How the image is fitted.',
  cropFraction: 'CROP only: share of the largest centred part that is kept, above 0 up to 1.',
  padColor: 'LETTERBOX only: red, green, blue, each 0 to 255.',
  channels: 'The channels in their order.',
  mean: 'Subtracted from values of 0 to 1: a number for each channel.',
  std: 'Divided by after the mean is subtracted: a number for each channel.',
  layout: 'Order of the dimensions.',
};

export const PreprocessSpecType = builder.objectRef<PreprocessSpec>('PreprocessSpec').implement({
  description: 'From an image file to the model’s input tensor; docs/preprocessing.md defines each step.',
  fields: (t) => ({
    version: t.exposeInt('version', { description: 'Of the definition.' }),
    width: t.exposeInt('width', { description: describe.width }),
    height: t.exposeInt('height', { description: describe.height }),
    mode: t.expose('mode', { type: ResizeModeType, description: describe.mode }),
    cropFraction: t.exposeFloat('cropFraction', { description: describe.cropFraction }),
    padColor: t.exposeIntList('padColor', { description: describe.padColor }),
    channels: t.expose('channels', { type: ChannelOrderType, description: describe.channels }),
    mean: t.field({ type: ['Float'], description: describe.mean, resolve: (spec) => [...spec.mean] }),
    std: t.field({ type: ['Float'], description: describe.std, resolve: (spec) => [...spec.std] }),
    layout: t.expose('layout', { type: TensorLayoutType, description: describe.layout }),
  }),
});

/** Its fields are those of the specification, so that one is checked as the other. */
export const PreprocessSpecInput = builder.inputType('PreprocessSpecInput', {
  description: 'From an image file to the model’s input tensor; docs/preprocessing.md defines each step.',
  fields: (t) => ({
    version: t.int({ required: true, defaultValue: 1, description: 'Of the definition: 1.' }),
    width: t.int({ required: true, description: describe.width }),
    height: t.int({ required: true, description: describe.height }),
    mode: t.field({ type: ResizeModeType, required: true, defaultValue: 'CROP', description: describe.mode }),
    cropFraction: t.float({ required: true, defaultValue: 1, description: describe.cropFraction }),
    padColor: t.intList({ required: true, defaultValue: [114, 114, 114], description: describe.padColor }),
    channels: t.field({ type: ChannelOrderType, required: true, defaultValue: 'RGB', description: describe.channels }),
    mean: t.floatList({ required: true, defaultValue: [0, 0, 0], description: describe.mean }),
    std: t.floatList({ required: true, defaultValue: [1, 1, 1], description: describe.std }),
    layout: t.field({ type: TensorLayoutType, required: true, defaultValue: 'NCHW', description: describe.layout }),
  }),
});
