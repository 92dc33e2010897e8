import { readFileSync } from 'node:fs';
import { z } from 'zod';

/** A tensor of 32-bit floats. */
export interface FloatTensor {
  shape: number[];
  data: Float32Array<ArrayBuffer>;
}

/** Preprocessed real inputs (N × …) with the outputs of the model that was trained (N × …), in the order of the model's outputs. */
export interface Probe {
  input: FloatTensor;
  outputs: FloatTensor[];
}

const Entry = z.object({
  dtype: z.literal('F32'),
  shape: z.array(z.int().min(0)),
  data_offsets: z.tuple([z.int().min(0), z.int().min(0)]),
});
const Header = z.object({ input: Entry, output: Entry, output1: Entry.optional() });

/**
 * Reads the PROBE file of a version: safetensors (8 bytes of header length, little-endian; a JSON header; the data), tensors `input`,
 * `output` and, of a model with two outputs, `output1`, all of 32-bit floats. Throws when it has another form.
 */
export function readProbe(path: string): Probe {
  const bytes = readFileSync(path);
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const header = Header.parse(JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes)));
  const tensor = ({ shape, data_offsets: [from, to] }: z.infer<typeof Entry>): FloatTensor => {
    // Copied: a Float32Array needs an offset that is a multiple of 4.
    const data = new Float32Array(new Uint8Array(bytes.subarray(8 + headerBytes + from, 8 + headerBytes + to)).buffer);
    if (data.length !== shape.reduce((a, b) => a * b, 1)) throw new Error('The probe file is not whole.');
    return { shape, data };
  };
  const { input, output, output1 } = header;
  return { input: tensor(input), outputs: [output, ...(output1 ? [output1] : [])].map(tensor) };
}

/** Largest |a − b|; NaN when one of them is not a number. */
export function largestDifference(a: Float32Array, b: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < a.length; i += 1) {
    const difference = Math.abs((a[i] as number) - (b[i] as number));
    if (Number.isNaN(difference)) return Number.NaN;
    if (difference > largest) largest = difference;
  }
  return a.length === b.length ? largest : Number.NaN;
}
