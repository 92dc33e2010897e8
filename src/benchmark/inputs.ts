/** The inputs of a measurement with the outputs that they should give. */
import { createCipheriv, createHash } from 'node:crypto';
import { type Datatype, elementsOf } from '../engine/datatypes.ts';
import type { EngineSession, Feeds, Open, OpenOptions, Tensor } from '../engine/engine.ts';
import { engines, servingEngine } from '../engine/engines.ts';
import { type Problem, planShapes } from '../engine/shapes.ts';
import type { BenchmarkSpec } from '../jobs/specs.ts';
import { maskPaths } from '../maskPaths.ts';
import { type FloatTensor, readProbe } from '../models/probe.ts';

type Model = BenchmarkSpec['models'][number];

export interface PlannedInput {
  name: string;
  datatype: Datatype;
  shape: number[];
}

/** What the runs of a model at a batch size get, and what they should give. It goes from one process to another. */
export interface Prepared {
  /** SELF_REFERENCE: seeded inputs, with the outputs of the same file without any optimisation. */
  reference: 'PROBE' | 'SELF_REFERENCE';
  inputs: PlannedInput[];
  /** The outputs of each case by name. */
  expected: Map<string, Float32Array>[];
  /** Different inputs among the cases. */
  count: number;
}

export type Refused = { problem: { code: Problem['code'] | 'LOAD_FAILED'; message: string } };
type Asked = Pick<BenchmarkSpec, 'seed' | 'settings'>;

/** Bytes of all cases together. */
const inputBytesMax = 2 ** 30;

/**
 * Plans the inputs of a model at a batch size, at least `gateInputs` where there are that many: its probe set with the outputs of the
 * trained model, or else seeded ones, which are run once on the processor for their reference.
 */
export async function prepare(model: Model, batchSize: number, { seed, settings }: Asked): Promise<Prepared | Refused> {
  const open = await engines[servingEngine].load();
  const loaded = await load(open, model.file, { intraOpThreads: 1, optimized: false });
  if ('problem' in loaded) return loaded;
  const { session } = loaded;
  const { signature } = session;
  const planned = planShapes(signature.inputs, batchSize, model.dims);
  if ('problem' in planned) return planned;
  const unsupported = signature.inputs.find(({ datatype }) => datatype === null || !canMake(datatype));
  if (unsupported) return cannotMeasure('INPUT_UNSUPPORTED', `Inputs of type ${unsupported.type} cannot be made (${unsupported.name}).`);
  const inputs = signature.inputs.map(({ name, datatype }) => ({
    name,
    datatype: datatype as Datatype,
    shape: planned.shapes.get(name) as number[],
  }));
  const count = Math.ceil(settings.gateInputs / batchSize);
  if (inputs.reduce((sum, { shape }) => sum + 8 * elementsOf(shape), 0) * count > inputBytesMax) {
    return cannotMeasure(
      'INPUT_UNSUPPORTED',
      `${count} batches of ${batchSize} inputs would be larger than ${inputBytesMax / 2 ** 20} MiB.`,
    );
  }
  if (model.probe !== null)
    return prepareProbe(
      inputs,
      signature.outputs.map(({ name }) => name),
      model.probe,
      batchSize,
      settings.gateInputs,
    );
  const expected: Prepared['expected'] = [];
  for (let i = 0; i < count; i += 1) {
    const ran = await run(session, seededFeeds(inputs, seed, i));
    if ('problem' in ran) return ran;
    expected.push(numbersOf(ran.outputs));
  }
  return { reference: 'SELF_REFERENCE', inputs, expected, count: count * batchSize };
}

/** The inputs of `count` cases: those of the probe set, or else seeded ones. */
export function feedsOf(inputs: readonly PlannedInput[], probe: Model['probe'], seed: number, count: number): Feeds[] {
  const [first] = inputs as [PlannedInput];
  const real = probe === null ? null : readProbe(probe).input;
  return Array.from({ length: count }, (_, i) => {
    if (!real) return seededFeeds(inputs, seed, i);
    const batchSize = first.shape[0] as number;
    return new Map([[first.name, { datatype: 'FP32', shape: first.shape, data: itemsOf(real, i * batchSize, batchSize) }]]);
  });
}

const cannotMeasure = (code: Refused['problem']['code'], message: string): Refused => ({ problem: { code, message } });
const said = (error: unknown): string => maskPaths(String((error as Error).message)).slice(0, 500);

/** A session of the file, or why the engine refuses it. */
export async function load(open: Open, file: string, options: OpenOptions): Promise<{ session: EngineSession } | Refused> {
  try {
    return { session: await open(file, options) };
  } catch (error) {
    return cannotMeasure('LOAD_FAILED', `The engine does not load the model: ${said(error)}`);
  }
}

/** One run, or why the model refuses these inputs. */
export async function run(session: EngineSession, feeds: Feeds): Promise<{ outputs: Map<string, Tensor> } | Refused> {
  try {
    return await session.run(feeds);
  } catch (error) {
    return cannotMeasure('INPUT_UNSUPPORTED', `The model does not run on these inputs: ${said(error)}`);
  }
}

// ---------------------------------------------------------------------------------------------------------------- probe

function prepareProbe(
  inputs: PlannedInput[],
  outputNames: readonly string[],
  file: string,
  batchSize: number,
  gateInputs: number,
): Prepared | Refused {
  const { input, outputs } = readProbe(file);
  const shape = inputs[0]?.shape ?? [];
  if (inputs.length !== 1 || shape[0] !== batchSize || String(shape.slice(1)) !== String(input.shape.slice(1))) {
    return cannotMeasure('INPUT_UNSUPPORTED', 'The probe set has other inputs than the model.');
  }
  const count = Math.min(gateInputs, input.shape[0] as number);
  const expected = Array.from(
    { length: Math.ceil(count / batchSize) },
    (_, i) => new Map(outputs.map((output, n) => [String(outputNames[n]), itemsOf(output, i * batchSize, batchSize)])),
  );
  return { reference: 'PROBE', inputs, expected, count };
}

/** `count` items of a tensor from `first` on; behind the last comes the first again. */
function itemsOf({ shape: [items = 1, ...rest], data }: FloatTensor, first: number, count: number): Float32Array<ArrayBuffer> {
  const size = elementsOf(rest);
  const chosen = new Float32Array(count * size);
  for (let i = 0; i < count; i += 1) {
    const from = ((first + i) % items) * size;
    chosen.set(data.subarray(from, from + size), i * size);
  }
  return chosen;
}

// --------------------------------------------------------------------------------------------------------------- seeded

/** Values of a type from random bytes: floats from 0 to 1, and 0 or 1 where a number may be an index into a table. */
const makers: Partial<Record<Datatype, (bytes: Buffer, length: number) => Tensor['data']>> = {
  FP32: (bytes, length) => Float32Array.from({ length }, (_, i) => bytes.readUInt32LE(4 * i) / 2 ** 32),
  FP64: (bytes, length) => Float64Array.from({ length }, (_, i) => bytes.readUInt32LE(4 * i) / 2 ** 32),
  // 0.5 to 1: the exponent of 0.5 and ten random bits.
  FP16: (bytes, length) => Uint16Array.from({ length }, (_, i) => 0x3800 | (bytes.readUInt16LE(4 * i) & 0x3ff)),
  UINT8: (bytes, length) => Uint8Array.from({ length }, (_, i) => bytes[4 * i] as number),
  INT8: (bytes, length) => Int8Array.from({ length }, (_, i) => bytes.readInt8(4 * i)),
  INT32: (bytes, length) => Int32Array.from({ length }, (_, i) => (bytes[4 * i] as number) & 1),
  INT64: (bytes, length) => BigInt64Array.from({ length }, (_, i) => BigInt((bytes[4 * i] as number) & 1)),
  BOOL: (bytes, length) => Uint8Array.from({ length }, (_, i) => (bytes[4 * i] as number) & 1),
};

export const canMake = (datatype: string): datatype is Datatype => datatype in makers;

function seededFeeds(inputs: readonly PlannedInput[], seed: number, i: number): Feeds {
  return new Map(
    inputs.map(({ name, datatype, shape }) => {
      const length = elementsOf(shape);
      const make = makers[datatype] as NonNullable<(typeof makers)[Datatype]>;
      return [name, { datatype, shape, data: make(seededBytes(`${seed} ${i} ${name}`, 4 * length), length) }];
    }),
  );
}

/** The same bytes for the same key: AES in counter mode over zeros. */
export function seededBytes(key: string, length: number): Buffer {
  const cipher = createCipheriv('aes-256-ctr', createHash('sha256').update(key).digest(), Buffer.alloc(16));
  return cipher.update(Buffer.alloc(length));
}

// -------------------------------------------------------------------------------------------------------------- outputs

/** The outputs of a run as 32-bit floats. */
export const numbersOf = (outputs: ReadonlyMap<string, Tensor>): Map<string, Float32Array> =>
  new Map([...outputs].map(([name, tensor]) => [name, floatsOf(tensor)]));

function floatsOf({ datatype, data }: Tensor): Float32Array {
  if (data instanceof Float32Array) return data;
  if (datatype === 'FP16') return Float32Array.from(data as Uint16Array, halfToNumber);
  return Float32Array.from(data as ArrayLike<number | bigint>, Number);
}

/** IEEE 754 binary16. */
function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}
