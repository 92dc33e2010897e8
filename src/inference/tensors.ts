/** Tensors in JSON: the values of a data type from and to what `JSON.parse` and `JSON.stringify` know. */
import { type Datatype, datatypes, elementsOf } from '../engine/datatypes.ts';
import { HttpError } from './httpError.ts';

const integers: Partial<Record<Datatype, [least: number, greatest: number]>> = {
  UINT8: [0, 0xff],
  UINT16: [0, 0xffff],
  UINT32: [0, 0xffffffff],
  UINT64: [0, Number.MAX_SAFE_INTEGER],
  INT8: [-0x80, 0x7f],
  INT16: [-0x8000, 0x7fff],
  INT32: [-0x80000000, 0x7fffffff],
  INT64: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
};

const floatMax = { FP16: 65504, FP32: (2 - 2 ** -23) * 2 ** 127, FP64: Number.MAX_VALUE };

/** The little-endian bytes of a tensor's `data`, flat or nested in any way. Throws a HttpError (400). */
export function bytesFromJson(name: string, datatype: Datatype, shape: readonly number[], data: unknown): Uint8Array {
  if (!Array.isArray(data)) throw new HttpError(400, `Input ${name} needs \`data\`, an array, or the parameter binary_data_size.`);
  const values: unknown[] = Array.isArray(data[0]) ? data.flat(shape.length) : data;
  const count = elementsOf(shape);
  if (values.length !== count) throw new HttpError(400, `Input ${name} of shape [${shape}] needs ${count} values, not ${values.length}.`);
  const range = integers[datatype];
  const fits = (value: unknown): boolean => {
    if (datatype === 'BOOL') return typeof value === 'boolean' || value === 0 || value === 1;
    if (typeof value !== 'number') return false;
    if (range) return Number.isInteger(value) && value >= range[0] && value <= range[1];
    // Beyond the type's range it would become infinite.
    return Math.abs(value) <= floatMax[datatype as keyof typeof floatMax];
  };
  const wrong = values.findIndex((value) => !fits(value));
  if (wrong >= 0) {
    const wide = datatype === 'INT64' || datatype === 'UINT64' ? ' Numbers beyond 2⁵³ need binary data.' : '';
    throw new HttpError(400, `Value ${wrong} of input ${name} is not ${datatype}.${wide}`);
  }
  const numbers = values as number[];
  if (datatype === 'FP16') {
    const view = new DataView(new ArrayBuffer(2 * count));
    for (const [i, value] of numbers.entries()) view.setFloat16(2 * i, value, true);
    return new Uint8Array(view.buffer);
  }
  const { array } = datatypes[datatype];
  if (array === BigInt64Array || array === BigUint64Array) return new Uint8Array(array.from(numbers.map(BigInt)).buffer);
  // true and false become 1 and 0.
  return new Uint8Array((array as typeof Float32Array).from(numbers, Number).buffer);
}

/** The JSON text of a tensor's values, flat. What is not finite is null, as everywhere in JSON. */
export function jsonOfBytes(datatype: Datatype, data: Uint8Array): string {
  const { array, bytes } = datatypes[datatype];
  // A batch's share may begin at any byte.
  const aligned = data.byteOffset % bytes === 0 ? data : data.slice();
  const count = data.length / bytes;
  if (datatype === 'FP16') {
    const view = new DataView(aligned.buffer, aligned.byteOffset, aligned.length);
    return JSON.stringify(Array.from({ length: count }, (_, i) => view.getFloat16(2 * i, true)));
  }
  const typed = new array(aligned.buffer as ArrayBuffer, aligned.byteOffset, count);
  if (datatype === 'BOOL') return JSON.stringify(Array.from(typed as Uint8Array, (value) => value !== 0));
  if (typed instanceof BigInt64Array || typed instanceof BigUint64Array) return `[${typed.join(',')}]`;
  return JSON.stringify(Array.from(typed as Float32Array));
}
