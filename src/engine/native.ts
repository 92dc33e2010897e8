/**
 * The engines of our own addon (`inference-native/`): ONNX Runtime, on the processor or a GPU, and OpenVINO. A model is one session, which any
 * number of runs share; nothing computes on the calling thread, and a run can be stopped.
 */
import './telemetry.ts';
import { createRequire } from 'node:module';
import { type Datatype, datatypeOfOrt, datatypes, elementsOf } from './datatypes.ts';
import type { EngineSession, OpenOptions, Port, RunOutputs, Tensor } from './engine.ts';
import { findOpenvino, type GpuProvider, nativeAddon, onnxruntimeLibrary } from './libraries.ts';

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
type AddonResult = { startedNs: number; endedNs: number } & (
  | { stopped: 'DEADLINE' | 'CANCELLED' }
  | { stopped?: undefined; outputs: { type: number; shape: number[]; data: ArrayBuffer }[] }
);

/** `id`: of a promise, which nothing else has. */
interface AddonRuntime {
  load(
    id: number,
    engine: 'onnxruntime' | 'openvino',
    library: string,
    key: string,
    file: string,
    intraOpThreads: number,
    runs: number,
    optimized: boolean,
    provider: 'cpu' | GpuProvider,
  ): Promise<AddonModel>;
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
    keepsMemory: boolean,
  ): Promise<AddonResult>;
  cancel(id: number): void;
  unload(id: number, model: unknown): Promise<void>;
  close(): void;
}

interface Addon {
  loadThreadsMax: number;
  Runtime: new (threadsMax: number, nice: number, recordsFile: string) => AddonRuntime;
}

export interface RunLimits {
  /** From the call to the end of the run; it is stopped then. */
  deadlineMs?: number;
  signal?: AbortSignal;
  /** On the threads that load models, so that it does not keep another run waiting. */
  aside?: boolean;
  /** Without: it frees at its end what it takes, with ONNX Runtime, and copies its outputs. With, the next run is faster, and the memory stays with the model. */
  keepsMemory?: boolean;
}

export interface NativeOutputs extends RunOutputs {
  /** Of `process.hrtime`. */
  startedNs: number;
  endedNs: number;
}

export interface NativeSession extends EngineSession {
  /** The inputs must not change before it ends. Rejects with a `RunStopped` where it was stopped. */
  run(inputs: ReadonlyMap<string, Tensor>, outputs?: readonly string[], limits?: RunLimits): Promise<NativeOutputs>;
}

/** The providers of ONNX Runtime; OpenVINO is a library of its own. */
const providers = {
  ONNXRUNTIME_NATIVE: 'cpu',
  ONNXRUNTIME_NATIVE_CUDA: 'cuda',
  ONNXRUNTIME_NATIVE_TENSORRT: 'tensorrt',
} as const;
export type NativeEngine = keyof typeof providers | 'OPENVINO';

export interface NativeOpenOptions extends OpenOptions {
  engine: NativeEngine;
  /** Of the model, for the file of records. */
  key?: string;
  /** Runs that OpenVINO computes at the same time, each with its threads; others wait. ONNX Runtime computes all that the runtime begins. */
  runs?: number;
}

export interface RuntimeOptions {
  /** Runs that compute at the same time. A thread is started when it is needed. */
  threadsMax: number;
  /** By how much less than this thread they may have of the processor. */
  nice?: number;
  /** See `inference/runningFile.ts`: with a record for each thread, and for each of the `loadThreadsMax`. */
  runningFile?: string;
}

export interface NativeRuntime {
  open(file: string, options: NativeOpenOptions): Promise<NativeSession>;
  /** Ends its threads. Every run has to have ended. */
  close(): void;
}

export class RunStopped extends Error {
  /** For how long it had computed; 0 where it had not begun. */
  readonly runNs: number;

  constructor(message: string, runNs: number) {
    super(message);
    this.runNs = runNs;
  }
}

/** The names of the element types by their number in onnx.proto (TensorProto.DataType). */
const types = [
  ...['undefined', 'float32', 'uint8', 'int8', 'uint16', 'int16', 'int32', 'int64', 'string', 'bool', 'float16', 'float64'],
  ...['uint32', 'uint64', 'complex64', 'complex128', 'bfloat16'],
];
const typeOf = (datatype: Datatype): number => types.indexOf(datatypes[datatype].ort);
const datatypeOf = (type: number): Datatype | undefined => datatypeOfOrt(String(types[type]));

const addon = createRequire(import.meta.url)(nativeAddon) as Addon;
/** Models of one runtime that are loaded at the same time. */
export const { loadThreadsMax } = addon;

export function startRuntime({ threadsMax, nice = 0, runningFile = '' }: RuntimeOptions): NativeRuntime {
  const runtime = new addon.Runtime(threadsMax, nice, runningFile);
  return { open: (file, options) => openIn(runtime, file, options), close: () => runtime.close() };
}

const shared = startRuntime({ threadsMax: 64 });

/** `open` of an engine. */
export const nativeOpener =
  (engine: NativeEngine) =>
  (file: string, options: OpenOptions): Promise<NativeSession> =>
    shared.open(file, { ...options, engine });

let lastId = 0;
const newId = (): number => {
  lastId += 1;
  return lastId;
};

async function openIn(
  runtime: AddonRuntime,
  file: string,
  { engine, intraOpThreads, optimized = true, key = '', runs = 1 }: NativeOpenOptions,
): Promise<NativeSession> {
  const [name, library, provider] =
    engine === 'OPENVINO'
      ? (['openvino', findOpenvino()?.file ?? '', 'cpu'] as const)
      : (['onnxruntime', onnxruntimeLibrary, providers[engine]] as const);
  const { model, inputs, outputs } = await runtime.load(newId(), name, library, key, file, intraOpThreads, runs, optimized, provider);
  const signature = { inputs: inputs.map(portOf), outputs: outputs.map(portOf) };
  const tensors = signature.outputs.flatMap(({ name, datatype }) => (datatype ? [name] : []));
  return {
    signature,
    async run(feeds, names = tensors, { deadlineMs = Number.POSITIVE_INFINITY, signal, aside = false, keepsMemory = true } = {}) {
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
          aside,
          keepsMemory,
        )
        .finally(() => signal?.removeEventListener('abort', cancel));
      const { startedNs, endedNs } = result;
      const runNs = endedNs - startedNs;
      if (result.stopped === 'DEADLINE')
        throw new RunStopped(`The run did not end within ${deadlineMs} ms, its deadline, and was stopped.`, runNs);
      if (result.stopped) throw new RunStopped('The run was cancelled.', runNs);
      const made = new Map(result.outputs.map((output, n) => [names[n] as string, tensorOf(output)]));
      return { outputs: made, runNs, startedNs, endedNs };
    },
    close: () => runtime.unload(newId(), model),
  };
}

function portOf({ name, type, shape }: AddonPort): Port {
  if (type === null) return { name, type: 'no tensor', datatype: null, shape: null };
  return { name, type: types[type] ?? `type ${type}`, datatype: datatypeOf(type) ?? null, shape };
}

function tensorOf({ type, shape, data }: { type: number; shape: number[]; data: ArrayBuffer }): Tensor {
  const datatype = datatypeOf(type) as Datatype;
  return { datatype, shape, data: new datatypes[datatype].array(data) };
}
