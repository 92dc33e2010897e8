/** The one definition of docs/preprocessing.md, held to the fixtures that the trainer passes too. */
import { readFileSync } from 'node:fs';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { findDetections, type ImageOutput, readDetectorOutputs, toImage } from '../src/inference/detections.ts';
import { placed, preprocess, resized } from '../src/inference/preprocess.ts';
import { type PreprocessSpec, presetPreprocess } from '../src/jobs/specs.ts';

const fixture = (path: string): Buffer => readFileSync(new URL(`./fixtures/${path}`, import.meta.url));
const json = (path: string) => JSON.parse(fixture(path).toString('utf8'));
const floats = (bytes: Buffer): Float32Array => new Float32Array(Uint8Array.from(bytes).buffer);

async function decoded(file: string) {
  const image = sharp(fixture(`preprocess/${file}`), { ignoreIcc: true })
    .autoOrient()
    .removeAlpha()
    .toColourspace('srgb');
  const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });
  return { pixels: data, width: info.width, height: info.height };
}

/** Share of the values that are no further than `tolerance` from the expected ones. */
function shareWithin(found: ArrayLike<number>, expected: ArrayLike<number>, tolerance: (i: number) => number): number {
  expect(found.length).toBe(expected.length);
  let within = 0;
  for (let i = 0; i < found.length; i += 1) if (Math.abs((found[i] as number) - (expected[i] as number)) <= tolerance(i)) within += 1;
  return within / found.length;
}

describe('preprocessing', () => {
  const cases = json('preprocess/cases.json') as { name: string; file: string; spec: PreprocessSpec; levels: string; tensor?: string }[];

  test.each(cases)('$name: levels are within one of the fixture', async ({ file, spec, levels, tensor }) => {
    const { pixels, width, height } = await decoded(file);
    const found = resized(pixels, width, height, spec);
    expect(shareWithin(found, fixture(`preprocess/${levels}`), () => 1)).toBeGreaterThanOrEqual(0.999);
    if (!tensor) return;
    const level = (i: number) =>
      1.001 / 255 / (spec.std[spec.layout === 'NCHW' ? Math.floor(i / (spec.width * spec.height)) : i % 3] as number);
    const values = preprocess(pixels, width, height, spec);
    expect(shareWithin(values, floats(fixture(`preprocess/${tensor}`)), level)).toBeGreaterThanOrEqual(0.999);
  });
});

describe('detections', () => {
  const { classes, cases } = json('detections/cases.json') as {
    classes: number;
    cases: {
      name: string;
      width: number;
      height: number;
      side: number;
      output: string;
      shape: [number, number];
      detections: { label: number; score: number; box: number[] }[];
    }[];
  };

  /** The output of a case in the layout of two outputs. */
  function corners(values: Float32Array, places: number): { boxes: Float32Array; scores: Float32Array } {
    const at = (row: number, place: number) => values[row * places + place] as number;
    const boxes = Array.from({ length: places }, (_, p) => {
      const [x, y, w, h] = [at(0, p), at(1, p), at(2, p), at(3, p)];
      return [x - w / 2, y - h / 2, x + w / 2, y + h / 2];
    });
    const scores = Array.from({ length: places }, (_, p) => Array.from({ length: classes }, (_, c) => at(4 + c, p)));
    return { boxes: Float32Array.from(boxes.flat()), scores: Float32Array.from(scores.flat()) };
  }

  test.each(cases.flatMap((one) => (['CENTRES_FIRST', 'BOXES_SCORES'] as const).map((layout) => ({ ...one, layout }))))(
    '$name, $layout: what is found is that of the fixture',
    ({ output, shape: [rows, places], side, width, height, detections, layout }) => {
      const data = floats(fixture(`detections/${output}`));
      const { boxes, scores } = corners(data, places);
      const outputs =
        layout === 'CENTRES_FIRST'
          ? [{ dims: [1, rows, places], data }]
          : [
              { dims: [1, places, 4], data: boxes },
              { dims: [1, places, classes], data: scores },
            ];
      const [image] = readDetectorOutputs(outputs, layout, classes);
      const where = placed(width, height, presetPreprocess(side, 'DETECTION'));
      const found = findDetections(image as ImageOutput, classes).map((one) => toImage(one, where, width, height));
      expect(found.map(({ label }) => label)).toEqual(detections.map(({ label }) => label));
      for (const [i, { score, left, top, right, bottom }] of found.entries()) {
        const expected = detections[i] as (typeof detections)[number];
        expect(score).toBeCloseTo(expected.score, 5);
        for (const [k, side] of [left, top, right, bottom].entries()) expect(side).toBeCloseTo(expected.box[k] as number, 2);
      }
    },
  );

  test('outputs of another shape are refused with what they are', () => {
    const data = new Float32Array(24);
    expect(() => readDetectorOutputs([{ dims: [1, 6, 4], data }], 'BOXES_SCORES', 3)).toThrow('The outputs [1, 6, 4] do not have');
    expect(() => readDetectorOutputs([{ dims: [1, 6, 4], data }], 'CENTRES_FIRST', 3)).toThrow('layout CENTRES_FIRST of 3 classes');
  });
});
