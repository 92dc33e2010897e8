/**
 * The engines of our own addon (`inference-native/`): ONNX Runtime, on the processor or a GPU, and OpenVINO. A model is one session, which any
 * number of runs share; nothing computes on the calling thread, and a run can be stopped.
 */
import './telemetry.ts';
import { createRequire } from 'node:module';
import { type Datatype, datatypeOfOrt, datatypes, elementsOf } from './datatypes.ts';
import type { EngineSession, Feeds, OpenOptions, Port, RunOutputs, Tensor } from './engine.ts';
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
/** Of a series from the start of its first run to the end of its last. */
interface AddonTimes {
  startedNs: number;
  endedNs: number;
}
type AddonResult<T> = AddonTimes & ({ stopped: 'DEADLINE' | 'CANCELLED' } | ({ stopped?: undefined } & T));
interface AddonOutputs {
  outputs: { type: number; shape: number[]; data: ArrayBuffer }[];
}
type AddonFeed = [names: string[], types: number[], shapes: (readonly number[])[], arrays: Tensor['data'][]];
type AddonRequest = [
  id: number,
  model: unknown,
  feeds: AddonFeed[],
  outputs: readonly string[],
  deadlineMs: number,
  aside: boolean,
  keepsMemory: boolean,
];

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
  run(...request: AddonRequest): Promise<AddonResult<AddonOutputs>>;
  series(
    ...request: [...AddonRequest, firstFeed: number, runsMax: number, untilNs: bigint, taken: BigInt64Array | null, total: number]
  ): Promise<AddonResult<{ times: ArrayBuffer }>>;
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
  run(inputs: Feeds, outputs?: readonly string[], limits?: RunLimits): Promise<NativeOutputs>;
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

  async function perform<T>(
    feeds: readonly Feeds[],
    names: readonly string[],
    { deadlineMs = Number.POSITIVE_INFINITY, signal, aside = false, keepsMemory = true }: RunLimits,
    start: (...request: AddonRequest) => Promise<AddonResult<T>>,
  ): Promise<AddonTimes & T> {
    signal?.throwIfAborted();
    const id = newId();
    const request: AddonRequest = [id, model, feeds.map(feedOf), names, deadlineMs, aside, keepsMemory];
    const cancel = () => runtime.cancel(id);
    signal?.addEventListener('abort', cancel, { once: true });
    const result = await start(...request).finally(() => signal?.removeEventListener('abort', cancel));
    if (result.stopped === undefined) return result;
    const runNs = result.endedNs - result.startedNs;
    if (result.stopped === 'CANCELLED') throw new RunStopped('The run was cancelled.', runNs);
    throw new RunStopped(`The run did not end within ${deadlineMs} ms, its deadline, and was stopped.`, runNs);
  }

  return {
    signature,
    async run(inputs, names = tensors, limits = {}) {
      const { outputs, startedNs, endedNs } = await perform([inputs], names, limits, (...request) => runtime.run(...request));
      const made = new Map(outputs.map((output, n) => [names[n] as string, tensorOf(output)]));
      return { outputs: made, runNs: endedNs - startedNs, startedNs, endedNs };
    },
    async series(feeds, { firstFeed, runsMax, untilNs, share }) {
      const { times } = await perform(feeds, tensors, {}, (...request) =>
        runtime.series(...request, firstFeed, runsMax, untilNs, share?.taken ?? null, share?.total ?? 0),
      );
      return new BigInt64Array(times);
    },
    close: () => runtime.unload(newId(), model),
  };
}

function feedOf(feeds: Feeds): AddonFeed {
  const wrong = [...feeds].find(([, { shape, data }]) => data.length !== elementsOf(shape));
  if (wrong) throw new Error(`Input ${wrong[0]} has ${wrong[1].data.length} values, which its shape [${wrong[1].shape}] does not hold.`);
  const tensors = [...feeds.values()];
  return [
    [...feeds.keys()],
    tensors.map(({ datatype }) => typeOf(datatype)),
    tensors.map(({ shape }) => shape),
    tensors.map(({ data }) => data),
  ];
}

function portOf({ name, type, shape }: AddonPort): Port {
  if (type === null) return { name, type: 'no tensor', datatype: null, shape: null };
  return { name, type: types[type] ?? `type ${type}`, datatype: datatypeOf(type) ?? null, shape };
}

function tensorOf({ type, shape, data }: { type: number; shape: number[]; data: ArrayBuffer }): Tensor {
  const datatype = datatypeOf(type) as Datatype;
  return { datatype, shape, data: new datatypes[datatype].array(data) };
}
