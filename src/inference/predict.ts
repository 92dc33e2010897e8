/** `POST …/predict`: from the bytes of an image to the names of what is on it. */
import sharp from 'sharp';
import type { Feed, Output } from './engine.ts';
import { HttpError } from './httpError.ts';
import type { ServedModel } from './models.ts';

// One thread for each image; a format is told by its content, and only these three decoders of libvips can be reached at all.
sharp.concurrency(1);
sharp.cache(false);
sharp.block({ operation: ['VipsForeignLoad'] });
sharp.unblock({ operation: ['VipsForeignLoadJpegBuffer', 'VipsForeignLoadPngBuffer', 'VipsForeignLoadWebpBuffer'] });

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

export interface ClassScore {
  /** Null where the model has no labels. */
  label: string | null;
  index: number;
  probability: number;
}

/** The classes in falling order of probability. Throws a HttpError where the output is not one number for each class. */
export function classesOf({ config }: ServedModel, { name, datatype, data }: Output, top: number): ClassScore[] {
  if (datatype !== 'FP32') throw new HttpError(400, `Output ${name} is ${datatype}; a classifier's is FP32.`);
  const scores = new Float32Array(data.buffer as ArrayBuffer, data.byteOffset, data.length / 4);
  if (config.labels && config.labels.length !== scores.length) {
    throw new HttpError(400, `Output ${name} has ${scores.length} values, but there are ${config.labels.length} labels.`);
  }
  const probabilities = config.scores === 'PROBABILITIES' ? scores : softmax(scores);
  return Array.from(probabilities, (probability, index) => ({ label: config.labels?.[index] ?? null, index, probability }))
    .sort((a, b) => b.probability - a.probability || a.index - b.index)
    .slice(0, top);
}

function softmax(logits: Float32Array): Float64Array {
  const largest = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const powers = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
