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

/** The little-endian bytes of a tensor's `data`, flat or nested as its shape is. Throws a HttpError (400). */
export function bytesFromJson(name: string, datatype: Datatype, shape: readonly number[], data: unknown): Uint8Array {
  if (!Array.isArray(data)) throw new HttpError(400, `Input ${name} needs \`data\`, an array, or the parameter binary_data_size.`);
  const nested = data.some(Array.isArray);
  const values = nested ? flattened(name, shape, data) : data;
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
    const value = values[wrong];
    // An object may be nested deeper than it could be printed.
    const shown = typeof value === 'object' && value !== null ? 'a list or an object' : JSON.stringify(value).slice(0, 50);
    throw new HttpError(
      400,
      `Input ${name}: ${placeOf(wrong, nested ? shape : [count])} is ${shown}; ${datatype} takes ${valuesOf(datatype)}.`,
    );
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

/** The values of lists in lists. Of lists with other lengths than the shape's nobody knows which value belongs where. */
function flattened(name: string, shape: readonly number[], data: unknown[]): unknown[] {
  let lists: unknown[] = [data];
  for (const [depth, length] of shape.entries()) {
    const wrong = lists.findIndex((list) => !Array.isArray(list) || list.length !== length);
    if (wrong >= 0) {
      const list = lists[wrong];
      const found = Array.isArray(list) ? `has ${list.length} ${list.length === 1 ? 'item' : 'items'}` : 'is no list';
      throw new HttpError(
        400,
        `Input ${name}: ${placeOf(wrong, shape.slice(0, depth))} ${found}, but the shape [${shape}] needs ${length} there. Flat values are accepted too.`,
      );
    }
    lists = lists.flat(1);
  }
  return lists;
}

/** The value at `index` of a flat tensor, as it is written where lists are nested: `data[0][2]`. */
function placeOf(index: number, shape: readonly number[]): string {
  let rest = index;
  const at = shape.toReversed().map((length) => {
    const place = rest % length;
    rest = Math.floor(rest / length);
    return `[${place}]`;
  });
  return `data${at.reverse().join('')}`;
}

function valuesOf(datatype: Datatype): string {
  const range = integers[datatype];
  if (datatype === 'BOOL') return 'true and false';
  if (!range) return `numbers up to ${floatMax[datatype as keyof typeof floatMax]}`;
  const wide = datatype === 'INT64' || datatype === 'UINT64' ? '; what is beyond needs binary data' : '';
  return `whole numbers from ${range[0]} to ${range[1]}${wide}`;
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
