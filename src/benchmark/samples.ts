/**
 * The file of a measurement's samples: three columns of n signed 64-bit integers, little-endian, one after the other: how long each
 * inference took and when it ended, both in nanoseconds, and the round in which it was measured, from 0. An end counts from the start of the
 * measurement, of which the time between the rounds is no part.
 * NumPy: `latency, end, block = np.fromfile(file, '<i8').reshape(3, -1)`.
 */
import type { Samples } from './statistics.ts';

export interface RawSamples extends Samples {
  block: Float64Array;
}

const columns = 3;

/** Of a file of so many samples. */
export const samplesBytes = (count: number): number => 8 * columns * count;

const low = 2 ** 32;

/**
 * All supported processors are little-endian, as typed arrays then are. The values are below 2⁵³ and not negative: two 32-bit halves are
 * 20 times faster than a BigInt for each.
 */
export function encodeSamples({ latencyNs, endNs, block }: RawSamples): Uint8Array {
  const n = latencyNs.length;
  const halves = new Uint32Array(2 * columns * n);
  [latencyNs, endNs, block].forEach((column, c) => {
    for (let i = 0; i < n; i += 1) {
      const value = column[i] as number;
      halves[2 * (c * n + i)] = value % low;
      halves[2 * (c * n + i) + 1] = Math.floor(value / low);
    }
  });
  return new Uint8Array(halves.buffer);
}

/** Throws when the file is not whole. */
export function decodeSamples(bytes: Uint8Array): RawSamples {
  if (bytes.byteLength % (8 * columns) !== 0) throw new Error('The samples file is not whole.');
  const halves = new Uint32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer);
  const n = halves.length / (2 * columns);
  const column = (c: number) => {
    const values = new Float64Array(n);
    for (let i = 0; i < n; i += 1) values[i] = (halves[2 * (c * n + i)] as number) + low * (halves[2 * (c * n + i) + 1] as number);
    return values;
  };
  return { latencyNs: column(0), endNs: column(1), block: column(2) };
}

/** Samples of blocks, one after the other. */
export function joinSamples(blocks: RawSamples[]): RawSamples {
  const column = (name: keyof RawSamples) => {
    const joined = new Float64Array(blocks.reduce((sum, block) => sum + block[name].length, 0));
    let at = 0;
    for (const block of blocks) {
      joined.set(block[name], at);
      at += block[name].length;
    }
    return joined;
  };
  return { latencyNs: column('latencyNs'), endNs: column('endNs'), block: column('block') };
}
