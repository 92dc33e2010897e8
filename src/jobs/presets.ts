/**
 * What a training starts from: presets and their hyperparameters. A hyperparameter stands here and nowhere else: the
 * API's `presets`, what a specification may hold and the trainer's types are made from it. Part of the protocol (`protocol.ts`).
 */
import { z } from 'zod';
import { imageNet, inGrey, type PreprocessSpec, presetPreprocess, type Task } from '../vision/spec.ts';
import { classifiers } from './classifiers.ts';
import { detectors } from './detectors.ts';
import facts from './presets.json' with { type: 'json' };
import type { Search } from './searchSpace.ts';
import { timmClassifiers } from './timm.ts';

/** What a study searches of a hyperparameter unless its user says another space. */
const searched = (search: Search) => ({ search });

const share = z.number().min(0).max(1);

const multiScaleUpTo = (largest: number) =>
  z
    .number()
    .min(0)
    .max(largest)
    .default(0)
    .describe(
      'Each batch is resized to a side of its own: a multiple of 32 that is smaller or larger than imageSize by up to this share, inside ' +
        'the range of imageSize. Validation keeps imageSize.',
    )
    .meta({ before: 0 });

/** What is usual with SGD: a weight decay of 5e-4 that goes through a momentum of 0.9. That of AdamW would shrink weights ten times faster. */
const sgdDefaults = { weightDecay: 0.005 };

/** Defaults that another hyperparameter decides. */
export const defaultsWith = ({ optimizer }: Record<string, unknown>) => (optimizer === 'SGD' ? sgdDefaults : {});

/**
 * Each has a description, a range and a default; `search` is what a study searches of it by default. One that is added later says besides,
 * as `.meta({ before: … })`, with which value a run does what it did before: trainings that were stored earlier continue with that.
 */
export const ClassificationHyperparameters = z
  .object({
    imageSize: z.int().min(32).max(1024).default(224).describe('Side of the square input in pixels.'),
    channels: z
      .enum(['RGB', 'GREY'])
      .default('RGB')
      .describe(
        'What the model sees of an image. GREY: one channel, the luma, for images without colors. Weights for RGB to start from are ' +
          'added up over their channels.',
      )
      .meta({ before: 'RGB' }),
    epochs: z.int().min(1).max(1000).default(10).describe('Passes over the training images.'),
    batchSize: z
      .int()
      .min(2)
      .max(1024)
      .default(32)
      .describe(
        'Images that are computed at a time; an optimizer step has accumulate times as many. startTraining also takes "AUTO": what fits ' +
          'into the memory and is fast, chosen when the job is queued.',
      )
      .meta(searched({ choices: [16, 32, 64] })),
    accumulate: z
      .int()
      .min(1)
      .max(256)
      .default(1)
      .describe(
        'Batches whose gradients are averaged for an optimizer step, for large steps with little memory. Batch normalisation ' +
          'still sees batchSize images at a time.',
      )
      .meta({ before: 1 }),
    optimizer: z
      .enum(['ADAMW', 'SGD'])
      .default('ADAMW')
      .describe('SGD uses Nesterov momentum.')
      .meta(searched({ choices: ['ADAMW', 'SGD'] })),
    learningRate: z
      .number()
      .gt(0)
      .max(10)
      .default(0.001)
      .describe('Peak, after the warm-up. SGD wants about 0.1 · batchSize / 256.')
      .meta(searched({ low: 0.0001, high: 0.1, log: true })),
    momentum: z
      .number()
      .min(0)
      .max(0.999)
      .default(0.9)
      .describe('SGD’s momentum; not used by AdamW.')
      .meta(searched({ low: 0.8, high: 0.99, when: { name: 'optimizer', values: ['SGD'] } })),
    weightDecay: share
      .default(0.05)
      .describe(
        'Decoupled: each step takes learningRate · weightDecay off a weight; biases and normalisation keep theirs. ' +
          `With SGD, whose learningRate is larger, the default is ${sgdDefaults.weightDecay}.`,
      )
      .meta(searched({ low: 0.0005, high: 0.2, log: true })),
    warmupSteps: z
      .int()
      .min(0)
      .max(100_000)
      .default(100)
      .describe('Optimizer steps of linear warm-up, at most half of the run; cosine to zero after it.'),
    labelSmoothing: z
      .number()
      .min(0)
      .max(0.5)
      .default(0.1)
      .describe('Share of the target spread over all classes.')
      .meta(searched({ low: 0, high: 0.2 })),
    classWeights: z
      .enum(['NONE', 'BALANCED'])
      .default('NONE')
      .describe('BALANCED: images of rare classes count more in the training loss, so that all classes count the same in total.')
      .meta({ before: 'NONE' }),
    sampling: z
      .enum(['SHUFFLED', 'BALANCED'])
      .default('SHUFFLED')
      .describe(
        'SHUFFLED: an epoch shows each image once. BALANCED: an epoch has as many images, but shows all classes equally often; images of ' +
          'rare classes repeat, each time with other random changes. Use this or classWeights: both together favour rare classes twice.',
      )
      .meta({ before: 'SHUFFLED' }),
    freeze: z
      .enum(['NONE', 'STAGE1', 'STAGE2', 'STAGE3', 'BACKBONE'])
      .default('NONE')
      .describe(
        'Layers that keep their weights and the statistics of their batch normalisation. STAGE1 to STAGE3: all up to the end of this stage; ' +
          'each stage has half the resolution of the one before. BACKBONE: all but the last layer. It needs weights to start from.',
      )
      .meta({ before: 'NONE' }),
    backboneLearningRateFactor: z
      .number()
      .gt(0)
      .max(10)
      .default(1)
      .describe('All layers but the last one learn with learningRate times this: less than 1 changes pretrained weights more slowly.')
      .meta({ before: 1 }),
    emaDecay: z
      .number()
      .min(0)
      .max(0.99999)
      .default(0.999)
      .describe('Moving average of the weights that is validated and kept; it warms up with the run. 0 turns it off.'),
    gradientClip: z.number().min(0).max(1000).default(1).describe('Largest norm of the gradient; 0 turns it off.'),
    earlyStopping: z
      .int()
      .min(0)
      .max(1000)
      .default(0)
      .describe('Epochs without a better validation result before the run stops; 0 turns it off.'),
    selectionMetric: z
      .enum(['TOP1', 'MACRO_TOP1', 'LOSS'])
      .default('TOP1')
      .describe(
        'The validation metric that selects the best epoch, whose weights are kept, and that earlyStopping watches. MACRO_TOP1 is the mean ' +
          'over the classes, so that rare ones count as much.',
      )
      .meta({ before: 'TOP1' }),
    mixedPrecision: z
      .enum(['AUTO', 'BF16', 'OFF'])
      .default('AUTO')
      .describe(
        'AUTO: bfloat16 or float16 on a GPU that has it, float32 on a CPU. BF16: also on a CPU with AVX512_BF16 or AMX, except for models with grouped convolutions.',
      ),
    compile: z
      .boolean()
      .default(false)
      .describe('Whether PyTorch compiles the model first (torch.compile), in minutes, for faster steps. Sums are rounded in another way.')
      .meta({ before: false }),
    flip: share.default(0.5).describe('Probability of a horizontal flip. Set 0 where left and right differ, as in digits and text.'),
    verticalFlip: share
      .default(0)
      .describe('Probability of a vertical flip, for images without an up and a down, as from above or through a microscope.')
      .meta({ before: 0 }),
    cropScale: z
      .number()
      .min(0.05)
      .max(1)
      .default(0.5)
      .describe('Smallest share of the image’s area that a random crop keeps; 1 turns cropping off.')
      .meta(searched({ low: 0.3, high: 1 })),
    colorJitter: share
      .default(0.2)
      .describe('Strength of random brightness, contrast and saturation.')
      .meta(searched({ low: 0, high: 0.5 })),
    erasing: share
      .default(0)
      .describe('Probability that a random rectangle is erased.')
      .meta(searched({ low: 0, high: 0.5 })),
    rotation: z
      .number()
      .min(0)
      .max(180)
      .default(0)
      .describe('Images are turned by up to this many degrees to either side.')
      .meta({ before: 0 }),
    hue: z
      .number()
      .min(0)
      .max(0.5)
      .default(0)
      .describe('All colors of an image are turned by up to this share of the color circle; 0.5 reaches every color.')
      .meta({ before: 0 }),
    trivialAugment: share
      .default(0)
      .describe(
        'Probability of one more change that is drawn with its strength from a list of 14, as in TrivialAugment (Müller and Hutter 2021).',
      )
      .meta({ before: 0 }),
    quarterTurns: share
      .default(0)
      .describe('Probability that an image is turned by 90, 180 or 270 degrees, for images without an up and a down.')
      .meta({ before: 0 }),
    multiScale: multiScaleUpTo(0.5),
    mixUp: share
      .default(0)
      .describe('Probability that an image is blended with another one, and its class with that of the other (MixUp, Zhang et al. 2017).')
      .meta({ before: 0 }),
    cutMix: share
      .default(0)
      .describe('Probability that a rectangle of an image shows another one, whose class counts by its area (CutMix, Yun et al. 2019).')
      .meta({ before: 0 }),
  })
  .meta({ id: 'ClassificationHyperparameters' });
export type ClassificationHyperparameters = z.infer<typeof ClassificationHyperparameters>;

const shared = ClassificationHyperparameters.shape;

/** What is not said here is as in classification. The defaults are for small data and short runs: trainer/PROVENANCE.md has what was tried. */
export const DetectionHyperparameters = z
  .object({
    imageSize: z
      .int()
      .min(32)
      .max(928)
      .multipleOf(32)
      .default(640)
      .describe(
        'Side of the square input in pixels, a multiple of 32. Images are fitted into it and padded. ' +
          'At most 928: a box reaches 480 pixels (15 strides of 32) to each side of its place, and an object may fill the image.',
      ),
    channels: shared.channels,
    epochs: shared.epochs.default(40),
    batchSize: shared.batchSize.default(8).meta(searched({ choices: [4, 8, 16] })),
    accumulate: shared.accumulate,
    optimizer: shared.optimizer,
    learningRate: shared.learningRate.default(0.002).meta(searched({ low: 0.0003, high: 0.02, log: true })),
    momentum: shared.momentum,
    weightDecay: shared.weightDecay,
    warmupSteps: shared.warmupSteps,
    classWeights: shared.classWeights
      .describe('BALANCED: objects of rare classes count more in the training loss, so that all classes count the same in total.')
      .meta({ before: 'NONE' }),
    sampling: shared.sampling
      .describe(
        'SHUFFLED: an epoch shows each image once. BALANCED: an epoch has as many images, but those with rare classes repeat, each time ' +
          'with other random changes. Use this or classWeights: both together favour rare classes twice.',
      )
      .meta({ before: 'SHUFFLED' }),
    freeze: shared.freeze
      .describe(
        'Layers that keep their weights and the statistics of their batch normalisation. STAGE1 to STAGE3: all up to the end of this stage ' +
          'of the backbone; each stage has half the resolution of the one before. BACKBONE: all of it, so that only neck and head learn. It ' +
          'needs weights to start from.',
      )
      .meta({ before: 'NONE' }),
    backboneLearningRateFactor: shared.backboneLearningRateFactor
      .describe('The backbone learns with learningRate times this: less than 1 changes pretrained weights more slowly.')
      .meta({ before: 1 }),
    emaDecay: shared.emaDecay,
    gradientClip: shared.gradientClip.default(10),
    earlyStopping: shared.earlyStopping,
    selectionMetric: z
      .enum(['MAP5095', 'MAP50'])
      .default('MAP5095')
      .describe('The validation metric that selects the best epoch, whose weights are kept, and that earlyStopping watches.')
      .meta({ before: 'MAP5095' }),
    mixedPrecision: shared.mixedPrecision,
    compile: shared.compile,
    flip: shared.flip,
    verticalFlip: share.default(0).describe('Probability of a vertical flip, for images without an up and a down.'),
    quarterTurns: shared.quarterTurns,
    multiScale: shared.multiScale,
    scale: z
      .number()
      .min(0)
      .max(0.9)
      .default(0.5)
      .describe('Images are made smaller or larger by up to this share, and moved.')
      .meta(searched({ low: 0, high: 0.9 })),
    colorJitter: shared.colorJitter.default(0.3),
    mosaic: share
      .default(0.3)
      .describe('Probability that an image is composed of four.')
      .meta(searched({ low: 0, high: 1 })),
    mosaicUntil: share.default(0.7).describe('Share of the epochs after which there are no mosaics: the last ones see images as they are.'),
  })
  .meta({ id: 'DetectionHyperparameters' });
export type DetectionHyperparameters = z.infer<typeof DetectionHyperparameters>;

type ClassifierName = keyof typeof classifiers | keyof typeof timmClassifiers;
type DetectorName = keyof typeof detectors;

const allClassifiers = { ...classifiers, ...timmClassifiers };

/** A classifier of torchvision or timm, at the image size of its public weights. Those of timm have licences of their own: nothing loads them. */
function classifier(name: ClassifierName) {
  const { title, paper } = allClassifiers[name];
  const hasPublicWeights = name in classifiers;
  const origin = hasPublicWeights
    ? `torchvision’s ${title} (${paper}), from scratch or from its ImageNet weights`
    : `timm’s ${title} (${paper}), from scratch or from weights that you upload`;
  const { parameters, macs, activationBytes, imageSize, onlyImageSize } = facts[name];
  const range = shared.imageSize.unwrap();
  const allowed = onlyImageSize ? range.min(imageSize).max(imageSize) : range;
  return {
    task: 'CLASSIFICATION',
    title,
    description:
      `Image classification with ${origin}: ` +
      `${sizeOf({ parameters, macs })} at ${imageSize} px with 1,000 classes.${onlyImageSize ? ' It takes no other image size.' : ''}`,
    parameters,
    macs,
    activationBytes,
    measuredAt: imageSize,
    hasPublicWeights,
    backbone: null,
    onlyImageSize: onlyImageSize ? imageSize : null,
    hyperparameters: ClassificationHyperparameters.extend({
      imageSize: allowed.default(imageSize).describe(shared.imageSize.description ?? ''),
      multiScale: multiScaleUpTo(onlyImageSize ? 0 : 0.5),
    }),
  } as const;
}

function detector(name: DetectorName) {
  const { title, backbone } = detectors[name];
  const { parameters, macs, activationBytes } = facts[name];
  const start = backbone
    ? `YOLOv8’s neck and head on torchvision’s ${classifiers[backbone].title}, from scratch or with its ImageNet weights`
    : 'YOLOv8’s topology, written from the papers of its parts; there are no pretrained weights';
  return {
    task: 'DETECTION',
    title,
    description: `Object detection with ${start}: ${sizeOf({ parameters, macs })} at 640 px with 80 classes.`,
    parameters,
    macs,
    activationBytes,
    measuredAt: 640,
    hasPublicWeights: backbone !== null,
    backbone,
    onlyImageSize: null,
    hyperparameters: DetectionHyperparameters,
  } as const;
}

const sizeOf = ({ parameters, macs }: { parameters: number; macs: number }): string =>
  `${(parameters / 1e6).toFixed(1)} million parameters, ${(macs / 1e9).toFixed(macs < 1e8 ? 2 : 1)} billion multiplications`;

/** A row for each name of a table. */
const rowsOf = <N extends string, R>(table: Record<N, unknown>, row: (name: N) => R) =>
  Object.fromEntries((Object.keys(table) as N[]).map((name) => [name, row(name)])) as Record<N, R>;

/**
 * A preset is a topology with its task and its hyperparameters. `activationBytes`: what a training step keeps of an image of `measuredAt`
 * pixels a side. Another one is another row of `classifiers.ts`, `timm.ts` or `detectors.ts`.
 */
export const presets = { ...rowsOf(allClassifiers, classifier), ...rowsOf(detectors, detector) };
export type PresetName = keyof typeof presets;

/** How an image becomes the input of a training. The layers of a classifier know its own mean and deviation. */
export function preprocessOf(
  preset: PresetName,
  { imageSize, channels }: { imageSize: number; channels?: 'RGB' | 'GREY' },
): PreprocessSpec {
  const { task, backbone } = presets[preset];
  const spec = { ...presetPreprocess(imageSize, task), ...(backbone && imageNet) };
  return channels === 'GREY' ? inGrey(spec) : spec;
}

/** Of one checkpoint: weights, their average, the best ones, and twice the weights for AdamW’s memory; 4 bytes each. */
export const checkpointBytes = (preset: PresetName): number => 5 * 4 * presets[preset].parameters;
export const presetName = z.enum(Object.keys(presets) as [PresetName, ...PresetName[]]);
export const presetsOf = (task: Task) => presetName.extract(presetName.options.filter((name) => presets[name].task === task));

/** The hyperparameters of a stored training, those included that its version of the program did not know yet. */
export function storedHyperparameters(preset: PresetName, stored: Record<string, unknown>): Record<string, unknown> {
  return { ...beforeOf(presets[preset].hyperparameters.shape), ...stored };
}

/** Values of `before` by name. */
export const beforeOf = (shape: z.ZodRawShape): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(shape).flatMap(([name, field]) => {
      const { before } = (field as z.ZodType).meta() ?? {};
      return before === undefined ? [] : [[name, before]];
    }),
  );
