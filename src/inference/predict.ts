/** `POST …/predict`: from the bytes of an image to the names of what is on it, and where. */
import { suggestion } from '../suggest.ts';
import { BadImage } from '../vision/badImage.ts';
import { decodeImage, type ImageHeader, readImageHeader, sideMax } from '../vision/decode.ts';
import { madeShape } from '../vision/input.ts';
import type { Found, Image, Reading } from '../vision/reading.ts';
import type { PreprocessSpec } from '../vision/spec.ts';
import { trialSize } from '../vision/trial.ts';
import { type Classes, type Detections, PredictQuery } from './answers.ts';
import type { ModelConfig } from './config.ts';
import { HttpError } from './httpError.ts';
import type { Feed, PictureTrial, ServedPort, ServedSignature } from './pool.ts';

/** What of a model is needed. */
interface Predicting {
  config: ModelConfig;
  signature: ServedSignature;
}

const parameters = Object.keys(PredictQuery.shape);
const decimal = /^-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;

/** Throws a HttpError (400) that names the parameter: one that is ignored, or read as 0, would give another answer than was asked for. */
export function parseQuery(query: URLSearchParams): PredictQuery {
  const asked: Record<string, number> = {};
  for (const [name, text] of query) {
    const shown = name.slice(0, 100);
    if (!parameters.includes(name))
      throw new HttpError(400, `There is no parameter ${shown}.${suggestion(name, parameters)} There are: ${parameters.join(', ')}.`);
    if (Object.hasOwn(asked, name)) throw new HttpError(400, `${shown} is there twice.`);
    asked[name] = decimal.test(text) ? Number(text) : Number.NaN;
  }
  const { data, error } = PredictQuery.safeParse(asked);
  if (data) return data;
  const [issue] = error.issues;
  const name = String(issue?.path[0]);
  throw new HttpError(400, `${name} is "${query.get(name)?.slice(0, 100)}". ${issue?.message}`);
}

/** Without decoding the image. Throws a HttpError (400; 413 for more pixels than the model allows; 422 where it takes no images). */
export async function readHeader({ config }: Predicting, file: Buffer): Promise<ImageHeader> {
  if (!config.preprocess) throw new HttpError(422, `${config.name} has no preprocessing: send its tensors to /infer.`);
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
export async function decodeFeed({ config, signature }: Predicting, file: Buffer): Promise<{ feed: Feed; image: Image }> {
  const preprocess = config.preprocess as PreprocessSpec;
  const { data, ...size } = await decodeImage(file, config.maxImagePixels).catch(refuseImage);
  const image = { ...size, preprocess };
  return { feed: { ...imageFeed(signature, preprocess), pieces: [data], images: [image] }, image };
}

function imageFeed({ inputs }: Pick<ServedSignature, 'inputs'>, preprocess: PreprocessSpec): Pick<Feed, 'name' | 'datatype' | 'shape'> {
  const { name, datatype } = inputs[0] as ServedPort;
  return { name, datatype, shape: madeShape(preprocess) };
}

/** How `predict` is tried before it is served; null where there is none. */
export function trialOf(config: ModelConfig, signature: ServedSignature): PictureTrial | null {
  const { preprocess } = config;
  if (!preprocess) return null;
  const image = { ...trialSize, preprocess };
  const model = { config, signature };
  return { feed: imageFeed(signature, preprocess), outputs: readOutputsOf(model), reading: readingOf(model, image, { top: 5 }) };
}

function refuseImage(error: Error): never {
  throw error instanceof BadImage ? new HttpError(400, `The body ${error.message}.`) : error;
}

/** The outputs that `read` of reading.ts takes. */
export function readOutputsOf({ config: { task }, signature }: Predicting): string[] {
  const names = signature.outputs.map(({ name }) => name);
  return task === 'CLASSIFICATION' ? names.slice(0, 1) : names;
}

/** What the run has to make of them. */
export function readingOf({ config }: Predicting, image: Image, { top, score }: PredictQuery): Reading {
  const { task, labels, scores, outputLayout, nmsIou, boxesMax } = config;
  const scoreThreshold = score ?? config.scoreThreshold;
  return { task, image, top, labelCount: labels?.length ?? null, scores, outputLayout, scoreThreshold, nmsIou, boxesMax };
}

/** With the names of the classes. */
export function labelled({ config: { labels } }: Predicting, found: Exclude<Found, { problem: unknown }>): Classes | Detections {
  const named = <T extends { index: number }>(all: T[]) => all.map((one) => ({ label: labels?.[one.index] ?? null, ...one }));
  return 'classes' in found ? { classes: named(found.classes) } : { detections: named(found.detections) };
}
