/** What a model needs said of it beside its file: its task, how an image becomes its input, how its outputs hold what it found. */
import { z } from 'zod';

/** What a model does with an image. */
export const Task = z.enum(['CLASSIFICATION', 'DETECTION']);
export type Task = z.infer<typeof Task>;

const ofChannels = z.array(z.number()).min(1).max(3);

/** From an image file to the model's input tensor, the one definition: `docs/preprocessing.md` says what each step does. */
export const PreprocessSpec = z
  .object({
    version: z.literal(1),
    width: z.int().min(1).max(4096).describe('Input width in pixels.'),
    height: z.int().min(1).max(4096).describe('Input height in pixels.'),
    mode: z
      .enum(['STRETCH', 'CROP', 'LETTERBOX'])
      .describe('STRETCH ignores the aspect ratio, CROP takes the largest centred part, LETTERBOX fits and pads.'),
    cropFraction: z.number().gt(0).max(1).describe('CROP only: share of the largest centred part that is kept.'),
    padColor: z.array(z.int().min(0).max(255)).length(3).describe('LETTERBOX only: red, green, blue.'),
    channels: z.enum(['RGB', 'BGR', 'GREY']).describe('Channels of the tensor in their order. GREY: one channel, the luma.'),
    mean: ofChannels.describe('A number for each channel, for values of 0 to 1.'),
    std: ofChannels.describe('A number for each channel, for values of 0 to 1.'),
    layout: z.enum(['NCHW', 'NHWC']),
  })
  .superRefine(({ channels, ...spec }, context) => {
    const count = channelCount({ channels });
    for (const name of ['mean', 'std'] as const) {
      if (spec[name].length === count) continue;
      const message = `${name} has ${spec[name].length} numbers, but ${channels} has ${count} channel${count > 1 ? 's' : ''}: say one for each.`;
      context.addIssue({ code: 'custom', path: [name], message });
    }
  })
  .meta({ id: 'PreprocessSpec' });
export type PreprocessSpec = z.infer<typeof PreprocessSpec>;

/** Of the tensor. */
export const channelCount = ({ channels }: { channels: 'RGB' | 'BGR' | 'GREY' }): number => (channels === 'GREY' ? 1 : 3);

/** What torchvision's public weights were trained with. */
export const imageNet = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] } satisfies Pick<PreprocessSpec, 'mean' | 'std'>;
const average = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** The same with one channel: the average of the three. */
export const inGrey = (spec: PreprocessSpec): PreprocessSpec => ({
  ...spec,
  channels: 'GREY',
  mean: [average(spec.mean)],
  std: [average(spec.std)],
});

const presetPreprocessing = {
  /** The largest centred square. */
  CLASSIFICATION: { mode: 'CROP', ...imageNet },
  /** The whole image, its levels as 0 to 1. */
  DETECTION: { mode: 'LETTERBOX', mean: [0, 0, 0], std: [1, 1, 1] },
} satisfies Record<Task, Pick<PreprocessSpec, 'mode' | 'mean' | 'std'>>;

/** What the presets of a task train with. `imageSize` in pixels. */
export function presetPreprocess(imageSize: number, task: Task = 'CLASSIFICATION'): PreprocessSpec {
  return {
    version: 1,
    width: imageSize,
    height: imageSize,
    cropFraction: 1,
    padColor: [114, 114, 114],
    channels: 'RGB',
    layout: 'NCHW',
    ...presetPreprocessing[task],
  };
}

/** How a detector's outputs hold what it found, in pixels of the input: `docs/preprocessing.md`, "Outputs". */
export const OutputLayout = z
  .enum(['BOXES_SCORES', 'CENTRES_FIRST', 'OBJECTNESS', 'SUPPRESSED'])
  .describe(
    'BOXES_SCORES: boxes (N × A × 4: left, top, right, bottom) and scores (N × A × classes). ' +
      'CENTRES_FIRST: one output (N × (4 + classes) × A): centre x, centre y, width, height, scores. ' +
      'OBJECTNESS: one output (N × A × (5 + classes)): centre x, centre y, width, height, objectness, scores. ' +
      'SUPPRESSED: one output (N × M × 6): left, top, right, bottom, score, class; suppression is in the graph.',
  );
export type OutputLayout = z.infer<typeof OutputLayout>;
