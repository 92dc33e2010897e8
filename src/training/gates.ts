/** The conversion gate: what the trainer measures (a part of the protocol), and the table that decides. */
import { z } from 'zod';
import { type Comparison, gateFailures } from '../models/gate.ts';

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

export const GateNumbers = z.union([ClassificationGate, DetectionGate]);
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

function decisionsOf(n: GateNumbers): Decisions {
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
export const comparisonsOf = (n: GateNumbers): Comparison[] =>
  'boxTolerance' in n
    ? [
        { output: 'boxes', tolerance: n.boxTolerance, largestDifference: n.largestBoxDifference },
        { output: 'scores', tolerance: n.tolerance, largestDifference: n.largestDifference },
      ]
    : [{ output: 'logits', tolerance: n.tolerance, largestDifference: n.largestDifference }];

const rules: { passes: (n: GateNumbers) => boolean; says: (n: GateNumbers) => string }[] = [
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
export const conversionFailures = (numbers: GateNumbers): string[] =>
  rules.filter((rule) => !rule.passes(numbers)).map((rule) => rule.says(numbers));
