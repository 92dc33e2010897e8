/**
 * What a run makes of a model's outputs for one image. It is done on the engine's thread: a detector's 8,400 places × 80 classes take 4 to
 * 50 ms, and on the main thread everybody would wait for them.
 */
import type { Tensor } from '../engine/engine.ts';
import { type DetectionLimits, type FloatOutput, findDetections, type ImageOutput, readDetectorOutputs, toImage } from './detections.ts';
import { placed } from './preprocess.ts';
import type { OutputLayout, PreprocessSpec, Task } from './spec.ts';

/** An upright image of which an input is made. */
export interface Image {
  /** In pixels. */
  width: number;
  height: number;
  preprocess: PreprocessSpec;
}

/** How the outputs are read. */
export interface Reading extends DetectionLimits {
  task: Task;
  image: Image;
  /** What the output of a classifier is. */
  scores: 'LOGITS' | 'PROBABILITIES';
  outputLayout?: OutputLayout;
  /** Most classes. */
  top: number;
  /** Null where the model has no labels. */
  labelCount: number | null;
}

/** The outputs cannot be read: they are not what the task needs, or what the model computed for this image are no numbers. */
export interface Unreadable {
  code: 'OUTPUTS_UNFIT' | 'NOT_NUMBERS';
  message: string;
}

/** Class indices only: the host adds the label names. */
export type Found =
  | { classes: { index: number; probability: number }[] }
  | { detections: { index: number; score: number; box: { x: number; y: number; width: number; height: number } }[] }
  | { problem: Unreadable };

type Outputs = ReadonlyMap<string, Tensor>;

class UnreadableError extends Error {
  readonly code: Unreadable['code'];
  constructor(code: Unreadable['code'], message: string) {
    super(message);
    this.code = code;
  }
}

const readers: Record<Task, (reading: Reading, outputs: Outputs) => Found> = {
  CLASSIFICATION: classesOf,
  DETECTION: detectionsOf,
};

/** What a model or a setting got wrong is a `problem`, which counts as a failure of the request. */
export function read(reading: Reading, outputs: Outputs): Found {
  try {
    return readers[reading.task](reading, outputs);
  } catch (error) {
    if (error instanceof UnreadableError) return { problem: { code: error.code, message: error.message } };
    throw error;
  }
}

function classesOf({ labelCount, scores: kind, top }: Reading, outputs: Outputs): Found {
  const [[name, output]] = [...outputs] as [[string, Tensor]];
  const { data: scores } = floatsOf(name, output);
  if (labelCount !== null && labelCount !== scores.length) {
    throw new UnreadableError('OUTPUTS_UNFIT', `Output ${name} has ${scores.length} values, but there are ${labelCount} labels.`);
  }
  const probabilities = kind === 'PROBABILITIES' ? scores : softmax(scores);
  refuseNaN(probabilities);
  const classes = Array.from(probabilities, (probability, index) => ({ index, probability }))
    .sort((a, b) => b.probability - a.probability || a.index - b.index)
    .slice(0, top);
  return { classes };
}

function detectionsOf({ image, labelCount, outputLayout, ...limits }: Reading, outputs: Outputs): Found {
  const layout = outputLayout ?? (outputs.size === 1 ? 'CENTRES_FIRST' : undefined);
  if (!layout)
    throw new UnreadableError('OUTPUTS_UNFIT', 'Two outputs do not say how they hold boxes: deploy the model with `outputLayout`.');
  const tensors = [...outputs].map(([name, output]) => floatsOf(name, output));
  const [first, second] = tensors.map(({ shape }) => shape);
  const classCount = labelCount ?? (layout === 'BOXES_SCORES' ? second?.[2] : (first?.[1] ?? 0) - 4) ?? 0;
  let output: ImageOutput;
  try {
    [output] = readDetectorOutputs(tensors, layout, classCount) as [ImageOutput];
  } catch (error) {
    throw new UnreadableError('OUTPUTS_UNFIT', (error as Error).message);
  }
  refuseNaN(output.boxes);
  const where = placed(image.width, image.height, image.preprocess);
  return {
    detections: findDetections(output, classCount, limits).map((detection) => {
      const { label: index, score, left, top, right, bottom } = toImage(detection, where, image.width, image.height);
      return { index, score, box: { x: left, y: top, width: right - left, height: bottom - top } };
    }),
  };
}

function floatsOf(name: string, { datatype, shape, data }: Tensor): FloatOutput {
  if (data instanceof Float32Array) return { shape, data };
  throw new UnreadableError('OUTPUTS_UNFIT', `Output ${name} is ${datatype}; predict reads FP32. Send the tensors to /infer.`);
}

/** JSON has no word for what is not a number, and nothing can be read from it. */
function refuseNaN(values: Float32Array | Float64Array): void {
  if (values.includes(Number.NaN))
    throw new UnreadableError('NOT_NUMBERS', 'The model failed on this image: its output is not made of numbers.');
}

function softmax(logits: Float32Array): Float64Array {
  const largest = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const powers = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
