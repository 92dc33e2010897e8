/** From pixels to a tensor, in TypeScript and in the native runtime: docs/preprocessing.md, "Fixtures". */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { nativeAddon } from '../src/engine/libraries.ts';
import { decodeImage } from '../src/vision/decode.ts';
import { type InputDatatype, preprocess } from '../src/vision/preprocess.ts';
import { channelCount, inGrey, type PreprocessSpec, presetPreprocess } from '../src/vision/spec.ts';
import { type FillTensor, fillTensor } from '../src/vision/tensor.ts';
import { nativeMissing, whyNoNative } from './support/engines.ts';

const fixture = (name: string): Buffer => readFileSync(join(import.meta.dirname, 'fixtures', 'preprocess', name));
const cases: { name: string; file: string; spec: PreprocessSpec; levels: string; tensor?: string }[] = JSON.parse(
  fixture('cases.json').toString(),
);

const inAddon: FillTensor = (...args) => createRequire(import.meta.url)(nativeAddon).fillTensor(...args);

/** Share of the values that are within `tolerance(i)` of the expected ones. */
function close(found: ArrayLike<number>, expected: ArrayLike<number>, tolerance: (i: number) => number): number {
  expect(found).toHaveLength(expected.length);
  return Array.from(found).filter((value, i) => Math.abs(value - (expected[i] as number)) <= tolerance(i)).length / expected.length;
}

/** With this preprocessing a tensor of bytes holds the levels themselves. */
const asLevels = (spec: PreprocessSpec): PreprocessSpec => ({
  ...spec,
  channels: 'RGB',
  layout: 'NHWC',
  mean: [0, 0, 0],
  std: [1 / 255, 1 / 255, 1 / 255],
});

describe.each([
  ['TypeScript', fillTensor, false, ''],
  ['C++', inAddon, nativeMissing !== null, whyNoNative],
])('the golden fixtures in %s', (_language, fill, left, why) => {
  test.skipIf(left).each(cases)(`$name ($file)${why}`, async ({ file, spec, levels, tensor }) => {
    const { data, width, height } = await decodeImage(fixture(file), 25_000_000);
    expect(close(preprocess(data, width, height, asLevels(spec), 'UINT8', fill), fixture(levels), () => 1)).toBeGreaterThanOrEqual(0.999);
    if (!tensor) return;
    const values = new Float32Array(Uint8Array.from(fixture(tensor)).buffer);
    const channel = (i: number) => (spec.layout === 'NHWC' ? i % channelCount(spec) : Math.floor(i / (spec.width * spec.height)));
    const oneLevel = (i: number) => 1.0001 / (255 * (spec.std[channel(i)] as number));
    expect(close(preprocess(data, width, height, spec, 'FP32', fill), values, oneLevel)).toBeGreaterThanOrEqual(0.999);
  });
});

describe.skipIf(nativeMissing !== null)(`C++${whyNoNative}`, () => {
  const noise = (length: number) => Uint8Array.from({ length }, (_, i) => Math.imul(i + 1, 2654435761) >>> 24);
  const sizes = [
    [1, 1],
    [640, 3],
    [97, 211],
    [700, 500],
  ] as const;
  const kinds: [InputDatatype, Partial<PreprocessSpec>][] = [
    ['FP32', { mode: 'CROP', cropFraction: 0.875, width: 33, height: 64 }],
    ['FP16', { mode: 'LETTERBOX', width: 96, height: 40, channels: 'BGR' }],
    ['FP64', { mode: 'STRETCH', width: 300, height: 20, layout: 'NHWC' }],
    ['FP16', { ...inGrey(presetPreprocess(64)), mode: 'LETTERBOX', width: 50 }],
    ['FP32', { ...inGrey(presetPreprocess(64)), layout: 'NHWC', height: 31 }],
    ['UINT8', { mode: 'LETTERBOX', width: 17, height: 90, mean: [0, 0, 0], std: [1 / 255, 1 / 255, 1 / 255] }],
  ];
  test.each(kinds)('gives the same bytes as TypeScript: %s, %o', (datatype, asked) => {
    const spec = { ...presetPreprocess(64), ...asked };
    for (const [width, height] of sizes) {
      const pixels = noise(3 * width * height);
      const [made, expected] = [inAddon, fillTensor].map((fill) => preprocess(pixels, width, height, spec, datatype, fill));
      expect(made).toEqual(expected);
    }
  });

  test('is what preprocesses images where it is built', () => {
    const pixels = noise(3 * 20 * 10);
    // Only the addon refuses pixels that are missing.
    expect(() => preprocess(pixels.subarray(3), 20, 10, presetPreprocess(8))).toThrow('The part does not lie in the image.');
  });
});
