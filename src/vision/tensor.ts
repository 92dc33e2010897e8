/**
 * Steps 5 to 7 of docs/preprocessing.md. `inference-native/src/vision.cpp` computes the same numbers in the same order, so that both give the
 * same bytes: change them together.
 */
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

/**
 * `pixels`: height × `width` × RGB. `tables`: for each channel of the tensor what each of the 256 levels becomes, in the tensor's type.
 */
export type FillTensor = (
  pixels: Uint8Array,
  width: number,
  placement: Placement,
  spec: Pick<PreprocessSpec, 'width' | 'height' | 'padColor' | 'channels' | 'layout'>,
  tables: Values,
  tensor: Values,
) => void;

/** One row of the tensor after the other: first down the columns of the image, then across. Nothing is rounded between. */
export const fillTensor: FillTensor = (pixels, width, { part, target }, spec, tables, tensor) => {
  const across = weightsOf(part.width, target.width);
  const down = weightsOf(part.height, target.height);
  const sums = new Float64Array(3 * part.width);
  const levels = new Uint8Array(3 * spec.width);
  for (let y = 0; y < spec.height; y += 1) {
    for (let i = 0; i < levels.length; i += 1) levels[i] = spec.padColor[i % 3] as number;
    const weights = down[y - target.top];
    if (weights) {
      addRows(pixels, 3 * (part.top * width + part.left), 3 * width, weights, sums);
      addColumns(sums, across, levels, 3 * target.left);
    }
    convertRow(levels, y, spec, tables as Float32Array, tensor as Float32Array);
  }
};

function addRows(pixels: Uint8Array, from: number, step: number, { first, weights }: Weights, sums: Float64Array): void {
  sums.fill(0);
  for (const [k, weight] of weights.entries()) {
    const row = from + (first + k) * step;
    for (let i = 0; i < sums.length; i += 1) sums[i] = (sums[i] as number) + weight * (pixels[row + i] as number);
  }
}

function addColumns(sums: Float64Array, across: Weights[], levels: Uint8Array, start: number): void {
  let to = start;
  for (const { first, weights } of across) {
    let red = 0;
    let green = 0;
    let blue = 0;
    for (let k = 0, at = 3 * first; k < weights.length; k += 1) {
      const weight = weights[k] as number;
      red += weight * (sums[at++] as number);
      green += weight * (sums[at++] as number);
      blue += weight * (sums[at++] as number);
    }
    levels[to++] = Math.min(255, Math.floor(red + 0.5));
    levels[to++] = Math.min(255, Math.floor(green + 0.5));
    levels[to++] = Math.min(255, Math.floor(blue + 0.5));
  }
}

function convertRow(
  levels: Uint8Array,
  y: number,
  { width, height, channels, layout }: Pick<PreprocessSpec, 'width' | 'height' | 'channels' | 'layout'>,
  tables: Float32Array,
  tensor: Float32Array,
): void {
  if (channels === 'GREY') {
    for (let x = 0; x < width; x += 1) tensor[y * width + x] = tables[lumaOf(levels, 3 * x)] as number;
    return;
  }
  const [plane, step] = layout === 'NCHW' ? [width * height, 1] : [1, 3];
  for (let c = 0; c < 3; c += 1) {
    let from = channels === 'RGB' ? c : 2 - c;
    let to = c * plane + y * width * step;
    for (let x = 0; x < width; x += 1) {
      tensor[to] = tables[256 * c + (levels[from] as number)] as number;
      from += 3;
      to += step;
    }
  }
}

/** ITU-R BT.601 in whole numbers: the weights add up to 65,536, so that a grey pixel keeps its level. */
function lumaOf(levels: Uint8Array, at: number): number {
  const [red, green, blue] = [levels[at] as number, levels[at + 1] as number, levels[at + 2] as number];
  return (19_595 * red + 38_470 * green + 7_471 * blue + 32_768) >> 16;
}

/** Of the source pixels `first`, `first + 1` … for one target pixel; their sum is 1. */
interface Weights {
  first: number;
  weights: Float64Array;
}

/** One direction: the triangle filter for each of `m` target pixels over `n` source pixels. */
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
