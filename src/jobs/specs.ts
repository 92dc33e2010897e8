/**
 * What a job's child is asked to do: one specification for each kind, with the hyperparameters and the dataset that
 * they share. Part of the protocol (`protocol.ts`). Paths are absolute and only read.
 */
import { z } from 'zod';
import { engineNames } from '../engine/engines.ts';
import { OutputLayout, PreprocessSpec, Task } from '../vision/spec.ts';

export const SPEC_VERSION = 1;

const path = z.string().min(1).max(4096).describe('Absolute path of something that the child only reads.');
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const share = z.number().min(0).max(1);
const bytes = z.int().min(1);

// -------------------------------------------------------------------------------------------------- hyperparameters

/** Each has a description, a range and a default here, and nowhere else: the API's `presets` is made from this. */
export const ClassificationHyperparameters = z
  .object({
    imageSize: z.int().min(32).max(1024).default(224).describe('Side of the square input in pixels.'),
    epochs: z.int().min(1).max(1000).default(10).describe('Passes over the training images.'),
    batchSize: z.int().min(2).max(1024).default(32).describe('Images in an optimizer step.'),
    optimizer: z.enum(['ADAMW', 'SGD']).default('ADAMW').describe('SGD uses Nesterov momentum.'),
    learningRate: z.number().gt(0).max(10).default(0.001).describe('Peak, after the warm-up. SGD wants about 0.1 · batchSize / 256.'),
    momentum: z.number().min(0).max(0.999).default(0.9).describe('SGD’s momentum; not used by AdamW.'),
    weightDecay: share
      .default(0.05)
      .describe(
        'Decoupled: each step takes learningRate · weightDecay off a weight; biases and normalisation keep theirs. ' +
          'SGD, whose learningRate is larger, wants about 0.005.',
      ),
    warmupSteps: z
      .int()
      .min(0)
      .max(100_000)
      .default(100)
      .describe('Optimizer steps of linear warm-up, at most half of the run; cosine to zero after it.'),
    labelSmoothing: z.number().min(0).max(0.5).default(0.1).describe('Share of the target spread over all classes.'),
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
    mixedPrecision: z.enum(['AUTO', 'OFF']).default('AUTO').describe('AUTO: bfloat16 or float16 on a GPU that has it, float32 on a CPU.'),
    flip: share.default(0.5).describe('Probability of a horizontal flip. Set 0 where left and right differ, as in digits and text.'),
    cropScale: z
      .number()
      .min(0.05)
      .max(1)
      .default(0.5)
      .describe('Smallest share of the image’s area that a random crop keeps; 1 turns cropping off.'),
    colorJitter: share.default(0.2).describe('Strength of random brightness, contrast and saturation.'),
    erasing: share.default(0).describe('Probability that a random rectangle is erased.'),
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
    epochs: shared.epochs.default(40),
    batchSize: shared.batchSize.default(4),
    optimizer: shared.optimizer,
    learningRate: shared.learningRate.default(0.002),
    momentum: shared.momentum,
    weightDecay: shared.weightDecay,
    warmupSteps: shared.warmupSteps,
    emaDecay: shared.emaDecay,
    gradientClip: shared.gradientClip.default(10),
    earlyStopping: shared.earlyStopping,
    mixedPrecision: shared.mixedPrecision,
    flip: shared.flip,
    verticalFlip: share.default(0).describe('Probability of a vertical flip, for images without an up and a down.'),
    scale: z.number().min(0).max(0.9).default(0.5).describe('Images are made smaller or larger by up to this share, and moved.'),
    colorJitter: shared.colorJitter.default(0.3),
    mosaic: share.default(0.3).describe('Probability that an image is composed of four.'),
    mosaicUntil: share.default(0.7).describe('Share of the epochs after which there are no mosaics: the last ones see images as they are.'),
  })
  .meta({ id: 'DetectionHyperparameters' });
export type DetectionHyperparameters = z.infer<typeof DetectionHyperparameters>;

const detector = { task: 'DETECTION', hyperparameters: DetectionHyperparameters } as const;
const detectorSource = 'Object detection with YOLOv8’s topology, written from the papers of its parts; there are no pretrained weights.';

/** A preset is a topology with its task and its hyperparameters. Another one is another row. */
export const presets = {
  resnet50: {
    task: 'CLASSIFICATION',
    title: 'ResNet50',
    description: 'Image classification with torchvision’s ResNet50 (He et al. 2015), 23.5 million parameters and the classifier.',
    hyperparameters: ClassificationHyperparameters,
  },
  yolov8n: { ...detector, title: 'YOLOv8n', description: `${detectorSource} The smallest size: 3.2 million parameters.` },
  yolov8s: { ...detector, title: 'YOLOv8s', description: `${detectorSource} 11.2 million parameters.` },
  yolov8m: { ...detector, title: 'YOLOv8m', description: `${detectorSource} 25.9 million parameters.` },
} as const;
export type PresetName = keyof typeof presets;
const presetName = z.enum(Object.keys(presets) as [PresetName, ...PresetName[]]);
const presetsOf = (task: Task) => presetName.extract(presetName.options.filter((name) => presets[name].task === task));

// ----------------------------------------------------------------------------------------------------------- dataset

/** Boxes of an image: more are refused by the import. */
export const boxesPerImageMax = 1000;

/** An object in an image: multiples of 1/1024 pixel, so that every reader's sums are exact, and inside the image. */
export const LabelledBox = z
  .object({
    label: z.int().min(0).describe('Index into classes.'),
    x: z.number().min(0).describe('Left edge, in pixels of the upright image.'),
    y: z.number().min(0).describe('Upper edge, in pixels of the upright image.'),
    width: z.number().gt(0).describe('In pixels.'),
    height: z.number().gt(0).describe('In pixels.'),
    crowd: z
      .literal(true)
      .optional()
      .describe('Many objects that nobody has marked one by one: training and evaluation ignore this class inside the box.'),
  })
  .meta({ id: 'LabelledBox' });
export type LabelledBox = z.infer<typeof LabelledBox>;

/** Of the lines that imports write. The trainer reads older ones too: another version needs a reader in `data.py`. */
export const manifestVersion = 2;

/** One line of a dataset's manifest, a JSON-lines file sorted by n. Either `label` or `boxes` is null. */
export const DatasetItem = z
  .object({
    v: z.literal(manifestVersion).describe('Version of this form; lines of version 1 have none.'),
    n: z.int().min(0).describe('Position in the dataset version, from 0, without gaps.'),
    split: z.enum(['train', 'val', 'test']),
    path: z.string().min(1).max(1000).describe('Relative to the extracted folder, with "/".'),
    sha256,
    width: z.int().min(1).describe('In pixels, upright by the EXIF orientation.'),
    height: z.int().min(1).describe('In pixels, upright by the EXIF orientation.'),
    label: z.int().min(0).nullable().describe('CLASSIFICATION: index into classes.'),
    boxes: z.array(LabelledBox).max(boxesPerImageMax).nullable().describe('DETECTION: empty where nothing is to be seen.'),
  })
  .meta({ id: 'DatasetItem' });
export type DatasetItem = z.infer<typeof DatasetItem>;

export const DatasetRef = z
  .object({
    root: path.describe('The extracted folder.'),
    manifest: path.describe('JSON lines, one DatasetItem each.'),
    classes: z.array(z.string().min(1).max(200)).min(1).max(10_000),
    contentHash: sha256,
  })
  .meta({ id: 'DatasetRef' });

// ------------------------------------------------------------------------------------------------------------- specs

const common = {
  specVersion: z.literal(SPEC_VERSION),
  codeVersion: z.string().max(100).describe('Of the server that wrote the spec; recorded with the environment.'),
  cpuThreads: z.int().min(1).max(1024).describe('PyTorch’s intra-op threads: its results on a CPU depend on it.'),
};
const computing = {
  ...common,
  device: z.enum(['auto', 'cpu', 'cuda']).describe('auto: CUDA where the slot has a GPU.'),
  seed: z.int().min(0).max(0xffff_ffff),
};

const conversion = z.object({
  opset: z.int().min(18).max(23).default(18),
  relativeTolerance: z.number().gt(0).max(1).default(1e-4).describe('tolerance = this · max(1, largest |logit|).'),
});

/** Where the weights of a training come from. */
export const Init = z
  .discriminatedUnion('from', [
    z.object({ from: z.literal('SCRATCH') }),
    z.object({
      from: z.literal('PRETRAINED'),
      file: path.nullable().describe('A local copy of the public weights; null: downloaded once into TORCH_HOME.'),
    }),
    z.object({
      from: z.literal('WEIGHTS'),
      file: path.describe('safetensors of an uploaded state dict or of an earlier version; another classifier head is replaced.'),
      classes: z
        .array(z.string().min(1).max(200))
        .min(1)
        .max(10_000)
        .nullable()
        .describe('Of these weights, in their order: those of the dataset keep their part of the head by name. Null: nobody knows.'),
    }),
    z.object({
      from: z.literal('CHECKPOINT'),
      file: path.describe('Training checkpoint of an earlier run: optimizer and schedule go on, `epochs` counts from its first epoch.'),
    }),
  ])
  .meta({ id: 'Init' });

/** A preset with its own hyperparameters. */
export const Training = z.discriminatedUnion('preset', [
  z.object({ preset: presetsOf('CLASSIFICATION'), hyperparameters: ClassificationHyperparameters }),
  z.object({ preset: presetsOf('DETECTION'), hyperparameters: DetectionHyperparameters }),
]);
export type Training = z.infer<typeof Training>;

/** A training of a task: its presets and their hyperparameters. */
const trainSpec = <T extends z.ZodType>(task: Task, hyperparameters: T) =>
  z.object({
    kind: z.literal('TRAIN'),
    ...computing,
    preset: presetsOf(task),
    dataset: DatasetRef,
    preprocess: PreprocessSpec.describe('Of the hyperparameters’ imageSize.'),
    hyperparameters,
    init: Init,
    resumeFrom: path.nullable().describe('Newest checkpoint of an earlier attempt of this job; one in workDir that is further on wins.'),
    checkpointSeconds: z
      .int()
      .min(0)
      .max(86_400)
      .default(60)
      .describe('A checkpoint is written at the first batch boundary this long after the last one, and at the end; 0: after each batch.'),
    cacheBytesMax: z
      .int()
      .min(0)
      .default(2 ** 31)
      .describe('Decoded images are kept in memory when they fit into this.'),
    conversion,
  });

export const TrainSpec = z
  .discriminatedUnion('preset', [
    trainSpec('CLASSIFICATION', ClassificationHyperparameters).meta({ id: 'ClassificationTrainSpec' }),
    trainSpec('DETECTION', DetectionHyperparameters).meta({ id: 'DetectionTrainSpec' }),
  ])
  .meta({ id: 'TrainSpec' });

/** A model version as the trainer reads it. */
export const ModelRef = z
  .object({
    format: z.enum(['CHECKPOINT', 'ONNX']).describe('CHECKPOINT: safetensors of the preset’s state dict.'),
    file: path,
    task: Task,
    preset: presetName.nullable().describe('Null for a foreign ONNX.'),
    classes: z.array(z.string().min(1).max(200)).min(1).max(10_000),
    preprocess: PreprocessSpec,
    outputLayout: OutputLayout.nullable()
      .default(null)
      .describe('What the user says of a foreign detector; null: told from shapes and metadata.'),
  })
  .meta({ id: 'ModelRef' });

export const ConvertSpec = z
  .object({
    kind: z.literal('CONVERT'),
    ...computing,
    model: ModelRef,
    dataset: DatasetRef.nullable().describe('Its validation split goes through the gate; null: seeded noise.'),
    conversion,
  })
  .meta({ id: 'ConvertSpec' });

export const EvaluateSpec = z
  .object({
    kind: z.literal('EVALUATE'),
    ...computing,
    model: ModelRef,
    dataset: DatasetRef,
    split: z.enum(['train', 'val', 'test']),
    batchSize: z.int().min(1).max(1024).default(32),
  })
  .meta({ id: 'EvaluateSpec' });

/** Limits of a child that opens a file from outside. */
const importLimits = {
  memoryBytesMax: bytes.default(4 * 2 ** 30).describe('Address space beyond what the child needs to start.'),
  outputBytesMax: bytes.default(4 * 2 ** 30).describe('Largest single file that it may write.'),
};

export const ImportModelSpec = z
  .object({
    kind: z.literal('IMPORT_MODEL'),
    ...common,
    file: path,
    fileName: z.string().min(1).max(255).describe('As the user called it: its ending (.onnx, .safetensors, .pt, .pth) says what it is.'),
    preset: presetName.nullable().describe('Needed for a state dict, null for an ONNX file.'),
    limits: z.object({
      ...importLimits,
      secondsMax: z.int().min(1).max(240).default(120).describe('CPU time, and time on the clock.'),
    }),
  })
  .meta({ id: 'ImportModelSpec' });

export const ImportDatasetSpec = z
  .object({
    kind: z.literal('IMPORT_DATASET'),
    ...common,
    file: path.describe('The zip.'),
    fileName: z.string().min(1).max(255),
    task: Task.describe('Which forms of a zip are looked for.'),
    splitSeed: z.int().min(0).max(0xffff_ffff).describe('Where the zip has no train, val and test folders.'),
    splitShares: z.object({ val: share.default(0.2), test: share.default(0) }),
    limits: z.object({
      ...importLimits,
      filesMax: z.int().min(1).default(1_000_000),
      extractedBytesMax: bytes.default(64 * 2 ** 30),
      imagePixelsMax: z.int().min(1).default(25_000_000),
      boxesMax: z.int().min(1).default(2_000_000).describe('Of the dataset.'),
      problemsMax: z.int().min(1).max(50).default(50),
    }),
  })
  .meta({ id: 'ImportDatasetSpec', description: 'Read by a Node child.' });

/** How a configuration is measured. `benchmarkProfiles` has the usual values. */
export const BenchmarkSettings = z
  .object({
    gateInputs: z.int().min(1).max(1024).describe('Inputs whose outputs must agree with the reference before a speed counts.'),
    warmupRunsMin: z.int().min(0).max(1000),
    warmupSecondsMin: z.number().min(0).max(600),
    warmupSecondsMax: z.number().min(0).max(600).describe('The warm-up ends here even if the speed still changes: the row says so.'),
    secondsMin: z.number().min(0.1).max(3600).describe('Shortest measurement; a fifth of it is a window.'),
    secondsMax: z.number().min(0.1).max(3600).describe('Longest measurement, where samplesWanted takes more than secondsMin.'),
    samplesWanted: z.int().min(1).max(1_000_000),
    samplesMax: z.int().min(1).max(2_000_000).describe('Bounds memory and disk: a sample takes 24 bytes.'),
    blockSeconds: z.number().min(0.01).max(60).describe('Samples are numbered by the block of time in which they ended.'),
  })
  .meta({ id: 'BenchmarkSettings' });
export type BenchmarkSettings = z.infer<typeof BenchmarkSettings>;

const everyProfile = { gateInputs: 32, warmupRunsMin: 20, warmupSecondsMin: 2, samplesMax: 2_000_000, blockSeconds: 1 };

export const benchmarkProfiles = {
  /** 398 samples are what P95 needs: it makes no claim about P99, and takes no longer for it. */
  QUICK: { ...everyProfile, warmupSecondsMax: 3, secondsMin: 10, secondsMax: 10, samplesWanted: 398 },
  /** 2,010 samples are what P99 needs. */
  FULL: { ...everyProfile, warmupSecondsMax: 30, secondsMin: 30, secondsMax: 120, samplesWanted: 2010 },
} as const satisfies Record<string, BenchmarkSettings>;
export type BenchmarkProfile = keyof typeof benchmarkProfiles;

/** Each model at each batch size on each engine with each number of threads, in this order, is a cell. */
export const BenchmarkSpec = z
  .object({
    kind: z.literal('BENCHMARK'),
    ...common,
    models: z
      .array(
        z.object({
          file: path.describe('ONNX.'),
          probe: path.nullable().describe('Its probe set; null: seeded inputs, compared with the unoptimised graph.'),
          precision: z.enum(['FP32', 'FP16', 'INT8']),
        }),
      )
      .min(1)
      .max(20),
    batchSizes: z.array(z.int().min(1).max(1024)).min(1).max(20),
    engines: z.array(z.enum(engineNames)).min(1),
    intraOpThreads: z.array(z.int().min(1).max(1024)).min(1).max(20),
    load: z.enum(['SINGLE_STREAM']).describe('SINGLE_STREAM: the next inference starts when the last has ended.'),
    dims: z
      .record(z.string().max(300), z.int().min(1).max(1_000_000))
      .describe('Sizes of symbolic dimensions by name, of unnamed ones by `input[axis]`. An unnamed first one is the batch.'),
    seed: z.int().min(0).max(0xffff_ffff).describe('Of the inputs where there is no probe set.'),
    settings: BenchmarkSettings,
    resumeFrom: path.nullable().describe('Checkpoint of an earlier attempt: its cells are kept when machine and engine are the same.'),
  })
  .meta({ id: 'BenchmarkSpec', description: 'Read by a Node child.' });
export type BenchmarkSpec = z.infer<typeof BenchmarkSpec>;

export const Spec = z
  .discriminatedUnion('kind', [TrainSpec, ConvertSpec, EvaluateSpec, ImportModelSpec, ImportDatasetSpec, BenchmarkSpec])
  .meta({ id: 'Spec' });
export type Spec = z.infer<typeof Spec>;

/** One hyperparameter as a form shows it. */
export interface HyperparameterInfo {
  name: string;
  type: 'INT' | 'FLOAT' | 'ENUM';
  description: string;
  default: number | string;
  minimum: number | null;
  maximum: number | null;
  /** The values of an ENUM, else null. */
  values: string[] | null;
}

/** The hyperparameters of a preset in their declared order, read from its schema. */
export function hyperparametersOf(preset: PresetName): HyperparameterInfo[] {
  const { properties } = z.toJSONSchema(z.object(presets[preset].hyperparameters.shape));
  return Object.entries(properties as Record<string, z.core.JSONSchema.Schema>).map(([name, field]) => ({
    name,
    type: field.enum ? 'ENUM' : field.type === 'integer' ? 'INT' : 'FLOAT',
    description: field.description ?? '',
    default: field.default as number | string,
    minimum: (field.minimum ?? field.exclusiveMinimum ?? null) as number | null,
    maximum: field.maximum ?? null,
    values: (field.enum as string[] | undefined) ?? null,
  }));
}
