import { JobFailure } from '../jobs/kinds.ts';
import type { Event } from '../jobs/protocol.ts';
import { type Comparison, gateFailures } from '../models/gate.ts';

type Numbers = Extract<Event, { type: 'gate' }>['numbers'];

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

function decisionsOf(n: Numbers): Decisions {
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
export const comparisonsOf = (n: Numbers): Comparison[] =>
  'boxTolerance' in n
    ? [
        { output: 'boxes', tolerance: n.boxTolerance, largestDifference: n.largestBoxDifference },
        { output: 'scores', tolerance: n.tolerance, largestDifference: n.largestDifference },
      ]
    : [{ output: 'logits', tolerance: n.tolerance, largestDifference: n.largestDifference }];

/** The conversion gate: the trainer measures, this table decides. */
const rules: { passes: (n: Numbers) => boolean; says: (n: Numbers) => string }[] = [
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

/** Throws GATE_FAILED, saying by how much, when the converted model is not the one that was trained. */
export function requireConversionGate(gate: { numbers: Numbers } | undefined): Numbers {
  if (!gate) throw new JobFailure('GATE_FAILED', 'The conversion was not measured.');
  const { numbers } = gate;
  const broken = rules.filter((rule) => !rule.passes(numbers));
  if (broken.length > 0)
    throw new JobFailure('GATE_FAILED', `The ONNX model is not registered. ${broken.map((r) => r.says(numbers)).join(' ')}`);
  return numbers;
}
