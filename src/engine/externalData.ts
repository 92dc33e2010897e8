/**
 * Whether an ONNX file takes data from other files. Only the fields of the protocol buffer that lead to a tensor are followed; the
 * numbers are those of onnx.proto.
 */
type Message = 'model' | 'training' | 'function' | 'graph' | 'node' | 'attribute' | 'sparse' | 'tensor';

/** The fields of each message that hold messages. */
const children: Record<Message, Partial<Record<number, Message>>> = {
  model: { 7: 'graph', 20: 'training', 25: 'function' },
  training: { 1: 'graph', 2: 'graph' },
  function: { 7: 'node', 11: 'attribute' },
  graph: { 1: 'node', 5: 'tensor', 15: 'sparse' },
  node: { 5: 'attribute' },
  attribute: { 5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph', 22: 'sparse', 23: 'sparse' },
  sparse: { 1: 'tensor', 2: 'tensor' },
  tensor: {},
};
const externalDataField = 13;
const dataLocationField = 14;
const depthMax = 100;

/** Those of a file, which need not all be in memory. */
export type Bytes = Pick<Uint8Array, 'length' | 'at'>;

/** Throws an Error where the bytes are not a protocol buffer. */
export function hasExternalData(file: Bytes): boolean {
  return search(file, 0, file.length, 'model', 0);
}

function search(bytes: Bytes, from: number, to: number, message: Message, depth: number): boolean {
  if (depth > depthMax) throw damaged();
  let at = from;
  function varint(): number {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = bytes.at(at);
      if (byte === undefined || at >= to || shift > 2 ** 63) throw damaged();
      at += 1;
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  }
  while (at < to) {
    const tag = varint();
    const field = Math.floor(tag / 8);
    const wire = tag % 8;
    if (wire === 0) {
      const value = varint();
      if (message === 'tensor' && field === dataLocationField && value !== 0) return true;
    } else if (wire === 2) {
      const length = varint();
      const end = at + length;
      if (end > to) throw damaged();
      if (message === 'tensor' && field === externalDataField) return true;
      const child = children[message][field];
      if (child && search(bytes, at, end, child, depth + 1)) return true;
      at = end;
    } else if (wire === 1 || wire === 5) {
      at += wire === 1 ? 8 : 4;
    } else {
      throw damaged();
    }
  }
  return false;
}

const damaged = (): Error => new Error('The file is not ONNX, or not all of it is there.');
