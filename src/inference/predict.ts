/** `POST …/predict`: from the bytes of an image to the names of what is on it, and where. */
import { BadImage } from '../vision/badImage.ts';
import { decodeImage, type ImageHeader, readImageHeader } from '../vision/decode.ts';
import type { Found, Image, Reading } from '../vision/reading.ts';
import type { PreprocessSpec } from '../vision/spec.ts';
import type { Classes, Detections, PredictQuery } from './answers.ts';
import { HttpError } from './httpError.ts';
import type { ServedModel } from './models.ts';
import type { Feed, ServedPort } from './pool.ts';

/** Longest side in pixels: half-way, a resize holds height × width of the input × 12 bytes, 230 MB for an input of 640. */
const sideMax = 30_000;

/** Without decoding the image. Throws a HttpError (400; 413 for more pixels than the model allows). */
export async function readHeader({ config, signature }: ServedModel, file: Buffer): Promise<ImageHeader> {
  if (!config.preprocess || !signature.inputs[0])
    throw new HttpError(400, `${config.name} has no preprocessing: send its tensors to /infer.`);
  const header = await readImageHeader(file).catch(refuseImage);
  const { width, height } = header;
  if (width * height > config.maxImagePixels) {
    throw new HttpError(413, `The image has ${width} × ${height} pixels; ${config.maxImagePixels} are allowed.`);
  }
  if (Math.max(width, height) > sideMax) {
    throw new HttpError(413, `The image has ${width} × ${height} pixels; a side can have ${sideMax}.`);
  }
  return header;
}

/** The model's input from a file whose header was read. Throws a HttpError (400). */
export async function decodeFeed({ config, signature }: ServedModel, file: Buffer): Promise<Feed & { image: Image }> {
  const preprocess = config.preprocess as PreprocessSpec;
  const { data, ...size } = await decodeImage(file, config.maxImagePixels).catch(refuseImage);
  const { width, height } = preprocess;
  const shape = preprocess.layout === 'NCHW' ? [1, 3, height, width] : [1, height, width, 3];
  const image = { ...size, preprocess };
  return { name: (signature.inputs[0] as ServedPort).name, datatype: 'FP32', shape, pieces: [data], image };
}

function refuseImage(error: Error): never {
  throw error instanceof BadImage ? new HttpError(400, `The body ${error.message}.`) : error;
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
