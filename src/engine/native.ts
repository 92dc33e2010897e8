/**
 * ONNX Runtime in threads of our own addon (`inference-native/`). A model is one session, which any number of runs share; nothing computes on
 * the calling thread, and a run can be stopped.
 */
import './telemetry.ts';
import { createRequire } from 'node:module';
import { type Datatype, datatypeOfOrt, datatypes, elementsOf } from './datatypes.ts';
import type { EngineSession, Open, OpenOptions, Port, RunOutputs, Tensor } from './engine.ts';
import { nativeAddon, onnxruntimeLibrary } from './libraries.ts';

/** As the addon has them: the types by number, a run that was stopped without outputs. */
interface AddonPort {
  name: string;
  type: number | null;
  shape: (number | string)[];
}
interface AddonModel {
  model: unknown;
  inputs: AddonPort[];
  outputs: AddonPort[];
}
type AddonResult =
  | { stopped: 'DEADLINE' | 'CANCELLED' }
  | { stopped?: undefined; outputs: { type: number; shape: number[]; data: ArrayBuffer }[]; startedNs: number; endedNs: number };

/** `id`: of a promise, which nothing else has. */
interface AddonRuntime {
  load(id: number, file: string, intraOpThreads: number, optimized: boolean): Promise<AddonModel>;
  run(
    id: number,
    model: unknown,
    names: string[],
    types: number[],
    shapes: (readonly number[])[],
    arrays: Tensor['data'][],
    outputs: readonly string[],
    deadlineMs: number,
    aside: boolean,
  ): Promise<AddonResult>;
  cancel(id: number): void;
  unload(id: number, model: unknown): Promise<void>;
}

interface Addon {
  Runtime: new (library: string, threadsMax: number, nice: number) => AddonRuntime;
}

export interface RunLimits {
  /** From the call to the end of the run; it is stopped then. */
  deadlineMs?: number;
  signal?: AbortSignal;
}

export interface NativeSession extends EngineSession {
  /** The inputs must not change before it ends. Rejects with a `RunStopped` where it was stopped. */
  run(inputs: ReadonlyMap<string, Tensor>, outputs?: readonly string[], limits?: RunLimits): Promise<RunOutputs>;
}

export class RunStopped extends Error {}

/** The names of the element types by their number in onnx.proto (TensorProto.DataType). */
const types = [
  ...['undefined', 'float32', 'uint8', 'int8', 'uint16', 'int16', 'int32', 'int64', 'string', 'bool', 'float16', 'float64'],
  ...['uint32', 'uint64', 'complex64', 'complex128', 'bfloat16'],
];
const typeOf = (datatype: Datatype): number => types.indexOf(datatypes[datatype].ort);
const datatypeOf = (type: number): Datatype | undefined => datatypeOfOrt(String(types[type]));

/** Runs that compute at the same time. A thread is started when it is needed. */
const threadsMax = 64;

const { Runtime } = createRequire(import.meta.url)(nativeAddon) as Addon;
const runtime = new Runtime(onnxruntimeLibrary, threadsMax, 0);
let lastId = 0;
const newId = (): number => {
  lastId += 1;
  return lastId;
};

export const open = (async (file: string, { intraOpThreads, optimized = true }: OpenOptions): Promise<NativeSession> => {
  const { model, inputs, outputs } = await runtime.load(newId(), file, intraOpThreads, optimized);
  const signature = { inputs: inputs.map(portOf), outputs: outputs.map(portOf) };
  const tensors = signature.outputs.flatMap(({ name, datatype }) => (datatype ? [name] : []));
  return {
    signature,
    async run(feeds, names = tensors, { deadlineMs = Number.POSITIVE_INFINITY, signal } = {}) {
      signal?.throwIfAborted();
      const wrong = [...feeds].find(([, { shape, data }]) => data.length !== elementsOf(shape));
      if (wrong)
        throw new Error(`Input ${wrong[0]} has ${wrong[1].data.length} values, which its shape [${wrong[1].shape}] does not hold.`);
      const tensorsIn = [...feeds.values()];
      const id = newId();
      const cancel = () => runtime.cancel(id);
      signal?.addEventListener('abort', cancel, { once: true });
      const result = await runtime
        .run(
          id,
          model,
          [...feeds.keys()],
          tensorsIn.map(({ datatype }) => typeOf(datatype)),
          tensorsIn.map(({ shape }) => shape),
          tensorsIn.map(({ data }) => data),
          names,
          deadlineMs,
          false,
        )
        .finally(() => signal?.removeEventListener('abort', cancel));
      if (result.stopped === 'DEADLINE')
        throw new RunStopped(`The run did not end within ${deadlineMs} ms, its deadline, and was stopped.`);
      if (result.stopped) throw new RunStopped('The run was cancelled.');
      const { outputs: found, startedNs, endedNs } = result;
      return { outputs: new Map(found.map((output, n) => [names[n] as string, tensorOf(output)])), runNs: endedNs - startedNs };
    },
    close: () => runtime.unload(newId(), model),
  };
}) satisfies Open;

function portOf({ name, type, shape }: AddonPort): Port {
  if (type === null) return { name, type: 'no tensor', datatype: null, shape: null };
  return { name, type: types[type] ?? `type ${type}`, datatype: datatypeOf(type) ?? null, shape };
}

function tensorOf({ type, shape, data }: { type: number; shape: number[]; data: ArrayBuffer }): Tensor {
  const datatype = datatypeOf(type) as Datatype;
  return { datatype, shape, data: new datatypes[datatype].array(data) };
}
