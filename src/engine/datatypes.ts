/** The element types of the Open Inference Protocol that a model may have, with ONNX Runtime's names. */
export const datatypes = {
  BOOL: { ort: 'bool', bytes: 1, array: Uint8Array },
  UINT8: { ort: 'uint8', bytes: 1, array: Uint8Array },
  UINT16: { ort: 'uint16', bytes: 2, array: Uint16Array },
  UINT32: { ort: 'uint32', bytes: 4, array: Uint32Array },
  UINT64: { ort: 'uint64', bytes: 8, array: BigUint64Array },
  INT8: { ort: 'int8', bytes: 1, array: Int8Array },
  INT16: { ort: 'int16', bytes: 2, array: Int16Array },
  INT32: { ort: 'int32', bytes: 4, array: Int32Array },
  INT64: { ort: 'int64', bytes: 8, array: BigInt64Array },
  // As the engine holds them: binary16 bit patterns.
  FP16: { ort: 'float16', bytes: 2, array: Uint16Array },
  FP32: { ort: 'float32', bytes: 4, array: Float32Array },
  FP64: { ort: 'float64', bytes: 8, array: Float64Array },
} as const;

export type Datatype = keyof typeof datatypes;
export type Values = InstanceType<(typeof datatypes)[Datatype]['array']>;

const byOrtName = new Map<string, Datatype>(Object.entries(datatypes).map(([name, { ort }]) => [ort, name as Datatype]));

/** Undefined for text and for what is no tensor. */
export const datatypeOfOrt = (name: string): Datatype | undefined => byOrtName.get(name);

export const elementsOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Of a tensor. */
export const tensorBytesOf = ({ datatype, shape }: { datatype: Datatype; shape: readonly number[] }): number =>
  elementsOf(shape) * datatypes[datatype].bytes;
