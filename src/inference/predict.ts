/** `POST …/predict`: from the bytes of an image to the names of what is on it, and where. */
import sharp from 'sharp';
import type { Found, Image, Reading } from '../vision/reading.ts';
import type { PreprocessSpec } from '../vision/spec.ts';
import type { Classes, Detections, PredictQuery } from './answers.ts';
import { HttpError } from './httpError.ts';
import type { ServedModel } from './models.ts';
import type { Feed, ServedPort } from './pool.ts';

// One thread for each image; a format is told by its content, and only these three decoders of libvips can be reached at all.
sharp.concurrency(1);
sharp.cache(false);
sharp.block({ operation: ['VipsForeignLoad'] });
sharp.unblock({ operation: ['VipsForeignLoadJpegBuffer', 'VipsForeignLoadPngBuffer', 'VipsForeignLoadWebpBuffer'] });

/** Longest side in pixels: half-way, a resize holds height × width of the input × 12 bytes, 230 MB for an input of 640. */
const sideMax = 30_000;

const notAnImage = 'The body is not a JPEG, PNG or WebP image, or not all of it is there.';

/** What the header of a JPEG, PNG or WebP file says of decoding it. */
export interface Header {
  /** Bytes of the pixels, height × width × RGB. */
  pixelBytes: number;
  /** Bytes that there are at most while it is decoded, the pixels among them. */
  decodingBytes: number;
}

/** Without decoding the image. Throws a HttpError (400; 413 for more pixels than the model allows). */
export async function readHeader({ config, signature }: ServedModel, file: Buffer): Promise<Header> {
  if (!config.preprocess || !signature.inputs[0])
    throw new HttpError(400, `${config.name} has no preprocessing: send its tensors to /infer.`);
  if (file.length === 0) throw new HttpError(400, notAnImage);
  const { width, height, space, pages, format, isProgressive, orientation } = await sharp(file, { limitInputPixels: false })
    .metadata()
    .catch(refuseImage);
  if (width * height > config.maxImagePixels) {
    throw new HttpError(413, `The image has ${width} × ${height} pixels; ${config.maxImagePixels} are allowed.`);
  }
  if (Math.max(width, height) > sideMax) {
    throw new HttpError(413, `The image has ${width} × ${height} pixels; a side can have ${sideMax}.`);
  }
  // Training and serving would each make other colours of it: docs/preprocessing.md.
  if (space === 'cmyk') throw new HttpError(400, 'The image is CMYK. Send it as RGB.');
  if ((pages ?? 1) > 1) throw new HttpError(400, 'The image is an animation. Send one still image.');
  // Measured with 25 megapixels: libwebp takes 3.4 times the pixels, what comes in passes or is turned is held a second time.
  const copies = 1 + (format === 'webp' ? 3 : 0) + (isProgressive ? 1 : 0) + ((orientation ?? 1) > 1 ? 1 : 0);
  const pixelBytes = 3 * width * height;
  return { pixelBytes, decodingBytes: copies * pixelBytes };
}

/** The model's input from a file whose header was read. Throws a HttpError (400). */
export async function decodeFeed({ config, signature }: ServedModel, file: Buffer): Promise<Feed & { image: Image }> {
  const { maxImagePixels } = config;
  const preprocess = config.preprocess as PreprocessSpec;
  const { data, info } = await sharp(file, { limitInputPixels: maxImagePixels, failOn: 'error', ignoreIcc: true })
    .autoOrient()
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true })
    .catch(refuseImage);
  const { width, height } = preprocess;
  const shape = preprocess.layout === 'NCHW' ? [1, 3, height, width] : [1, height, width, 3];
  const image = { width: info.width, height: info.height, preprocess };
  return { name: (signature.inputs[0] as ServedPort).name, datatype: 'FP32', shape, pieces: [data], image };
}

function refuseImage(error: Error): never {
  if (/out of memory|unable to allocate/i.test(error.message)) throw error;
  throw new HttpError(400, notAnImage);
}

/** The outputs that `read` of reading.ts takes. */
export function outputsOf({ config: { task }, signature }: ServedModel): string[] {
  const names = signature.outputs.map(({ name }) => name);
  return task === 'CLASSIFICATION' ? names.slice(0, 1) : names;
}

/** What the run has to make of them. */
export function readingOf({ config }: ServedModel, image: Image, { top, score }: PredictQuery): Reading {
  const { task, labels, scores, outputLayout, nmsIou, boxesMax } = config;
  const scoreThreshold = score ?? config.scoreThreshold;
  return { task, image, top, labelCount: labels?.length ?? null, scores, outputLayout, scoreThreshold, nmsIou, boxesMax };
}

/** With the names of the classes. */
export function labelled({ config: { labels } }: ServedModel, found: Exclude<Found, { problem: unknown }>): Classes | Detections {
  const named = <T extends { index: number }>(all: T[]) => all.map((one) => ({ label: labels?.[one.index] ?? null, ...one }));
  return 'classes' in found ? { classes: named(found.classes) } : { detections: named(found.detections) };
}
