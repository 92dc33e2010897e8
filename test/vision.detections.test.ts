/** "Detections" in docs/preprocessing.md, held to the fixtures that the trainer passes too. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  type DetectionSteps,
  detectionSteps,
  findDetections,
  type ImageOutput,
  readDetectorOutputs,
  toImage,
} from '../src/vision/detections.ts';
import { fastest } from '../src/vision/fastest.ts';
import { chooseLayout } from '../src/vision/layouts.ts';
import { placed } from '../src/vision/preprocess.ts';
import { type OutputLayout, presetPreprocess } from '../src/vision/spec.ts';
import { nativeMissing, whyNoNative } from './support/engines.ts';

const fixture = (path: string): Buffer => readFileSync(new URL(`./fixtures/${path}`, import.meta.url));
const json = (path: string) => JSON.parse(fixture(path).toString('utf8'));
const floats = (bytes: Buffer): Float32Array => new Float32Array(Uint8Array.from(bytes).buffer);

const inAddon: DetectionSteps = {
  bestOf: (...args) => fastest(detectionSteps).bestOf(...args),
  suppress: (...args) => fastest(detectionSteps).suppress(...args),
};

describe.each([
  ['TypeScript', detectionSteps, false, ''],
  ['C++', inAddon, nativeMissing !== null, whyNoNative],
])('the golden fixtures of detections in %s', (_language, steps, left, why) => {
  const { classes, cases } = json('detections/cases.json') as {
    classes: number;
    cases: {
      name: string;
      layout: OutputLayout;
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

  const bothForms = cases.flatMap((one) => [one, ...(one.layout === 'CENTRES_FIRST' ? [{ ...one, layout: 'BOXES_SCORES' as const }] : [])]);
  test.skipIf(left).each(bothForms)(
    `$name, $layout: what is found is that of the fixture${why}`,
    ({ output, shape: [rows, places], side, width, height, detections, layout }) => {
      const data = floats(fixture(`detections/${output}`));
      const { boxes, scores } = corners(data, places);
      const outputs =
        layout === 'BOXES_SCORES'
          ? [
              { shape: [1, places, 4], data: boxes },
              { shape: [1, places, classes], data: scores },
            ]
          : [{ shape: [1, rows, places], data }];
      const [image] = readDetectorOutputs(outputs, layout, classes);
      const where = placed(width, height, presetPreprocess(side, 'DETECTION'));
      const found = findDetections(image as ImageOutput, classes, undefined, steps).map((one) => toImage(one, where, width, height));
      expect(found.map(({ label }) => label)).toEqual(detections.map(({ label }) => label));
      for (const [i, { score, left, top, right, bottom }] of found.entries()) {
        const expected = detections[i] as (typeof detections)[number];
        expect(score).toBeCloseTo(expected.score, 5);
        for (const [k, side] of [left, top, right, bottom].entries()) expect(side).toBeCloseTo(expected.box[k] as number, 2);
      }
    },
  );

  test.skipIf(left)(`of more candidates than 3,000 the best go on, of equal ones the first${why}`, () => {
    const rounds = 4;
    for (let round = 0; round < rounds; round += 1) {
      // Boxes that lie apart, so that each candidate is kept: few different scores, all of them, or one alone.
      const count = 20_000;
      const scores = Float32Array.from({ length: count }, (_, i) => (((i * 2654435761) >>> 7) % (1 + round ** 3)) / rounds ** 3);
      const boxes = Float32Array.from({ length: 4 * count }, (_, i) => 2 * (i >> 2) + (i & 3 ? 1 : 0));
      const found = findDetections({ boxes, scores }, 1, { scoreThreshold: 0, nmsIou: 0.7, boxesMax: count }, steps);
      const order = [...scores.keys()].sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);
      expect(found.map(({ left }) => left / 2)).toEqual(order.slice(0, 3000));
    }
  });
});

describe('detections', () => {
  test.each(
    json('detections/layouts.json') as { name: string; shapes: number[][]; classes: number; said: OutputLayout; layout: OutputLayout }[],
  )('the layout is told, or asked for: $name', ({ shapes, classes, said, layout }) => {
    const choose = () => chooseLayout(shapes, classes, said ?? undefined);
    if (layout) expect(choose()).toBe(layout);
    else expect(choose).toThrow(said ?? /say `outputLayout`: \w+( or \w+)*\.|have none of the layouts/);
  });

  test.each<[string, number[][], string]>([
    ['rows with the number of an image', [[20, 7]], 'have none of the layouts that predict reads'],
    [
      'four outputs of a suppression',
      [
        [1, 1],
        [1, 20, 4],
        [1, 20],
        [1, 20],
      ],
      'send tensors to /infer',
    ],
    ['one that can be two', [[1, 20, 6]], 'say `outputLayout`: CENTRES_FIRST or OBJECTNESS or SUPPRESSED.'],
  ])('only layouts that are possible are asked for: %s', (_what, shapes, says) => expect(() => chooseLayout(shapes, null)).toThrow(says));

  test('outputs of another shape are refused with what they are', () => {
    const data = new Float32Array(24);
    expect(() => readDetectorOutputs([{ shape: [1, 6, 4], data }], 'BOXES_SCORES', 3)).toThrow('The outputs [1, 6, 4] do not have');
    expect(() => readDetectorOutputs([{ shape: [1, 6, 4], data }], 'CENTRES_FIRST', 3)).toThrow('layout CENTRES_FIRST of 3 classes');
  });
});

describe.skipIf(nativeMissing !== null)(`C++${whyNoNative}`, () => {
  let state = 1;
  /** 0 to 1. */
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };

  test.each([
    ['few candidates', 300, 5, 0.3, 0.5],
    ['more than 3,000', 2000, 20, 0.001, 0.7],
    ['one class, of which all overlap', 1500, 1, 0, 0],
    ['no overlap counts', 500, 3, 0.1, 1],
    ['a threshold that is no 32-bit float', 1000, 10, 0.1 + 1e-12, 0.45],
    ['none', 0, 4, 0.1, 0.5],
  ])('finds the same as TypeScript: %s', (_what, places, classes, scoreThreshold, nmsIou) => {
    // Scores in steps, so that many are equal, some of them the threshold itself.
    const scores = Float32Array.from({ length: places * classes }, () => Math.floor(random() * 1000) / 1000);
    const boxes = new Float32Array(4 * places);
    for (let place = 0; place < places; place += 1) {
      const [left, top] = [100 * random(), 100 * random()];
      boxes.set([left, top, left + 60 * random() - 5, top + 60 * random() - 5], 4 * place);
    }
    const odd = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0];
    for (const [i, value] of odd.entries()) {
      if (scores.length > 100) scores[7 * i] = value;
      if (boxes.length > 100) boxes[13 * i] = value;
    }
    for (const boxesMax of [1, 100, 1000]) {
      const limits = { scoreThreshold, nmsIou, boxesMax };
      const [made, expected] = [inAddon, detectionSteps].map((steps) => findDetections({ boxes, scores }, classes, limits, steps));
      expect(made).toEqual(expected);
    }
  });

  test('is what finds detections where it is built, and refuses a candidate without a box', () => {
    expect(() => findDetections({ boxes: new Float32Array(4), scores: Float32Array.of(1, 1) }, 1)).toThrow('A candidate has no box.');
  });
});
