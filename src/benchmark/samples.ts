/**
 * The file of a measurement's samples: three columns of n signed 64-bit integers, little-endian, one after the other: how long each
 * inference took and when it ended, both in nanoseconds, and the block of time in which it ended, from 0.
 * NumPy: `latency, end, block = np.fromfile(file, '<i8').reshape(3, -1)`.
 */
import type { Samples } from './statistics.ts';

export interface RawSamples extends Samples {
  block: Float64Array;
}

const columns = 3;

/** All supported processors are little-endian, as typed arrays then are. */
export function encodeSamples({ latencyNs, endNs, block }: RawSamples): Uint8Array {
  const all = new BigInt64Array(columns * latencyNs.length);
  [latencyNs, endNs, block].forEach((column, c) => {
    for (let i = 0; i < column.length; i += 1) all[c * column.length + i] = BigInt(column[i] as number);
  });
  return new Uint8Array(all.buffer);
}

/** Throws when the file is not whole. */
export function decodeSamples(bytes: Uint8Array): RawSamples {
  if (bytes.byteLength % (8 * columns) !== 0) throw new Error('The samples file is not whole.');
  const all = new BigInt64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer);
  const n = all.length / columns;
  const column = (c: number) => Float64Array.from({ length: n }, (_, i) => Number(all[c * n + i]));
  return { latencyNs: column(0), endNs: column(1), block: column(2) };
}
