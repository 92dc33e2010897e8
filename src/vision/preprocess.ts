/** From pixels to a tensor, as docs/preprocessing.md defines it (steps 4 to 7). */
import type { Values } from '../engine/datatypes.ts';
import type { PreprocessSpec } from './spec.ts';

export interface Rectangle {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** Where an image goes: which part of it becomes which part of the input. */
export interface Placement {
  part: Rectangle;
  target: Rectangle;
}

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

/** `pixels`: height × width × RGB, upright. The result has the shape 1 × 3 × H × W or 1 × H × W × 3. */
export function preprocess<T extends InputDatatype = 'FP32'>(
  pixels: Uint8Array,
  width: number,
  height: number,
  spec: PreprocessSpec,
  datatype: T = 'FP32' as T,
): ReturnType<(typeof convert)[T]> {
  return normalise(resized(pixels, width, height, spec), spec, convert[datatype]) as ReturnType<(typeof convert)[T]>;
}

/** Steps 4 and 5: H × W × RGB. */
export function resized(pixels: Uint8Array, width: number, height: number, spec: PreprocessSpec): Uint8Array {
  const { part, target } = placed(width, height, spec);
  const across = weightsOf(part.width, target.width);
  const down = weightsOf(part.height, target.height);
  const rowLength = 3 * target.width;
  const between = new Float32Array(part.height * rowLength);
  for (let y = 0, i = 0; y < part.height; y += 1) {
    const from = 3 * ((part.top + y) * width + part.left);
    for (const { first, weights } of across) {
      let red = 0;
      let green = 0;
      let blue = 0;
      for (let k = 0, at = from + 3 * first; k < weights.length; k += 1) {
        const weight = weights[k] as number;
        red += weight * (pixels[at++] as number);
        green += weight * (pixels[at++] as number);
        blue += weight * (pixels[at++] as number);
      }
      between[i++] = red;
      between[i++] = green;
      between[i++] = blue;
    }
  }
  const canvas = new Uint8Array(3 * spec.width * spec.height);
  const [padRed, padGreen, padBlue] = spec.padColor as [number, number, number];
  for (let i = 0; i < canvas.length; ) {
    canvas[i++] = padRed;
    canvas[i++] = padGreen;
    canvas[i++] = padBlue;
  }
  const sums = new Float64Array(rowLength);
  for (let y = 0; y < target.height; y += 1) {
    sums.fill(0);
    const { first, weights } = down[y] as Weights;
    for (let k = 0; k < weights.length; k += 1) {
      const row = (first + k) * rowLength;
      const weight = weights[k] as number;
      for (let i = 0; i < rowLength; i += 1) sums[i] = (sums[i] as number) + weight * (between[row + i] as number);
    }
    const to = 3 * ((target.top + y) * spec.width + target.left);
    for (let i = 0; i < rowLength; i += 1) canvas[to + i] = Math.min(255, Math.floor((sums[i] as number) + 0.5));
  }
  return canvas;
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

/** Of the source pixels `first`, `first + 1` … for one target pixel; their sum is 1. */
interface Weights {
  first: number;
  weights: Float64Array;
}

/** Step 5, one direction: the triangle filter for each of `m` target pixels over `n` source pixels. */
function weightsOf(n: number, m: number): Weights[] {
  const scale = n / m;
  const support = Math.max(1, scale);
  return Array.from({ length: m }, (_, i) => {
    const centre = (i + 0.5) * scale;
    // Those less than `support` away; the others would weigh nothing.
    const first = Math.max(0, Math.floor(centre - support - 0.5) + 1);
    const last = Math.min(n - 1, Math.ceil(centre + support - 0.5) - 1);
    const weights = Float64Array.from({ length: last - first + 1 }, (_, k) =>
      Math.max(0, 1 - Math.abs(first + k + 0.5 - centre) / support),
    );
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** Steps 6 and 7. A level has one of 256 values in each channel: they are computed, and converted, once. */
function normalise(
  levels: Uint8Array,
  { channels, mean, std, layout }: PreprocessSpec,
  converted: (values: Float32Array<ArrayBuffer>) => Values,
): Values {
  const pixels = levels.length / 3;
  const tables = [0, 1, 2].map((c) =>
    converted(Float32Array.from({ length: 256 }, (_, level) => (level / 255 - (mean[c] as number)) / (std[c] as number))),
  ) as Float32Array[];
  const tensor = new ((tables[0] as Float32Array).constructor as Float32ArrayConstructor)(levels.length);
  for (const [c, values] of tables.entries()) {
    let from = channels === 'RGB' ? c : 2 - c;
    let to = layout === 'NCHW' ? c * pixels : c;
    const step = layout === 'NCHW' ? 1 : 3;
    for (let i = 0; i < pixels; i += 1) {
      tensor[to] = values[levels[from] as number] as number;
      from += 3;
      to += step;
    }
  }
  return tensor;
}
