/**
 * What a child reports about what it made: the results of the job kinds, the data of an artifact, and the content of an EVALUATION.
 * Part of the protocol (`protocol.ts`).
 */
import { z } from 'zod';
import { PreprocessSpec } from '../vision/spec.ts';
import { AskResult } from './searchSpace.ts';

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

export const ClassificationMetrics = z
  .object({
    images: z.int(),
    loss: z.number(),
    top1: z.number().describe('Share of images whose best class is the true one.'),
    top5: z.number().describe('Share of images whose true class is among the best five (or all, with fewer classes).'),
    macroTop1: z.number().describe('Mean recall over the classes that have images: does not reward guessing the largest class.'),
  })
  .meta({ id: 'ClassificationMetrics' });

export const DetectionMetrics = z
  .object({
    images: z.int(),
    objects: z.int().describe('True boxes.'),
    map50: z.number().describe('Mean average precision at IoU 0.5, by COCO’s evaluator: the mean over the classes that have objects.'),
    map5095: z.number().describe('Mean average precision over IoU 0.5, 0.55 … 0.95.'),
    scoreThreshold: z.number().describe('Part of the figures’ definition: boxes with a smaller score are not counted.'),
    nmsIou: z.number().describe('Part of the definition: a better box of its class that overlaps more than this takes a box away.'),
    boxesMax: z.int().describe('Part of the definition: boxes of an image that are counted.'),
  })
  .meta({ id: 'DetectionMetrics' });

/** By task. */
export const Metrics = z.union([ClassificationMetrics, DetectionMetrics]);

export const WeightsMeta = z
  .object({
    preset: z.string(),
    weightsHash: sha256.describe('Over sorted (name, dtype, shape, bytes): the same in any file format.'),
    classCount: z.int(),
    parameters: z.int(),
    preprocess: PreprocessSpec.nullable(),
    epoch: z.int().nullable(),
    metrics: Metrics.nullable(),
  })
  .meta({ id: 'WeightsMeta', description: 'meta of a WEIGHTS artifact.' });

const Port = z.object({
  name: z.string(),
  elementType: z.string().describe('As ONNX names it: FLOAT, FLOAT16, UINT8, INT64 …'),
  shape: z
    .array(z.union([z.int(), z.string()]))
    .nullable()
    .describe('A string is a symbolic dimension, "?" one without a name.'),
});

export const OnnxMeta = z
  .object({
    inputs: z.array(Port),
    outputs: z.array(Port),
    operators: z.record(z.string(), z.int()).describe('Count by operator, "domain::Name" outside the default domain.'),
    opsets: z.record(z.string(), z.int()).describe('Version by domain; "ai.onnx" is the default one.'),
    irVersion: z.int(),
    producer: z.string(),
    parameters: z.int().describe('Elements of the initializers.'),
    elementTypes: z.record(z.string(), z.int()).describe('Elements of the initializers by element type: FLOAT, FLOAT16, INT8 …'),
    labels: z.array(z.string()).nullable().describe('Class names in the file’s own metadata, whole; null where it names none.'),
    preprocess: PreprocessSpec.nullable().describe('In the file’s own metadata; null for a foreign file.'),
    metadata: z.record(z.string(), z.string()).describe('The file’s own metadata, long values cut.'),
    metadataTruncated: z.boolean(),
    weightsHash: sha256.nullable().describe('Of the weights it was exported from; null for a foreign file.'),
    exporter: z.enum(['DYNAMO', 'TORCHSCRIPT']).nullable().describe('Null for a foreign file.'),
  })
  .meta({ id: 'OnnxMeta', description: 'meta of an ONNX artifact.' });

const engineName = z.string().describe('What computed the metrics: `torch` or `onnxruntime`, with its version.');

/** `result` of `done{status: ok}` by job kind. */
export const results = {
  TRAIN: z
    .object({
      epochs: z.int().describe('Epochs that were run, earlier attempts included.'),
      bestEpoch: z.int(),
      stoppedEarly: z.boolean(),
      metrics: Metrics.describe('Of the best epoch on the validation split.'),
      engine: engineName,
      parameters: z.int().describe('Of the model.'),
      macs: z.int().describe('Multiplications with an addition for one image, in convolutions and matrix products.'),
      bytes: z.int().describe('Of the file with the weights.'),
    })
    .meta({ id: 'TrainResult' }),
  CONVERT: z
    .object({
      weightsHash: sha256,
      metrics: Metrics.nullable().describe(
        'Of the ONNX file on the validation split. Null without a dataset, or with one of other classes.',
      ),
      engine: engineName.nullable(),
    })
    .meta({ id: 'ConvertResult' }),
  COMPRESS: z
    .object({
      metrics: Metrics.nullable().describe('Of the compressed file on the validation split; null where there is no dataset.'),
      engine: engineName.nullable(),
    })
    .meta({ id: 'CompressResult' }),
  EVALUATE: z
    .object({
      metrics: Metrics,
      engine: engineName,
    })
    .meta({ id: 'EvaluateResult' }),
  IMPORT_MODEL: z.object({ format: z.enum(['ONNX', 'CHECKPOINT']) }).meta({ id: 'ImportModelResult' }),
  ASK: AskResult,
};

const place = z.int().min(0).describe('Of an image in the dataset version: `n` of its DatasetItem.');
const classIndex = z.int().min(0).describe('Index into `classes`.');
const probability = z.number().min(0).max(1);
const examples = z.array(place).max(6).describe('Images that show it.');

const ImageNote = z.object({
  n: place,
  label: classIndex,
  predicted: classIndex,
  probability: probability.describe('Of `predicted`.'),
  ownProbability: probability.describe('Of `label`.'),
});

/** What people should look at, bounded: stored as a row beside the evaluation. */
export const ClassificationFindings = z
  .object({
    worst: z
      .array(ImageNote.extend({ loss: z.number() }))
      .max(50)
      .describe('The images with the largest loss.'),
    labelErrors: z
      .object({ count: z.int(), images: z.array(ImageNote).max(50) })
      .describe('Images that are probably labelled wrongly, by confident learning; `predicted` is what they probably show.'),
    confused: z
      .array(z.object({ label: classIndex, predicted: classIndex, count: z.int(), examples }))
      .max(20)
      .describe('The pairs of classes with the most confused images.'),
  })
  .meta({ id: 'ClassificationFindings' });
export type ClassificationFindings = z.infer<typeof ClassificationFindings>;

const BestThreshold = z
  .object({ score: z.number(), f1: probability, precision: probability, recall: probability })
  .meta({ id: 'BestThreshold', description: 'The score from which boxes count, where F1 is highest, at IoU 0.5.' });

const OfSize = z.object({
  objects: z.int(),
  ap: z.number().nullable().describe('Mean average precision over IoU 0.5 … 0.95; null without objects.'),
  ap50: z.number().nullable(),
});

export const DetectionFindings = z
  .object({
    iou: z.number().describe('From which a box has found an object.'),
    best: BestThreshold.nullable().describe('Of all boxes together; null where no box found an object.'),
    sizes: z
      .object({ small: OfSize, medium: OfSize, large: OfSize })
      .describe('By the area of the true box in pixels: up to 32², up to 96², above.'),
    confusion: z
      .array(z.array(z.int()))
      .describe('confusion[true][found] with the boxes that count by `best`; the last row and the last column are the background.'),
    confused: z
      .array(z.object({ label: classIndex.nullable(), predicted: classIndex.nullable(), count: z.int(), examples }))
      .max(20)
      .describe('The most frequent mistakes. A null `predicted` is an object that was missed, a null `label` a box without an object.'),
    worst: z
      .array(
        z.object({
          n: place,
          missed: z.int().describe('Objects that no box of their class found.'),
          false: z.int().describe('Boxes that found no object of their class.'),
          boxes: z
            .array(
              z.object({
                kind: z.enum(['MISSED', 'FALSE']),
                label: classIndex,
                score: z.number().nullable().describe('Null for a missed object.'),
                x: z.number(),
                y: z.number(),
                width: z.number(),
                height: z.number(),
              }),
            )
            .max(20)
            .describe('In pixels of the upright image.'),
        }),
      )
      .max(50)
      .describe('The images with the most missed objects and false boxes, with the boxes that count by `best`.'),
  })
  .meta({ id: 'DetectionFindings' });
export type DetectionFindings = z.infer<typeof DetectionFindings>;

/** Content of an EVALUATION artifact, a JSON file: rows and columns are in the order of `classes`. */
export const ClassificationEvaluation = z
  .object({
    metrics: ClassificationMetrics,
    classes: z.array(z.string()),
    perClass: z.array(
      z.object({
        name: z.string(),
        images: z.int(),
        precision: z.number().nullable().describe('Null where nothing was predicted as this class.'),
        recall: z.number().nullable().describe('Null where the split has no image of this class.'),
      }),
    ),
    confusion: z.array(z.array(z.int())).describe('confusion[true][predicted] counts images.'),
    findings: ClassificationFindings,
  })
  .meta({ id: 'ClassificationEvaluation' });

export const DetectionEvaluation = z
  .object({
    metrics: DetectionMetrics,
    classes: z.array(z.string()),
    perClass: z.array(
      z.object({
        name: z.string(),
        objects: z.int(),
        ap: z.number().nullable().describe('Average precision over IoU 0.5 … 0.95; null where the split has no object of this class.'),
        ap50: z.number().nullable().describe('At IoU 0.5.'),
        precision: z.array(z.number()).length(101).nullable().describe('At the recalls 0, 0.01 … 1, at IoU 0.5.'),
        scores: z.array(z.number()).length(101).nullable().describe('The score that a box needs for each of these recalls.'),
        best: BestThreshold.nullable().describe('Null where no box of this class found an object.'),
      }),
    ),
    findings: DetectionFindings,
  })
  .meta({ id: 'DetectionEvaluation' });

export const Evaluation = z.union([ClassificationEvaluation, DetectionEvaluation]).meta({ id: 'Evaluation' });
