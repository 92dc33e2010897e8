/**
 * What a job's child is asked to do: one specification for each kind. The lines of a dataset are in `manifest.ts`, hyperparameters in
 * `presets.ts`, preprocessing is in `vision/spec.ts`. Part of the protocol (`protocol.ts`). Paths are absolute and only read.
 */
import { z } from 'zod';
import { engineNames } from '../engine/engines.ts';
import { Compression } from '../training/gates.ts';
import { OutputLayout, PreprocessSpec, Task } from '../vision/spec.ts';
import { ClassificationHyperparameters, DetectionHyperparameters, presetName, presetsOf } from './presets.ts';
import { Ask, imageSizesMax, stopAfterEpoch } from './searchSpace.ts';

export const SPEC_VERSION = 1;

const path = z.string().min(1).max(4096).describe('Absolute path of something that the child only reads.');
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const share = z.number().min(0).max(1);
const bytes = z.int().min(1);

export const DatasetRef = z
  .object({
    zip: path.describe('As it was uploaded: images are read in place.'),
    images: path.describe('Where each image is: `imageTable.ts`.'),
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
      file: path.describe('Training checkpoint of an earlier run: optimizer and schedule continue, `epochs` counts from its first epoch.'),
    }),
  ])
  .meta({ id: 'Init' });

/** A preset with its own hyperparameters. */
export const Training = z.discriminatedUnion('preset', [
  z.object({ preset: presetsOf('CLASSIFICATION'), hyperparameters: ClassificationHyperparameters }),
  z.object({ preset: presetsOf('DETECTION'), hyperparameters: DetectionHyperparameters }),
]);
export type Training = z.infer<typeof Training>;

export const processes = z.int().min(1).max(64).describe('That share each batch, with cpuThreads and a GPU each. Results depend on it.');

/** How a training is carried out; its results do not depend on it. */
export const TrainingRuntime = z.object({
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
  workers: z
    .int()
    .min(0)
    .max(64)
    .nullable()
    .default(null)
    .describe('Processes that prepare training batches; null: as many as cpuThreads on a GPU, none on a CPU.'),
  stopAfterEpoch,
});

/** What is stored of a training, beside its data and where its weights come from. */
export const StoredTraining = z
  .object({ ...computing, processes, ...TrainingRuntime.shape, preprocess: PreprocessSpec })
  .omit({ specVersion: true, codeVersion: true })
  .and(Training);

/** A training of a task: its presets and their hyperparameters. */
const trainSpec = <T extends z.ZodType>(task: Task, hyperparameters: T) =>
  z.object({
    kind: z.literal('TRAIN'),
    ...computing,
    processes,
    preset: presetsOf(task),
    dataset: DatasetRef,
    preprocess: PreprocessSpec.describe('Of the hyperparameters’ imageSize.'),
    hyperparameters,
    init: Init,
    resumeFrom: path.nullable().describe('Newest checkpoint of an earlier attempt of this job; one in workDir that is further on wins.'),
    ...TrainingRuntime.shape,
    cacheDiskBytesMax: z.int().min(0).default(0).describe('Further decoded images are kept in a file without a name in workDir.'),
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

export const CompressSpec = z
  .object({
    kind: z.literal('COMPRESS'),
    ...computing,
    model: ModelRef.describe('ONNX with 32-bit weights.'),
    dataset: DatasetRef.nullable().describe('Its validation split decides; null, for FP16 only: seeded noise.'),
    compression: Compression,
    recover: TrainSpec.nullable().describe(
      'For INT8: the fine-tuning of the model’s checkpoint with fake quantisation, its `init`. Null: there is none.',
    ),
  })
  .meta({ id: 'CompressSpec' });

export const testTimeAugmentation = z
  .enum(['NONE', 'FLIP'])
  .describe('FLIP: each image and its mirror image. Their probabilities are averaged, their boxes suppressed together.');

export type TestTimeAugmentation = z.infer<typeof testTimeAugmentation>;

export const EvaluateSpec = z
  .object({
    kind: z.literal('EVALUATE'),
    ...computing,
    model: ModelRef,
    dataset: DatasetRef,
    split: z.enum(['train', 'val', 'test']),
    batchSize: z.int().min(1).max(1024).default(32),
    testTimeAugmentation,
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
    fileName: z.string().min(1).max(255).describe('As the user called it: its ending says what it is.'),
    preset: presetName.nullable().describe('Needed for a state dict, null for an ONNX file.'),
    data: z
      .object({ file: path, fileName: z.string().min(1).max(255).describe('As the tensors of the ONNX file call it.') })
      .nullable()
      .default(null)
      .describe('Where the tensors outside an ONNX file lie.'),
    limits: z.object({
      ...importLimits,
      secondsMax: z.int().min(1).max(240).default(120).describe('CPU time, and time on the clock.'),
    }),
  })
  .meta({ id: 'ImportModelSpec' });

/** In which encoding the names of a zip can be that no flag marks as UTF-8. */
export const NameEncoding = z.enum([
  'UTF_8',
  'CP437',
  'CP850',
  'CP866',
  'GB18030',
  'BIG5',
  'SHIFT_JIS',
  'EUC_KR',
  'WINDOWS_1250',
  'WINDOWS_1251',
  'WINDOWS_1252',
]);
export type NameEncoding = z.infer<typeof NameEncoding>;

export const ImportDatasetSpec = z
  .object({
    kind: z.literal('IMPORT_DATASET'),
    ...common,
    file: path.describe('The zip.'),
    fileName: z.string().min(1).max(255),
    task: Task.describe('Which forms of a zip are looked for.'),
    nameEncoding: NameEncoding.nullable()
      .default(null)
      .describe('Of names in the zip that are not marked as UTF-8; null: UTF-8 when all can be, otherwise code page 437.'),
    onProblem: z.enum(['REFUSE', 'LEAVE_OUT']).default('REFUSE').describe('What an image that cannot be used does to the import.'),
    leftOutShareMax: share.default(0.05).describe('Of the images: LEAVE_OUT refuses the dataset beyond it.'),
    splitSeed: z.int().min(0).max(0xffff_ffff).describe('Where the zip has no train, val and test folders.'),
    splitShares: z.object({ val: share.default(0.2), test: share.default(0) }),
    limits: z.object({
      ...importLimits,
      outputBytesMax: bytes.default(2 ** 40).describe('Largest single file that it may write: all thumbnails are in one.'),
      filesMax: z.int().min(1).default(2_000_000).describe('Entries of the zip, folders included.'),
      extractedBytesMax: bytes.nullable().default(null).describe('Null: 100 times the size of the zip.'),
      imagePixelsMax: z.int().min(1).default(25_000_000),
      boxesMax: z.int().min(1).default(2_000_000).describe('Of the dataset.'),
      problemsMax: z.int().min(1).max(50).default(50),
    }),
  })
  .meta({ id: 'ImportDatasetSpec', description: 'Read by a Node child.' });
export type ImportDatasetSpec = z.infer<typeof ImportDatasetSpec>;

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
    blockSeconds: z
      .number()
      .min(0.01)
      .max(60)
      .describe('For so long a round measures a configuration, or a tenth of secondsMin where that is shorter.'),
    // Benchmarks that were asked of earlier versions did not end by it.
    precision: z
      .number()
      .min(0.001)
      .max(1)
      .default(1)
      .describe('Configurations that may be the best are measured until the ratio of two is known to ± so much, up to secondsMax.'),
  })
  .meta({ id: 'BenchmarkSettings' });
export type BenchmarkSettings = z.infer<typeof BenchmarkSettings>;

const everyProfile = { gateInputs: 32, warmupRunsMin: 20, warmupSecondsMin: 2, samplesMax: 2_000_000 };

export const benchmarkProfiles = {
  /** 398 samples are what P95 needs: it makes no claim about P99, and takes no longer for it. */
  QUICK: { ...everyProfile, blockSeconds: 0.25, warmupSecondsMax: 3, secondsMin: 5, secondsMax: 10, samplesWanted: 398, precision: 0.02 },
  /** 2,010 samples are what P99 needs. */
  FULL: { ...everyProfile, blockSeconds: 2, warmupSecondsMax: 30, secondsMin: 30, secondsMax: 120, samplesWanted: 2010, precision: 0.02 },
} as const satisfies Record<string, BenchmarkSettings>;
export type BenchmarkProfile = keyof typeof benchmarkProfiles;

export const dimensions = z
  .record(z.string().max(300), z.int().min(1).max(1_000_000))
  .describe('Sizes of symbolic dimensions by name, of unnamed ones by `input[axis]`. An unnamed first one is the batch.');

export const scenarios = ['SINGLE_STREAM', 'MULTI_STREAM', 'OFFLINE'] as const;
export type Scenario = (typeof scenarios)[number];

/** Each model at each batch size on each engine with each number of threads and of instances, in this order, is a cell. */
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
          dims: dimensions.describe('Of its open dimensions.'),
        }),
      )
      .min(1)
      .max(20),
    batchSizes: z.array(z.int().min(1).max(1024)).min(1).max(20),
    engines: z.array(z.enum(engineNames)).min(1),
    intraOpThreads: z.array(z.int().min(1).max(1024)).min(1).max(20),
    scenario: z
      .enum(scenarios)
      .describe(
        'SINGLE_STREAM: the next inference starts when the last has ended. MULTI_STREAM: each instance does so by itself. OFFLINE: all are there at once, and the instances share them.',
      ),
    instances: z.array(z.int().min(1).max(1024)).min(1).max(20).describe('How many copies of a model compute at the same time.'),
    seed: z.int().min(0).max(0xffff_ffff).describe('Of the inputs where there is no probe set.'),
    target: z.enum(['LATENCY', 'THROUGHPUT', 'MEMORY']).describe('What decides which configurations are measured for longer.'),
    settings: BenchmarkSettings,
    resumeFrom: path.nullable().describe('Checkpoint of an earlier attempt: its rounds are kept when machine and engine are the same.'),
  })
  .meta({ id: 'BenchmarkSpec', description: 'Read by a Node child.' });
export type BenchmarkSpec = z.infer<typeof BenchmarkSpec>;

export const LoadTestSpec = z
  .object({
    kind: z.literal('LOAD_TEST'),
    ...common,
    url: z.url().describe('Of the inference host.'),
    token: z.string().describe('For the inference host: valid for as long as the test may take.'),
    name: z.string().min(1).max(200).describe('Of the deployment.'),
    revision: z.int().min(1),
    inputs: z
      .array(z.object({ name: z.string(), datatype: z.string(), shape: z.array(z.int().min(1)) }))
      .min(1)
      .describe('Of one request.'),
    probe: path.nullable().describe('The probe set of the version; null: seeded inputs.'),
    rates: z
      .array(z.number().gt(0).max(20_000))
      .min(1)
      .max(12)
      .nullable()
      .describe('Requests a second, one after the other; null: shares of the capacity.'),
    deadlineMs: z.number().gt(0).max(60_000),
    secondsPerRate: z.int().min(1).max(60),
    seed: z.int().min(0).max(0xffff_ffff).describe('Of the arrivals, and of the inputs where there is no probe set.'),
    connections: z.int().min(1).max(256).describe('That keep the host busy while its capacity is estimated.'),
    resumeFrom: path.nullable().describe('Checkpoint of an earlier attempt: its rates are kept if it drove the same revision.'),
  })
  .meta({ id: 'LoadTestSpec', description: 'Read by a Node child.' });
export type LoadTestSpec = z.infer<typeof LoadTestSpec>;

export const AskSpec = z.object({ kind: z.literal('ASK'), ...common, ...Ask.shape }).meta({ id: 'AskSpec' });

export const MeasureSpec = z
  .object({
    kind: z.literal('MEASURE'),
    ...computing,
    preset: presetName,
    classCount: z.int().min(1).max(10_000),
    preprocess: z.array(PreprocessSpec).min(1).max(imageSizesMax).describe('One for each image size that is measured.'),
  })
  .meta({ id: 'MeasureSpec' });

// ------------------------------------------------------------------------------------------------------------- kinds

const trainerSpecs = [TrainSpec, ConvertSpec, CompressSpec, EvaluateSpec, ImportModelSpec, AskSpec, MeasureSpec] as const;
export const Spec = z.discriminatedUnion('kind', [...trainerSpecs, ImportDatasetSpec, BenchmarkSpec, LoadTestSpec]).meta({ id: 'Spec' });
export type Spec = z.infer<typeof Spec>;

/** Every kind of job: its slots (none, one, or -1 for all with nothing else beside it; a TRAIN has one a process), and what it does. */
export const jobKindTable = {
  IMPORT_DATASET: { slots: 0, description: 'Checks an uploaded dataset and makes a dataset version of it.' },
  IMPORT_MODEL: { slots: 0, description: 'Checks an uploaded model and makes a model version of it.' },
  TRAIN: { slots: 1, description: 'Trains a model: makes a checkpoint version with its evaluation.' },
  CONVERT: {
    slots: 1,
    description:
      'Converts a checkpoint version to ONNX behind the conversion gate, and evaluates the ONNX version. The child of a TRAIN job, or one by itself.',
  },
  COMPRESS: { slots: 1, description: 'Makes a smaller ONNX version (FP16 or INT8) whose metric stays inside a budget.' },
  EVALUATE: { slots: 1, description: 'Measures a model version on a split of a dataset version.' },
  BENCHMARK: { slots: -1, description: 'Measures the speed of model versions, alone on the machine.' },
  LOAD_TEST: { slots: -1, description: 'Drives a deployment at growing rates of requests, with no other job beside it.' },
  TUNE: { slots: 0, description: 'Coordinates a study: its children propose hyperparameters (ASK) and train with them (TRAIN).' },
  ASK: { slots: 0, description: 'Proposes the next trials of a study.' },
  MEASURE: { slots: -1, description: 'Measures for a study how long an image of each size takes, alone on the machine.' },
} as const satisfies Record<Spec['kind'] | 'TUNE', { slots: -1 | 0 | 1; description: string }>;
export type JobKindName = keyof typeof jobKindTable;
