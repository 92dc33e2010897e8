/** `POST …/predict`: from the bytes of an image to the names of what is on it, and where. */
import sharp from 'sharp';
import type { Found, Image, Reading } from '../vision/reading.ts';
import type { Classes, Detections, PredictQuery } from './answers.ts';
import { HttpError } from './httpError.ts';
import type { ServedModel } from './models.ts';
import type { Feed } from './pool.ts';

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

/** What the run has to make of the outputs, and the names of those that this takes. */
export function readingOf(
  { config, signature }: ServedModel,
  image: Image,
  { top, score }: PredictQuery,
): { outputs: string[]; reading: Reading } {
  const { task, labels, scores, outputLayout, nmsIou, boxesMax } = config;
  const names = signature.outputs.map(({ name }) => name);
  const scoreThreshold = score ?? config.scoreThreshold;
  return {
    outputs: task === 'CLASSIFICATION' ? names.slice(0, 1) : names,
    reading: { task, image, top, labelCount: labels?.length ?? null, scores, outputLayout, scoreThreshold, nmsIou, boxesMax },
  };
}

/** With the names of the classes. */
export function labelled({ config: { labels } }: ServedModel, found: Exclude<Found, { problem: unknown }>): Classes | Detections {
  const named = <T extends { index: number }>(all: T[]) => all.map((one) => ({ label: labels?.[one.index] ?? null, ...one }));
  return 'classes' in found ? { classes: named(found.classes) } : { detections: named(found.detections) };
}
