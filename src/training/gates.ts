import { JobFailure } from '../jobs/kinds.ts';
import type { Event } from '../jobs/protocol.ts';

type Numbers = Extract<Event, { type: 'gate' }>['numbers'];

/** Share of the images whose best class may differ, all of them within the tolerance of the margin. */
const top1DifferShareMax = 0.001;

/** The conversion gate: the trainer measures, this table decides. */
const rules: { passes: (n: Numbers) => boolean; says: (n: Numbers) => string }[] = [
  { passes: (n) => n.problems.length === 0, says: (n) => n.problems.join(' ') },
  {
    passes: (n) => n.beyondTolerance === 0,
    says: (n) =>
      `${n.beyondTolerance} of ${n.images} images differ by more than the tolerance ${n.tolerance.toPrecision(3)}; ` +
      `the largest difference is ${n.largestDifference.toPrecision(3)}.`,
  },
  {
    passes: (n) => n.top1DifferBeyondMargin === 0,
    says: (n) => `${n.top1DifferBeyondMargin} of ${n.images} images get another class though the reference was sure of theirs.`,
  },
  {
    passes: (n) => n.top1Differ <= top1DifferShareMax * n.images,
    says: (n) => `${n.top1Differ} of ${n.images} images get another class; at most ${100 * top1DifferShareMax} % may.`,
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
