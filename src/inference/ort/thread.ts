/** A thread of the pool: one permit. It holds a session of every model and does one thing after the other. */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { InferenceSession, type OnnxTensor, type Session, Tensor } from '../../benchmark/runtime.ts';
import { maskPaths } from '../../jobs/maskPaths.ts';
import { nowMs } from '../clock.ts';
import { type Datatype, datatypeOfOrt, datatypes, elementsOf } from '../datatypes.ts';
import type { Output, Port, Signature } from '../engine.ts';
import { preprocess } from '../preprocess.ts';
import { openRunning } from '../running.ts';
import { cancelled, type FromThread, running as runs, type StagedFeed, staged, type ThreadData, type ToThread } from './messages.ts';

const { states, runningFile, n } = workerData as ThreadData;
const running = openRunning(runningFile, n);
const port = parentPort as MessagePort;
const sessions = new Map<string, Session>();

const said = (error: unknown): string => maskPaths(String((error as Error).message)).slice(0, 1000);
const say = (message: FromThread, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);

// A run gives way to the event loop before it begins: without the chain the next message would overtake it.
let last: Promise<void> = Promise.resolve();
port.on('message', (message: ToThread) => {
  last = last.then(() => handle(message));
});

async function handle(message: ToThread): Promise<void> {
  if (message.type === 'load') return load(message);
  if (message.type === 'warm') return warm(message);
  if (message.type === 'unload') return unload(message);
  if (message.type === 'run') return run(message);
  for (const session of sessions.values()) await session.release();
  port.close();
}

async function load({ key, file, intraOpThreads }: Extract<ToThread, { type: 'load' }>): Promise<void> {
  running.begin(key);
  try {
    const session = await InferenceSession.create(file, {
      executionProviders: ['cpu'],
      intraOpNumThreads: intraOpThreads,
      interOpNumThreads: 1,
      // What a client's tensors make fail is told to that client: the engine would write a line for each to standard error.
      logSeverityLevel: 4,
    });
    const signature: Signature = { inputs: session.inputMetadata.map(portOf), outputs: session.outputMetadata.map(portOf) };
    sessions.set(key, session);
    say({ type: 'loaded', signature });
  } catch (error) {
    say({ type: 'refused', message: said(error) });
  }
  running.end();
}

async function warm({ key, inputs, outputs }: Extract<ToThread, { type: 'warm' }>): Promise<void> {
  try {
    const bytes = inputs.map(({ datatype, shape }) => elementsOf(shape) * datatypes[datatype].bytes);
    const feeds = inputs.map((input, i): [string, OnnxTensor] => [
      input.name,
      tensorOf({ ...input, offset: 0 }, new ArrayBuffer(bytes[i] as number)),
    ]);
    running.begin(key);
    const startedMs = nowMs();
    await (sessions.get(key) as Session).run(Object.fromEntries(feeds), [...outputs]);
    say({ type: 'warmed', runMs: nowMs() - startedMs });
  } catch (error) {
    say({ type: 'refused', message: said(error) });
  }
  running.end();
}

async function unload({ key }: Extract<ToThread, { type: 'unload' }>): Promise<void> {
  await sessions.get(key)?.release();
  sessions.delete(key);
  say({ type: 'unloaded' });
}

function portOf(metadata: Session.ValueMetadata): Port {
  const datatype = metadata.isTensor ? datatypeOfOrt(metadata.type) : undefined;
  if (!metadata.isTensor || !datatype) {
    throw new Error(`${metadata.name} is ${metadata.isTensor ? `of type ${metadata.type}` : 'no tensor'}, which cannot be served.`);
  }
  return { name: metadata.name, datatype, shape: metadata.shape };
}

async function run({ slot, memory, key, feeds, outputs }: Extract<ToThread, { type: 'run' }>): Promise<void> {
  if (Atomics.compareExchange(states, slot, staged, runs) === cancelled) return say({ type: 'cancelled', slot, memory }, [memory]);
  const startedMs = nowMs();
  try {
    const session = sessions.get(key) as Session;
    const tensors = Object.fromEntries(feeds.map((feed) => [feed.name, tensorOf(feed, memory)]));
    const preparedMs = nowMs();
    running.begin(key);
    const results = await session.run(tensors, [...outputs]);
    const endedMs = nowMs();
    const found = outputs.map((name) => outputOf(name, results[name] as OnnxTensor));
    // Their memory goes to the other thread as it is.
    say({ type: 'done', slot, memory, outputs: found, startedMs, preparedMs, endedMs }, [
      memory,
      ...found.map(({ data }) => data.buffer as ArrayBuffer),
    ]);
  } catch (error) {
    say({ type: 'failed', slot, memory, message: said(error) }, [memory]);
  }
  running.end();
}

function tensorOf({ datatype, shape, offset, image }: StagedFeed, memory: ArrayBuffer): OnnxTensor {
  if (image) {
    const pixels = new Uint8Array(memory, offset, 3 * image.width * image.height);
    return new Tensor('float32', preprocess(pixels, image.width, image.height, image.preprocess), shape);
  }
  const { ort, array } = datatypes[datatype];
  return new Tensor(ort as 'float32', new array(memory, offset, elementsOf(shape)) as Float32Array, shape);
}

function outputOf(name: string, { type, dims, data }: OnnxTensor): Output {
  const { buffer, byteOffset, byteLength } = data as Uint8Array;
  return { name, datatype: datatypeOfOrt(type) as Datatype, shape: dims, data: new Uint8Array(buffer, byteOffset, byteLength) };
}
