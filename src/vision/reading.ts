/**
 * What a run makes of a model's outputs for one image. It is done on the engine's thread: a detector's 8,400 places × 80 classes take
 * milliseconds (`npm run bench:preprocess`), and on the main thread everybody would wait for them.
 */
import type { Tensor } from '../engine/engine.ts';
import {
  classCountOf,
  type DetectionLimits,
  type FloatOutput,
  findDetections,
  type ImageOutput,
  readDetectorOutputs,
  toImage,
} from './detections.ts';
import { chooseLayout, LayoutError } from './layouts.ts';
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

export type Outputs = ReadonlyMap<string, Tensor>;

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
    if (error instanceof LayoutError) return { problem: { code: 'OUTPUTS_UNFIT', message: error.message } };
    throw error;
  }
}

/** The outputs of a run of several images; null where they have no row for each. */
export function readEach(readings: readonly Reading[], outputs: Outputs): Found[] | null {
  const [only, ...others] = readings as [Reading, ...Reading[]];
  if (others.length === 0) return [read(only, outputs)];
  if ([...outputs.values()].some(({ shape }) => shape[0] !== readings.length)) return null;
  return readings.map((reading, row) => read(reading, new Map([...outputs].map(([name, output]) => [name, rowOf(output, row)]))));
}

function rowOf({ datatype, shape: [rows = 1, ...shape], data }: Tensor, row: number): Tensor {
  const values = data.length / rows;
  return { datatype, shape: [1, ...shape], data: data.subarray(row * values, (row + 1) * values) };
}

function classesOf(reading: Reading, outputs: Outputs): Found {
  const scores = classScoresOf(reading, outputs);
  const probabilities = reading.scores === 'PROBABILITIES' ? scores : softmax(scores);
  refuseNaN(probabilities);
  const classes = Array.from(probabilities, (probability, index) => ({ index, probability }))
    .sort((a, b) => b.probability - a.probability || a.index - b.index)
    .slice(0, reading.top);
  return { classes };
}

/** One number for each class. Throws an UnreadableError where the output is nothing like that. */
export function classScoresOf({ labelCount }: Pick<Reading, 'labelCount'>, outputs: Outputs): Float32Array {
  const [[name, output]] = [...outputs] as [[string, Tensor]];
  const { data, shape } = floatsOf(name, output);
  if (shape.filter((size) => size !== 1).length > 1)
    throw new UnreadableError(
      'OUTPUTS_UNFIT',
      `Output ${name} has the shape [${shape}]; a classifier's is 1 × classes. A detector has the task DETECTION.`,
    );
  if (labelCount !== null && labelCount !== data.length)
    throw new UnreadableError('OUTPUTS_UNFIT', `Output ${name} has ${data.length} values, but there are ${labelCount} labels.`);
  return data;
}

function detectionsOf(reading: Reading, outputs: Outputs): Found {
  const { output, classCount } = placesOf(reading, outputs);
  refuseNaN(output.boxes);
  const { width, height, preprocess } = reading.image;
  const where = placed(width, height, preprocess);
  return {
    detections: findDetections(output, classCount, reading).map((detection) => {
      const { label: index, score, left, top, right, bottom } = toImage(detection, where, width, height);
      return { index, score, box: { x: left, y: top, width: right - left, height: bottom - top } };
    }),
  };
}

/** What a detector says of each place of an image. Throws an UnreadableError or a LayoutError. */
export function placesOf(
  { labelCount, outputLayout }: Pick<Reading, 'labelCount' | 'outputLayout'>,
  outputs: Outputs,
): { output: ImageOutput; classCount: number } {
  const tensors = [...outputs].map(([name, output]) => floatsOf(name, output));
  const shapes = tensors.map(({ shape }) => shape);
  const layout = chooseLayout(shapes, labelCount, outputLayout);
  const classCount = labelCount ?? classCountOf(shapes, layout);
  const [output] = readDetectorOutputs(tensors, layout, classCount) as [ImageOutput];
  const odd = output.labels?.find(
    (label, place) => output.scores[place] !== Number.NEGATIVE_INFINITY && !(Number.isInteger(label) && label < (classCount ?? classesMax)),
  );
  if (odd !== undefined)
    throw new UnreadableError(
      'OUTPUTS_UNFIT',
      `A box has the class ${odd}; there are ${classCount ?? `at most ${classesMax}`} classes, from 0.`,
    );
  return { output, classCount: classCount ?? classesMax };
}

/** As many as a model can have labels. */
const classesMax = 10_000;

function floatsOf(name: string, { datatype, shape, data }: Tensor): FloatOutput {
  if (data instanceof Float32Array) return { shape, data };
  if (data instanceof Float64Array) return { shape, data: Float32Array.from(data) };
  if (datatype === 'FP16') return { shape, data: fromHalves(data as Uint16Array) };
  throw new UnreadableError(
    'OUTPUTS_UNFIT',
    `Output ${name} is ${datatype}; predict reads FP16, FP32 and FP64. Send the tensors to /infer.`,
  );
}

function fromHalves(bits: Uint16Array): Float32Array {
  const view = new DataView(bits.buffer, bits.byteOffset, bits.byteLength);
  return Float32Array.from(bits, (_, i) => view.getFloat16(2 * i, true));
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
