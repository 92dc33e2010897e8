/**
 * What a run makes of a model's outputs for one image. It is done on the engine's thread: a detector's 8,400 places × 80 classes take 4 to
 * 50 ms, and on the main thread everybody would wait for them.
 */

import { HttpError } from '../inference/httpError.ts';
import type { Found, Output, Reading } from '../inference/pool.ts';
import { findDetections, type ImageOutput, readDetectorOutputs, toImage } from './detections.ts';
import { placed } from './preprocess.ts';

const readers: Record<Reading['task'], (reading: Reading, outputs: readonly Output[]) => Found> = {
  CLASSIFICATION: classesOf,
  DETECTION: detectionsOf,
};

/** What a model or a setting got wrong is a `problem`, which counts as a failure of the request. */
export function read(reading: Reading, outputs: readonly Output[]): Found {
  try {
    return readers[reading.task](reading, outputs);
  } catch (error) {
    if (error instanceof HttpError) return { problem: { status: error.status, message: error.message } };
    throw error;
  }
}

function classesOf({ labelCount, scores: kind, top }: Reading, outputs: readonly Output[]): Found {
  const [output] = outputs as [Output];
  const scores = floatsOf(output);
  if (labelCount !== null && labelCount !== scores.length) {
    throw new HttpError(400, `Output ${output.name} has ${scores.length} values, but there are ${labelCount} labels.`);
  }
  const probabilities = kind === 'PROBABILITIES' ? scores : softmax(scores);
  refuseNaN(probabilities);
  const classes = Array.from(probabilities, (probability, index) => ({ index, probability }))
    .sort((a, b) => b.probability - a.probability || a.index - b.index)
    .slice(0, top);
  return { classes };
}

function detectionsOf({ image, labelCount, outputLayout, ...limits }: Reading, outputs: readonly Output[]): Found {
  const layout = outputLayout ?? (outputs.length === 1 ? 'CENTRES_FIRST' : undefined);
  if (!layout) throw new HttpError(400, 'Two outputs do not say how they hold boxes: deploy the model with `outputLayout`.');
  const tensors = outputs.map((output) => ({ dims: output.shape, data: floatsOf(output) }));
  const [first, second] = outputs.map(({ shape }) => shape);
  const classCount = labelCount ?? (layout === 'BOXES_SCORES' ? second?.[2] : (first?.[1] ?? 0) - 4) ?? 0;
  let output: ImageOutput;
  try {
    [output] = readDetectorOutputs(tensors, layout, classCount) as [ImageOutput];
  } catch (error) {
    throw new HttpError(400, (error as Error).message);
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

function floatsOf({ name, datatype, data }: Output): Float32Array {
  if (datatype !== 'FP32') throw new HttpError(400, `Output ${name} is ${datatype}; predict reads FP32. Send the tensors to /infer.`);
  return new Float32Array(data.buffer as ArrayBuffer, data.byteOffset, data.length / 4);
}

/** JSON has no word for what is not a number, and nothing can be read from it. */
function refuseNaN(values: Float32Array | Float64Array): void {
  if (values.includes(Number.NaN)) throw new HttpError(500, 'The model failed on this image: its output is not made of numbers.');
}

function softmax(logits: Float32Array): Float64Array {
  const largest = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const powers = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
