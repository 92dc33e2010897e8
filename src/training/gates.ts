/** The gates of conversion and compression: what the trainer measures (a part of the protocol), and the tables that decide. */
import { z } from 'zod';
import { type Comparison, gateFailures, magnitudeMin, tolerances } from '../models/gate.ts';

export const compressedPrecisions = ['FP16', 'INT8'] as const;
export const calibrationMethods = ['MINMAX', 'ENTROPY', 'PERCENTILE'] as const;

/** What a compression is asked for. */
export const Compression = z.object({
  precision: z.enum(compressedPrecisions).describe('FP16: inputs and outputs stay in 32 bits.'),
  budget: z.number().min(0).max(100).describe('Points of the metric that may be lost: 1 is 0.01 of top-1 or of mAP50-95.'),
  calibration: z
    .object({
      method: z.enum(calibrationMethods).describe('How the range of a tensor is found.'),
      images: z.int().min(96).max(512).describe('Of the training split, chosen by the seed.'),
    })
    .nullable()
    .describe('Null for FP16.'),
});

const gateNumbers = {
  problems: z.array(z.string().max(4000)).max(20).describe('What the checker, shape inference or the reload said; empty when all passed.'),
  inputs: z.enum(['VALIDATION', 'SEEDED']).describe('SEEDED: there was no dataset, noise was used.'),
  images: z.int().min(0),
};
const beyondTolerance = z.int().min(0).describe('Images with an output further away than its tolerance.');
const gateBatch = {
  batch: z.int().min(1),
  images: z.int().min(0),
  largestDifference: z.number().describe('Largest |reference − candidate| of the logits or the scores.'),
};

const ClassificationGate = z
  .object({
    ...gateNumbers,
    tolerance: z.number().describe('relativeTolerance of the spec · max(1, largestLogit).'),
    largestLogit: z.number().describe('Largest magnitude among the reference’s outputs.'),
    largestDifference: z.number().describe('Largest |reference − candidate| over all images and batch sizes.'),
    beyondTolerance,
    top1Differ: z.int().min(0).describe('Images whose best class differs.'),
    top1DifferBeyondMargin: z.int().min(0).describe('Of those, where the reference’s margin is larger than the tolerance.'),
    batches: z.array(z.object(gateBatch)).max(10),
  })
  .meta({ id: 'ClassificationGate' });

const DetectionGate = z
  .object({
    ...gateNumbers,
    tolerance: z.number().describe('Of the scores: relativeTolerance of the spec.'),
    boxTolerance: z.number().describe('Of the boxes, in pixels of the input.'),
    largestDifference: z.number().describe('Largest difference of a score over all images and batch sizes.'),
    largestBoxDifference: z
      .number()
      .describe('Largest difference of a side of a box whose score is at least 0.001, in pixels, over all images and batch sizes.'),
    beyondTolerance,
    listScore: z.number().describe('The score from which on the lists after non-maximum suppression are compared.'),
    detections: z.int().min(0).describe('Boxes of the reference after non-maximum suppression.'),
    detectionsDiffer: z.int().min(0).describe('Boxes that only one of the two lists has.'),
    detectionsDifferBeyondMargin: z
      .int()
      .min(0)
      .describe('Of those, where no score, IoU or margin lies within the tolerance of its threshold.'),
    batches: z.array(z.object({ ...gateBatch, largestBoxDifference: z.number() })).max(10),
  })
  .meta({ id: 'DetectionGate' });

export const ConversionGate = z.union([ClassificationGate, DetectionGate]);
export type ConversionGate = z.infer<typeof ConversionGate>;

const metric = z.number().describe('0 to 1, larger is better.');

export const CompressionGate = z
  .object({
    ...gateNumbers,
    precision: z.enum(compressedPrecisions),
    metric: z
      .object({
        name: z.enum(['top1', 'map5095']),
        parent: metric,
        candidate: metric,
        budget: z.number().describe('Points that may be lost: 1 is 0.01.'),
      })
      .nullable()
      .describe('On the whole validation set, both by the same code. Null without a dataset: then the outputs decide.'),
    decisions: z.int().min(0).describe('Of the parent: the class of each image, or the boxes that score at least 0.25.'),
    decisionsDiffer: z
      .int()
      .min(0)
      .describe('Images with another class, or boxes that only one of the two finds (same class, IoU of 0.5).'),
    outputs: z
      .array(
        z.object({
          name: z.string(),
          largest: z.number().describe('Largest magnitude of the candidate’s.'),
          largestDifference: z.number().nullable().describe('From the parent’s; null where the shapes differ or a value is not a number.'),
        }),
      )
      .describe('Empty where the budget was not reached.'),
    steps: z
      .array(
        z.object({
          operators: z.int().min(0).describe('Operators that were kept in 32-bit floats, the most harmful first.'),
          recovered: z.boolean().default(false).describe('Made of the fine-tuned weights.'),
          metric,
          sizeBytes: z.int().min(1),
        }),
      )
      .describe('Every file that was measured, in this order.'),
    quantisable: z.int().min(0).describe('Operators that INT8 could quantise; 0 for FP16.'),
    kept: z
      .array(
        z.object({
          name: z.string().describe('Of the node in the graph, cut.'),
          error: z.number().describe('Of the outputs when it alone is quantised, relative to their variance.'),
        }),
      )
      .describe('Operators that stayed in 32-bit floats because of the budget, the most harmful first; at most 300.'),
    calibration: z.object({ method: z.enum(calibrationMethods), images: z.int(), seed: z.int(), imagesHash: z.string() }).nullable(),
    recovery: z
      .object({
        epochs: z.int().min(1),
        learningRate: z.number(),
        bestEpoch: z.int().min(1).describe('Its weights were taken.'),
        kept: z.boolean().describe('Whether the candidate has the fine-tuned weights.'),
      })
      .nullable()
      .default(null)
      .describe('The fine-tuning with fake quantisation; null: there was none.'),
  })
  .meta({ id: 'CompressionGate' });
export type CompressionGate = z.infer<typeof CompressionGate>;

export const GateNumbers = z.union([ClassificationGate, DetectionGate, CompressionGate]);
export type GateNumbers = z.infer<typeof GateNumbers>;

/** Share of a model's decisions that may differ, all of them within the tolerance of a threshold or a margin. */
const differShareMax = 0.001;

/** What a model decides: the class of each image, or the boxes that it finds. */
interface Decisions {
  all: number;
  differ: number;
  beyondMargin: number;
  /**
   * How many one case on a threshold changes: a share of few is less than one, and such a case can be met in any set. Two boxes of nearly
   * the same score that overlap change two: each list has the other one.
   */
  oneCase: number;
  /** Completes "2 of 1000 …". */
  say: string;
}

function decisionsOf(n: ConversionGate): Decisions {
  if ('top1Differ' in n) {
    return { all: n.images, differ: n.top1Differ, beyondMargin: n.top1DifferBeyondMargin, oneCase: 1, say: 'images get another class' };
  }
  const { detections, detectionsDiffer, detectionsDifferBeyondMargin } = n;
  return {
    all: detections,
    differ: detectionsDiffer,
    beyondMargin: detectionsDifferBeyondMargin,
    oneCase: 2,
    say: 'boxes are found by one of the two only',
  };
}

/** How many decisions may differ. */
const differMax = ({ all, oneCase }: Decisions): number => Math.max(oneCase, Math.floor(differShareMax * all));

/** What was measured of each output, in the order of the model's outputs. */
export const comparisonsOf = (n: GateNumbers): Comparison[] => {
  if ('steps' in n)
    return n.outputs.map(({ name, largest, largestDifference }) => ({
      output: name,
      tolerance: tolerances[n.precision] * Math.max(magnitudeMin, largest),
      largestDifference,
    }));
  return 'boxTolerance' in n
    ? [
        { output: 'boxes', tolerance: n.boxTolerance, largestDifference: n.largestBoxDifference },
        { output: 'scores', tolerance: n.tolerance, largestDifference: n.largestDifference },
      ]
    : [{ output: 'logits', tolerance: n.tolerance, largestDifference: n.largestDifference }];
};

const rules: { passes: (n: ConversionGate) => boolean; says: (n: ConversionGate) => string }[] = [
  { passes: (n) => n.problems.length === 0, says: (n) => n.problems.join(' ') },
  {
    // Of all images at one batch size, and of those that went through at the others.
    passes: (n) => n.beyondTolerance === 0 && gateFailures(comparisonsOf(n)).length === 0,
    says: (n) =>
      [`${n.beyondTolerance} of ${n.images} images differ by more than the tolerance.`, ...gateFailures(comparisonsOf(n))].join(' '),
  },
  {
    passes: (n) => decisionsOf(n).beyondMargin === 0,
    says: (n) => `${decisionsOf(n).beyondMargin} of ${decisionsOf(n).all} ${decisionsOf(n).say} though the reference was sure of theirs.`,
  },
  {
    passes: (n) => decisionsOf(n).differ <= differMax(decisionsOf(n)),
    says: (n) => `${decisionsOf(n).differ} of ${decisionsOf(n).all} ${decisionsOf(n).say}; at most ${differMax(decisionsOf(n))} may.`,
  },
];

/** By how much the converted model is not the one that was trained; empty when it passes. */
export const conversionFailures = (numbers: ConversionGate): string[] =>
  rules.filter((rule) => !rule.passes(numbers)).map((rule) => rule.says(numbers));

/** Points of the metric that the compressed model has lost. */
const lostOf = ({ parent, candidate }: { parent: number; candidate: number }): number => 100 * (parent - candidate);

const sayStep = ({ operators, recovered, metric: reached, sizeBytes }: CompressionGate['steps'][number], parent: number): string =>
  `${operators}${recovered ? ' after fine-tuning' : ''}: ${lostOf({ parent, candidate: reached }).toFixed(2)} points, ${(sizeBytes / 1e6).toFixed(1)} MB`;

/** Why a compressed model misses its budget; null when it does not. */
function budgetFailure({ metric, precision, steps, recovery }: CompressionGate): string | null {
  if (!metric || lostOf(metric) <= metric.budget + 1e-9) return null;
  const { parent, budget, name } = metric;
  const tried = steps.map((step) => sayStep(step, parent)).join('; ');
  const losses = precision === 'INT8' ? `Lost with so many operators in FP32: ${tried}` : `Lost: ${tried.replace('0: ', '')}`;
  const recover = recovery ? 'fine-tune for more epochs' : 'fine-tune with `recover` what was trained here';
  const instead = precision === 'INT8' ? `, compress to FP16, ${recover}, or calibrate by another method or on more images` : '';
  return `${precision} misses the budget of ${budget} points of ${name} (${parent.toFixed(4)}). ${losses}. Allow more points${instead}.`;
}

/** Why a model is not registered, with the code of its job's failure; null when it is. */
export function gateFailure(n: GateNumbers): { code: string; message: string } | null {
  const missed = 'steps' in n ? budgetFailure(n) : null;
  if (missed) return { code: 'BUDGET_NOT_REACHED', message: missed };
  const failures = 'steps' in n ? [...n.problems, ...(n.metric ? [] : gateFailures(comparisonsOf(n)))] : conversionFailures(n);
  return failures.length === 0 ? null : { code: 'GATE_FAILED', message: `The ONNX model is not registered. ${failures.join(' ')}` };
}
