/**
 * A model that is read in the wrong way answers with nonsense, not with an error: once, before it takes traffic, it gets a picture, and
 * what it says of it has to be possible.
 */
import { classScoresOf, type Outputs, placesOf, type Reading, read } from './reading.ts';

/** Of the picture, in pixels: of neither the proportions nor the size of an input. */
export const trialSize = { width: 160, height: 120 };

/** Colours that rise over the picture in different directions, with every level of each. */
export function trialPicture(): Uint8Array {
  const { width, height } = trialSize;
  return Uint8Array.from({ length: 3 * width * height }, (_, i) => {
    const [x, y] = [((i / 3) | 0) % width, (i / 3 / width) | 0];
    return [(255 * x) / (width - 1), (255 * y) / (height - 1), (255 * (x + y)) / (width + height - 2)][i % 3] as number;
  });
}

const tolerance = 1e-3;
/** Of boxes: of many that are read as they are, none would be like this; of a few some may. */
const mostOf = (count: number, all: number): boolean => count > all / 2;

/** Why `predict` cannot answer with what the model says of the picture; null when it can. */
export function trialProblem(reading: Reading, outputs: Outputs): string | null {
  const found = read(reading, outputs);
  if ('problem' in found) return found.problem.message;
  return 'classes' in found ? classesProblem(reading, classScoresOf(reading, outputs)) : boxesProblem(reading, outputs);
}

function classesProblem({ scores: kind }: Reading, scores: Float32Array): string | null {
  const [least, most] = rangeOf(scores);
  const inRange = least >= -tolerance && most <= 1 + tolerance;
  if (kind === 'PROBABILITIES')
    return inRange
      ? null
      : `Its output has values from ${round(least)} to ${round(most)}: no probabilities. Deploy with \`scores\`: LOGITS.`;
  const sum = scores.reduce((a, b) => a + b, 0);
  const probabilities = inRange && scores.length > 1 && Math.abs(sum - 1) < tolerance;
  return probabilities ? 'Its output is made of probabilities already: they add up to 1. Deploy with `scores`: PROBABILITIES.' : null;
}

function boxesProblem(reading: Reading, outputs: Outputs): string | null {
  const { output, classCount } = placesOf(reading, outputs);
  const { boxes, labels } = output;
  const present = output.scores.filter((score) => score !== Number.NEGATIVE_INFINITY);
  const places = boxes.length / 4;
  if (!labels && reading.labelCount === null && classCount > places && outputs.size === 1)
    return `It would have ${classCount} classes at ${places} places: a detector has fewer classes than places. Say another \`outputLayout\`, or labels.`;
  const [least, most] = rangeOf(present);
  if (present.length > 0 && !(least >= -tolerance && most <= 1 + tolerance))
    return `Its scores are from ${round(least)} to ${round(most)}, not from 0 to 1: say another \`outputLayout\`, or export it with its sigmoid.`;
  const rows = Array.from({ length: places }, (_, place) => boxes.subarray(4 * place, 4 * place + 4) as unknown as Edges).filter(
    (_, place) => !labels || output.scores[place] !== Number.NEGATIVE_INFINITY,
  );
  const inverted = rows.filter(([left, top, right, bottom]) => right < left - tolerance || bottom < top - tolerance);
  if (mostOf(inverted.length, rows.length))
    return `${inverted.length} of ${rows.length} boxes end before they begin: say another \`outputLayout\`, or export left, top, right, bottom.`;
  const sized = rows.filter(([left, top, right, bottom]) => right > left && bottom > top);
  const { width, height } = reading.image.preprocess;
  if (Math.min(width, height) >= 8 && sized.length > 0 && sized.every((edges) => edges.every((edge) => edge >= -0.5 && edge <= 1.5)))
    return `All boxes lie within 1.5 pixels: they are fractions of the input. Export it with boxes in pixels, of 0 to ${width} and ${height}.`;
  return null;
}

type Edges = readonly [left: number, top: number, right: number, bottom: number];

const round = (value: number): number => Number(value.toPrecision(3));

const rangeOf = (values: Float32Array): [least: number, most: number] =>
  values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)] as [number, number], [Infinity, -Infinity] as [
    number,
    number,
  ]);
