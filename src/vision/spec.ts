/** What a model needs said of it beside its file: its task, how an image becomes its input, how its outputs hold what it found. */
import { z } from 'zod';

/** What a model does with an image. */
export const Task = z.enum(['CLASSIFICATION', 'DETECTION']);
export type Task = z.infer<typeof Task>;

const channelTriple = z.tuple([z.number(), z.number(), z.number()]);

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
    channels: z.enum(['RGB', 'BGR']).describe('Order of the channels in the tensor.'),
    mean: channelTriple.describe('In tensor order, for values of 0 to 1.'),
    std: channelTriple.describe('In tensor order, for values of 0 to 1.'),
    layout: z.enum(['NCHW', 'NHWC']),
  })
  .meta({ id: 'PreprocessSpec' });
export type PreprocessSpec = z.infer<typeof PreprocessSpec>;

/** What torchvision's public weights were trained with. */
export const imageNet = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] } satisfies Pick<PreprocessSpec, 'mean' | 'std'>;

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
