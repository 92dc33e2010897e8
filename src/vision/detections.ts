/** From a detector's outputs to the boxes that are found: the one definition, docs/preprocessing.md, "Detections". */
import { fastest } from './fastest.ts';
import { chooseLayout, LayoutError } from './layouts.ts';
import type { OutputLayout } from './spec.ts';
import type { Placement } from './tensor.ts';

/** Which candidates are detections. */
export interface DetectionLimits {
  scoreThreshold: number;
  nmsIou: number;
  boxesMax: number;
}

/** Part of the metric's definition: the same everywhere that measures. */
export const detectionDefinition: Readonly<DetectionLimits> = { scoreThreshold: 0.001, nmsIou: 0.7, boxesMax: 100 };
/** Candidates beyond are dropped, which bounds the time of the suppression. */
const candidatesMax = 3000;

export interface FloatOutput {
  shape: readonly number[];
  data: Float32Array;
}

/**
 * A × 4 boxes (left, top, right, bottom) and A × classes scores of one image; or, where the graph has suppressed overlaps itself, one score
 * for each box with its class in `labels`. A score of −∞ is none.
 */
export interface ImageOutput {
  boxes: Float32Array;
  scores: Float32Array;
  labels?: Float32Array;
}

/** What is found: pixels of the input. */
export interface Detection {
  label: number;
  score: number;
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** How many classes the outputs of a layout have; null where a box names its class. */
export function classCountOf(shapes: readonly (readonly number[])[], layout: OutputLayout): number | null {
  const [, rows = 0, columns = 0] = shapes.at(-1) ?? [];
  return { BOXES_SCORES: columns, CENTRES_FIRST: rows - 4, OBJECTNESS: columns - 5, SUPPRESSED: null }[layout];
}

/** The outputs of a batch by image. Throws a LayoutError when their shapes are not those of the layout. */
export function readDetectorOutputs(outputs: readonly FloatOutput[], layout: OutputLayout, classCount: number | null): ImageOutput[] {
  const shapes = outputs.map(({ shape }) => shape);
  chooseLayout(shapes, classCount, layout);
  const [n = 0, rows = 0, columns = 0] = shapes[0] ?? [];
  const imageOf = ({ data }: FloatOutput, i: number) => data.subarray((i * data.length) / n, ((i + 1) * data.length) / n);
  if (layout === 'BOXES_SCORES' && String(shapes[1]?.slice(0, 2)) !== String([n, rows])) {
    throw new LayoutError(`The outputs [${shapes.join('], [')}] have scores of other anchors than their boxes.`);
  }
  return Array.from({ length: n }, (_, i) => {
    const [values, scores] = outputs.map((output) => imageOf(output, i)) as [Float32Array, Float32Array];
    if (layout === 'BOXES_SCORES') return { boxes: values, scores };
    if (layout === 'SUPPRESSED') return fromSuppressed(values, rows);
    // How far apart two anchors are, and two numbers of an anchor; and which number is its first score.
    if (layout === 'CENTRES_FIRST') return fromCentres(values, columns, rows - 4, { anchor: 1, number: columns, scores: 4 });
    return fromCentres(values, rows, columns - 5, { anchor: columns, number: 1, scores: 5 });
  });
}

function fromCentres(
  values: Float32Array,
  anchors: number,
  classCount: number,
  step: { anchor: number; number: number; scores: 4 | 5 },
): ImageOutput {
  const at = (number: number, anchor: number) => values[number * step.number + anchor * step.anchor] as number;
  const boxes = new Float32Array(4 * anchors);
  const scores = new Float32Array(classCount * anchors);
  for (let anchor = 0; anchor < anchors; anchor += 1) {
    const [x, y, halfWidth, halfHeight] = [at(0, anchor), at(1, anchor), at(2, anchor) / 2, at(3, anchor) / 2];
    boxes.set([x - halfWidth, y - halfHeight, x + halfWidth, y + halfHeight], 4 * anchor);
    const objectness = step.scores === 5 ? at(4, anchor) : 1;
    for (let label = 0; label < classCount; label += 1) scores[anchor * classCount + label] = objectness * at(step.scores + label, anchor);
  }
  return { boxes, scores };
}

/** What the graph fills its rows up with has no score, or no class. */
function fromSuppressed(values: Float32Array, rows: number): ImageOutput {
  const boxes = new Float32Array(4 * rows);
  const [scores, labels] = [new Float32Array(rows), new Float32Array(rows)];
  for (let row = 0; row < rows; row += 1) {
    const [left, top, right, bottom, score, label] = values.subarray(6 * row, 6 * row + 6) as unknown as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    boxes.set([left, top, right, bottom], 4 * row);
    scores[row] = score > 0 && label >= 0 ? score : Number.NEGATIVE_INFINITY;
    labels[row] = label;
  }
  return { boxes, scores, labels };
}

/** The two steps that take time. `inference-native/src/vision.cpp` computes the same numbers, so that both find the same: change them together. */
export interface DetectionSteps {
  /** The indices of the best scores that reach the threshold, `max` at most: best first, equal ones as they come. */
  bestOf(scores: Float32Array, threshold: number, max: number): Uint32Array;
  /**
   * Those of the candidates, best first, that no better one of their class overlaps by an IoU above `iouMax`. Candidate i is class
   * i mod `classCount` of the box i ÷ `classCount`.
   */
  suppress(boxes: Float32Array, candidates: Uint32Array, classCount: number, iouMax: number, boxesMax: number): Uint32Array;
}

/**
 * The boxes of one image, best first: every pair of an anchor and a class whose score reaches the threshold is a candidate; the best are kept
 * (ties: the earlier anchor, then the earlier class); one falls when a better one of its class overlaps it by an IoU above `nmsIou`, unless
 * the graph has suppressed overlaps itself. `classCount`: of the scores of an anchor.
 */
export function findDetections(
  { boxes, scores, labels }: ImageOutput,
  classCount: number,
  { scoreThreshold, nmsIou, boxesMax }: DetectionLimits = detectionDefinition,
  steps = fastest(detectionSteps),
): Detection[] {
  const best = steps.bestOf(scores, scoreThreshold, candidatesMax);
  const kept = labels ? best.subarray(0, boxesMax) : steps.suppress(boxes, best, classCount, nmsIou, boxesMax);
  return Array.from(kept, (candidate) => {
    const anchor = labels ? candidate : Math.floor(candidate / classCount);
    const label = labels ? (labels[anchor] as number) : candidate % classCount;
    return { label, score: scores[candidate] as number, ...boxAt(boxes, anchor) };
  });
}

export const detectionSteps: DetectionSteps = {
  bestOf(scores, threshold, max) {
    const best = (indices: number[]) => indices.sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b).slice(0, max);
    let indices: number[] = [];
    let least = Number.NEGATIVE_INFINITY;
    // A loop: `filter` alone takes 15 ms for 672,000 scores, all of this 4.
    for (let i = 0; i < scores.length; i += 1) {
      const score = scores[i] as number;
      if (!(score >= threshold && score > least)) continue;
      indices.push(i);
      // A model can make a candidate of everything. What comes after the best so far has to be better than the last of them.
      if (indices.length < 4 * max) continue;
      indices = best(indices);
      least = scores[indices.at(-1) as number] as number;
    }
    return Uint32Array.from(best(indices));
  },

  suppress(boxes, candidates, classCount, iouMax, boxesMax) {
    const kept: number[] = [];
    const byLabel = new Map<number, Box[]>();
    for (const candidate of candidates) {
      if (kept.length === boxesMax) break;
      const label = candidate % classCount;
      const box = boxAt(boxes, Math.floor(candidate / classCount));
      const better = byLabel.get(label) ?? [];
      if (better.some((other) => intersectionOverUnion(other, box) > iouMax)) continue;
      byLabel.set(label, better);
      better.push(box);
      kept.push(candidate);
    }
    return Uint32Array.from(kept);
  },
};

function boxAt(boxes: Float32Array, anchor: number): Box {
  const [left, top, right, bottom] = boxes.subarray(4 * anchor, 4 * anchor + 4) as unknown as [number, number, number, number];
  return { left, top, right, bottom };
}

/** A detection of an input as one of its image, whose size is `width` × `height` pixels and which it does not reach out of. */
export function toImage(found: Detection, { part, target }: Placement, width: number, height: number): Detection {
  const [scaleX, scaleY] = [part.width / target.width, part.height / target.height];
  const x = (value: number) => Math.min(width, Math.max(0, (value - target.left) * scaleX + part.left));
  const y = (value: number) => Math.min(height, Math.max(0, (value - target.top) * scaleY + part.top));
  return { ...found, left: x(found.left), top: y(found.top), right: x(found.right), bottom: y(found.bottom) };
}

type Box = Pick<Detection, 'left' | 'top' | 'right' | 'bottom'>;

/** Of two boxes, 0 to 1. */
export function intersectionOverUnion(a: Box, b: Box): number {
  const width = Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left));
  const height = Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  const area = (box: Box) => (box.right - box.left) * (box.bottom - box.top);
  const union = area(a) + area(b) - width * height;
  return union > 0 ? (width * height) / union : 0;
}
