/** From pixels to a tensor, as docs/preprocessing.md defines it (steps 4 to 8). */
import type { Values } from '../engine/datatypes.ts';
import { fastest } from './fastest.ts';
import { channelCount, type PreprocessSpec } from './spec.ts';
import { fillTensor, type Placement, type Rectangle } from './tensor.ts';

/** From the 32-bit floats of step 6 to the element types that an input can have. */
const convert = {
  FP32: (values: Float32Array<ArrayBuffer>) => values,
  FP64: (values: Float32Array<ArrayBuffer>) => Float64Array.from(values),
  FP16: (values: Float32Array<ArrayBuffer>) => {
    const bits = new DataView(new ArrayBuffer(2 * values.length));
    for (const [i, value] of values.entries()) bits.setFloat16(2 * i, value, true);
    return new Uint16Array(bits.buffer);
  },
  UINT8: (values: Float32Array<ArrayBuffer>) => Uint8Array.from(values, (value) => Math.min(255, Math.max(0, Math.floor(value + 0.5)))),
} satisfies Record<string, (values: Float32Array<ArrayBuffer>) => Values>;

/** What an input can be made of. */
export type InputDatatype = keyof typeof convert;
export const isInputDatatype = (datatype: string): datatype is InputDatatype => Object.hasOwn(convert, datatype);

/** Of one image. */
interface Size {
  width: number;
  height: number;
}

/** `pixels`: height × width × RGB, upright. The result has the shape 1 × C × H × W or 1 × H × W × C. */
export function preprocess<T extends InputDatatype = 'FP32'>(
  pixels: Uint8Array,
  width: number,
  height: number,
  spec: PreprocessSpec,
  datatype: T = 'FP32' as T,
  fill = fastest({ fillTensor }).fillTensor,
): ReturnType<(typeof convert)[T]> {
  return preprocessAll(pixels, [{ width, height, preprocess: spec }], datatype, fill);
}

/** The images of a batch, whose pixels lie one behind the other and which have the same preprocessing. The result has a row for each. */
export function preprocessAll<T extends InputDatatype>(
  pixels: Uint8Array,
  images: readonly (Size & { preprocess: PreprocessSpec })[],
  datatype: T,
  fill = fastest({ fillTensor }).fillTensor,
): ReturnType<(typeof convert)[T]> {
  const { preprocess: spec } = images[0] as { preprocess: PreprocessSpec };
  // A level has one of 256 values in each channel: they are normalised (step 6), and converted (step 8), once.
  const { mean, std } = spec;
  const channels = channelCount(spec);
  const normalised = Float32Array.from({ length: channels * 256 }, (_, i) => {
    const c = Math.floor(i / 256);
    return ((i % 256) / 255 - (mean[c] as number)) / (std[c] as number);
  });
  const tables = convert[datatype](normalised);
  const values = channels * spec.width * spec.height;
  const tensor = new (tables.constructor as Float32ArrayConstructor)(images.length * values);
  let from = 0;
  for (const [i, { width, height }] of images.entries()) {
    fill(pixels.subarray(from), width, placed(width, height, spec), spec, tables, tensor.subarray(i * values, (i + 1) * values));
    from += 3 * width * height;
  }
  return tensor as unknown as ReturnType<(typeof convert)[T]>;
}

const round = (x: number): number => Math.max(1, Math.floor(x + 0.5));

/** Step 4. */
export function placed(width: number, height: number, spec: PreprocessSpec): Placement {
  const all = { left: 0, top: 0, width, height };
  const canvas = { left: 0, top: 0, width: spec.width, height: spec.height };
  if (spec.mode === 'STRETCH') return { part: all, target: canvas };
  if (spec.mode === 'CROP') {
    const s = Math.min(width / spec.width, height / spec.height) * spec.cropFraction;
    return { part: centred(round(spec.width * s), round(spec.height * s), width, height), target: canvas };
  }
  const s = Math.min(spec.width / width, spec.height / height);
  return { part: all, target: centred(round(width * s), round(height * s), spec.width, spec.height) };
}

const centred = (width: number, height: number, outerWidth: number, outerHeight: number): Rectangle => ({
  left: Math.floor((outerWidth - width) / 2),
  top: Math.floor((outerHeight - height) / 2),
  width,
  height,
});
