/** ONNX Runtime. Nothing else imports its library, and it is loaded where a model is opened only. */
import './telemetry.ts';
import type { InferenceSession, Tensor as OnnxTensor } from 'onnxruntime-node';
import { type Datatype, datatypeOfOrt, datatypes } from './datatypes.ts';
import type { EngineSession, Feeds, OpenOptions, Port, Tensor } from './engine.ts';

// Where Float16Array exists (Node 24), onnxruntime-node 1.30 takes it for the type of 16-bit tensors and then refuses them
// ("not enough space: expected 8, got 0"); without it they are Uint16Arrays.
delete (globalThis as { Float16Array?: unknown }).Float16Array;

const ort = await import('onnxruntime-node');

export interface OnnxOpenOptions extends OpenOptions {
  /** Without: what a run takes goes back to the system, and each run is slower. With, the largest run decides how much stays with the session. */
  keepsMemory?: boolean;
}

/** `open` of an execution provider. */
export const opener =
  (provider: 'cpu' | 'cuda') =>
  async (file: string, { intraOpThreads, optimized = true, keepsMemory = true }: OnnxOpenOptions): Promise<EngineSession> => {
    const session = await ort.InferenceSession.create(file, {
      executionProviders: [provider],
      intraOpNumThreads: intraOpThreads,
      interOpNumThreads: 1,
      enableCpuMemArena: keepsMemory,
      graphOptimizationLevel: optimized ? 'all' : 'disabled',
      // Its errors are thrown: it would also write a line for each to standard error.
      logSeverityLevel: 4,
    });
    const outputs = session.outputMetadata.map(portOf);
    const tensors = outputs.flatMap(({ name, datatype }) => (datatype ? [name] : []));
    return {
      signature: { inputs: session.inputMetadata.map(portOf), outputs },
      async run(inputs, names = tensors) {
        const feeds = feedsToOnnx(inputs);
        const startedAt = process.hrtime.bigint();
        const results = await session.run(feeds, names);
        const runNs = Number(process.hrtime.bigint() - startedAt);
        return { outputs: new Map(names.map((name) => [name, fromOnnx(results[name] as OnnxTensor)])), runNs };
      },
      async series(feeds, { firstFeed, runsMax, untilNs, share }) {
        const ready = feeds.map(feedsToOnnx);
        const times: bigint[] = [];
        for (let n = 0; n < runsMax && (share === null || Atomics.add(share.taken, 0, 1n) < share.total); n += 1) {
          const startedNs = process.hrtime.bigint();
          await session.run(ready[(firstFeed + n) % ready.length] as InferenceSession.FeedsType, tensors);
          const endedNs = process.hrtime.bigint();
          times.push(startedNs, endedNs);
          if (endedNs >= untilNs) break;
        }
        return BigInt64Array.from(times);
      },
      close: () => session.release(),
    };
  };

function portOf(metadata: InferenceSession.ValueMetadata): Port {
  const { name, isTensor } = metadata;
  if (!isTensor) return { name, type: 'no tensor', datatype: null, shape: null };
  return { name, type: metadata.type, datatype: datatypeOfOrt(metadata.type) ?? null, shape: metadata.shape };
}

const toOnnx = ({ datatype, shape, data }: Tensor): OnnxTensor =>
  new ort.Tensor(datatypes[datatype].ort as 'float32', data as Float32Array, shape);

const feedsToOnnx = (feeds: Feeds): Record<string, OnnxTensor> =>
  Object.fromEntries([...feeds].map(([name, tensor]) => [name, toOnnx(tensor)]));

const fromOnnx = ({ type, dims, data }: OnnxTensor): Tensor => ({
  datatype: datatypeOfOrt(type) as Datatype,
  shape: dims,
  data: data as Tensor['data'],
});
