/** A thread of the pool: one permit. It holds a session of every model and does one thing after the other. */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import type { EngineSession, Tensor } from '../../engine/engine.ts';
import { engines, servingEngine } from '../../engine/engines.ts';
import { hasOpenSizes } from '../../engine/shapes.ts';
import { maskPaths } from '../../maskPaths.ts';
import { type InputDatatype, preprocessAll } from '../../vision/preprocess.ts';
import { type Image, readEach } from '../../vision/reading.ts';
import { trialPicture, trialProblem } from '../../vision/trial.ts';
import { nowMs } from '../clock.ts';
import { type ServedSignature, servable } from '../pool.ts';
import { giveWay } from '../priority.ts';
import { openRunning } from '../runningFile.ts';
import { outputOf, type StagedFeed, tensorOf, zerosOf } from '../staging.ts';
import { type EngineThreadData, type FromEngineThread, slotStates, type ToEngineThread } from './messages.ts';

const { states, runningFile, n } = workerData as EngineThreadData;
const record = openRunning(runningFile, n);
const port = parentPort as MessagePort;
const sessions = new Map<string, EngineSession>();
const open = await engines[servingEngine].load();

giveWay();

const said = (error: unknown): string => maskPaths(String((error as Error).message)).slice(0, 1000);
const say = (message: FromEngineThread, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);

// A run gives way to the event loop before it begins: without the chain the next message would overtake it.
let last: Promise<void> = Promise.resolve();
port.on('message', (message: ToEngineThread) => {
  last = last.then(() => handle(message));
});

async function handle(message: ToEngineThread): Promise<void> {
  if (message.type === 'load') return load(message);
  if (message.type === 'warm') return warm(message);
  if (message.type === 'try') return tryPicture(message);
  if (message.type === 'unload') return unload(message);
  if (message.type === 'run') return run(message);
  for (const session of sessions.values()) await session.close();
  port.close();
}

/** While `work` runs, this model is recorded as the cause if the process dies. */
async function blaming<T>(key: string, work: () => Promise<T>): Promise<T> {
  record.begin(key);
  try {
    return await work();
  } finally {
    record.end();
  }
}

async function load({ key, file, intraOpThreads }: Extract<ToEngineThread, { type: 'load' }>): Promise<void> {
  try {
    const openIt = (keepsMemory: boolean) => blaming(key, () => open(file, { intraOpThreads, keepsMemory }));
    let session = await openIt(true);
    const { inputs, outputs } = session.signature;
    // One large request would take memory for good. Here the library cannot give it back; the native engine can (`native/pool.ts`).
    if (hasOpenSizes(inputs, outputs)) {
      await session.close();
      session = await openIt(false);
    }
    sessions.set(key, session);
    const signature: ServedSignature = { inputs: inputs.map(servable), outputs: outputs.map(servable) };
    say({ type: 'loaded', signature });
  } catch (error) {
    say({ type: 'refused', message: said(error) });
  }
}

async function warm({ key, inputs, outputs }: Extract<ToEngineThread, { type: 'warm' }>): Promise<void> {
  try {
    const zeros = inputs.map((input): [string, Tensor] => [input.name, zerosOf(input)]);
    const session = sessions.get(key) as EngineSession;
    const startedMs = nowMs();
    const { outputs: results } = await blaming(key, () => session.run(new Map(zeros), outputs));
    const runMs = nowMs() - startedMs;
    say({ type: 'warmed', runMs, outputs: [...results].map(([name, { shape }]) => ({ name, shape })) });
  } catch (error) {
    say({ type: 'refused', message: said(error) });
  }
}

async function tryPicture({ key, feed, outputs, reading }: Extract<ToEngineThread, { type: 'try' }>): Promise<void> {
  try {
    const { image } = reading;
    const session = sessions.get(key) as EngineSession;
    const picture = imagesTensor(feed, trialPicture(), [image]);
    const { outputs: results } = await blaming(key, () => session.run(new Map([[feed.name, picture]]), outputs));
    say({ type: 'tried', problem: trialProblem(reading, results) });
  } catch (error) {
    say({ type: 'refused', message: `It does not run on a picture: ${said(error)}` });
  }
}

async function unload({ key }: Extract<ToEngineThread, { type: 'unload' }>): Promise<void> {
  await sessions.get(key)?.close();
  sessions.delete(key);
  say({ type: 'unloaded' });
}

async function run({ slot, memory, key, feeds, outputs, readings }: Extract<ToEngineThread, { type: 'run' }>): Promise<void> {
  if (Atomics.compareExchange(states, slot, slotStates.staged, slotStates.running) === slotStates.cancelled)
    return say({ type: 'cancelled', slot, memory, ranMs: 0 }, [memory]);
  const startedMs = nowMs();
  try {
    const session = sessions.get(key) as EngineSession;
    const tensors = new Map(feeds.map((feed) => [feed.name, fedTensor(feed)]));
    const preparedMs = nowMs();
    const { outputs: results } = await blaming(key, () => session.run(tensors, outputs));
    const endedMs = nowMs();
    const found = readings ? readEach(readings, results) : null;
    const told = readings ? [] : [...results].map(outputOf);
    // Their memory goes to the other thread as it is.
    say({ type: 'done', slot, memory, outputs: told, found, startedMs, preparedMs, endedMs, readMs: nowMs() }, [
      memory,
      ...told.map(({ data }) => data.buffer as ArrayBuffer),
    ]);
  } catch (error) {
    say({ type: 'failed', slot, memory, message: said(error) }, [memory]);
  }
}

const fedTensor = ({ images, ...feed }: StagedFeed): Tensor => (images ? imagesTensor(feed, feed.bytes, images) : tensorOf(feed));

function imagesTensor({ datatype, shape }: Pick<StagedFeed, 'datatype' | 'shape'>, pixels: Uint8Array, images: readonly Image[]): Tensor {
  // The model was checked for it when it was loaded.
  return { datatype, shape, data: preprocessAll(pixels, images, datatype as InputDatatype) };
}
