/** `POST …/predict`: from the bytes of an image to the names of what is on it, and where. */
import sharp from 'sharp';
import type { Classes, Detections, PredictQuery } from './answers.ts';
import type { ModelConfig } from './config.ts';
import { findDetections, type ImageOutput, readDetectorOutputs, toImage } from './detections.ts';
import type { Feed, Image, Output } from './engine.ts';
import { HttpError } from './httpError.ts';
import type { ServedModel } from './models.ts';
import { placed } from './preprocess.ts';

// One thread for each image; a format is told by its content, and only these three decoders of libvips can be reached at all.
sharp.concurrency(1);
sharp.cache(false);
sharp.block({ operation: ['VipsForeignLoad'] });
sharp.unblock({ operation: ['VipsForeignLoadJpegBuffer', 'VipsForeignLoadPngBuffer', 'VipsForeignLoadWebpBuffer'] });

/** Longest side in pixels: half-way, a resize holds height × width of the input × 12 bytes, 230 MB for an input of 640. */
const sideMax = 30_000;

const notAnImage = 'The body is not a JPEG, PNG or WebP image, or not all of it is there.';

/** The model's input from a JPEG, PNG or WebP file. Throws a HttpError (400; 413 for more pixels than the model allows). */
export async function decodeFeed({ config, signature }: ServedModel, file: Buffer): Promise<Feed> {
  const { preprocess, maxImagePixels } = config;
  const [input] = signature.inputs;
  if (!preprocess || !input) throw new HttpError(400, `${config.name} has no preprocessing: send its tensors to /infer.`);
  if (file.length === 0) throw new HttpError(400, notAnImage);
  const header = await sharp(file, { limitInputPixels: false }).metadata().catch(refuseImage);
  if (header.width * header.height > maxImagePixels) {
    throw new HttpError(413, `The image has ${header.width} × ${header.height} pixels; ${maxImagePixels} are allowed.`);
  }
  if (Math.max(header.width, header.height) > sideMax) {
    throw new HttpError(413, `The image has ${header.width} × ${header.height} pixels; a side can have ${sideMax}.`);
  }
  // Training and serving would each make other colours of it: docs/preprocessing.md.
  if (header.space === 'cmyk') throw new HttpError(400, 'The image is CMYK. Send it as RGB.');
  if ((header.pages ?? 1) > 1) throw new HttpError(400, 'The image is an animation. Send one still image.');
  const { data, info } = await sharp(file, { limitInputPixels: maxImagePixels, failOn: 'error', ignoreIcc: true })
    .autoOrient()
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true })
    .catch(refuseImage);
  const { width, height } = preprocess;
  const shape = preprocess.layout === 'NCHW' ? [1, 3, height, width] : [1, height, width, 3];
  return { name: input.name, datatype: 'FP32', shape, pieces: [data], image: { width: info.width, height: info.height, preprocess } };
}

function refuseImage(error: Error): never {
  if (/out of memory|unable to allocate/i.test(error.message)) throw error;
  throw new HttpError(400, notAnImage);
}

interface Prediction {
  /** Names of the outputs that it is made of. */
  outputs(model: ServedModel): string[];
  /** Throws a HttpError where they are not what the task needs. */
  answer(model: ServedModel, image: Image, outputs: readonly Output[], query: PredictQuery): Classes | Detections;
}

const namesOf = ({ signature }: ServedModel): string[] => signature.outputs.map(({ name }) => name);

/** What differs between the tasks. */
export const predictions: Record<ModelConfig['task'], Prediction> = {
  CLASSIFICATION: { outputs: (model) => namesOf(model).slice(0, 1), answer: classesOf },
  DETECTION: { outputs: namesOf, answer: detectionsOf },
};

function classesOf({ config }: ServedModel, _: Image, outputs: readonly Output[], { top }: PredictQuery): Classes {
  const [output] = outputs as [Output];
  const scores = floatsOf(output);
  if (config.labels && config.labels.length !== scores.length) {
    throw new HttpError(400, `Output ${output.name} has ${scores.length} values, but there are ${config.labels.length} labels.`);
  }
  const probabilities = config.scores === 'PROBABILITIES' ? scores : softmax(scores);
  refuseNaN(probabilities);
  const classes = Array.from(probabilities, (probability, index) => ({ label: config.labels?.[index] ?? null, index, probability }))
    .sort((a, b) => b.probability - a.probability || a.index - b.index)
    .slice(0, top);
  return { classes };
}

function detectionsOf({ config }: ServedModel, image: Image, outputs: readonly Output[], { score }: PredictQuery): Detections {
  const { labels, outputLayout: layout = outputs.length === 1 ? 'CENTRES_FIRST' : undefined } = config;
  if (!layout) throw new HttpError(400, 'Two outputs do not say how they hold boxes: deploy the model with `outputLayout`.');
  const tensors = outputs.map((output) => ({ dims: output.shape, data: floatsOf(output) }));
  const [first, second] = outputs.map(({ shape }) => shape);
  const classCount = labels?.length ?? (layout === 'BOXES_SCORES' ? second?.[2] : (first?.[1] ?? 0) - 4) ?? 0;
  let found: ImageOutput;
  try {
    [found] = readDetectorOutputs(tensors, layout, classCount) as [ImageOutput];
  } catch (error) {
    throw new HttpError(400, (error as Error).message);
  }
  refuseNaN(found.boxes);
  const where = placed(image.width, image.height, image.preprocess);
  return {
    detections: findDetections(found, classCount, { ...config, scoreThreshold: score ?? config.scoreThreshold }).map((detection) => {
      const { label: index, score, left, top, right, bottom } = toImage(detection, where, image.width, image.height);
      return { label: labels?.[index] ?? null, index, score, box: { x: left, y: top, width: right - left, height: bottom - top } };
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
