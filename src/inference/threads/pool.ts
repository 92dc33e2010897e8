/**
 * Sessions of the serving engine in worker threads: as many as there are permits. The memory of a slot goes to a thread with a run and comes
 * back with its end: 602 KB are copied into it in 0.10 ms, into shared memory in 0.46 ms.
 */
// Before any thread is started: it sets the environment that they get.
import '../../engine/telemetry.ts';
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Feed, Pool, Run, RunEnd, Signature } from '../pool.ts';
import { cancelled, type FromThread, type StagedFeed, staged, type ThreadData, type Told, type ToThread } from './messages.ts';

interface Thread {
  worker: Worker;
  /** Runs that it has been given: one that computes and one that is ready behind it, so that it never waits for the main thread. */
  given: number;
  /** Who waits for the answer to `load`, `warm` or `unload`. */
  tell: (told: Told) => void;
}

interface Slot {
  n: number;
  /** Of a thread while it has the run. */
  memory: ArrayBuffer;
  finish: (end: RunEnd) => void;
}

const givenMax = 2;
/** Of a slot between two runs; a larger one is freed. An input of 3 × 640 × 640 has 5 MB. */
const keptBytesMax = 8 * 2 ** 20;
const unused = (): void => {};
const tellsOfRun = (message: FromThread): message is Exclude<FromThread, Told> => 'slot' in message;
const alignment = 64;
const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

interface PoolSettings {
  permits: number;
  workers: number;
  /** See `running.ts`. */
  runningFile: string;
}

export function startPool({ permits, workers, runningFile }: PoolSettings): Pool {
  const states = new Int32Array(new SharedArrayBuffer(4 * workers));
  const slots: Slot[] = Array.from({ length: workers }, (_, n) => ({ n, memory: new ArrayBuffer(0), finish: unused }));
  const free = [...slots];
  const threads = Array.from({ length: permits }, (_, n): Thread => {
    const workerData: ThreadData = { states, runningFile, n };
    const worker = new Worker(join(import.meta.dirname, 'thread.ts'), { workerData });
    const thread: Thread = { worker, given: 0, tell: unused };
    worker.on('message', (message: FromThread) => {
      if (!tellsOfRun(message)) return thread.tell(message);
      const slot = slots[message.slot] as Slot;
      thread.given -= 1;
      free.push(slot);
      const { finish } = slot;
      slot.finish = unused;
      const { type: state, slot: _, memory, ...end } = message;
      slot.memory = memory.byteLength > keptBytesMax ? memory.transfer(0) : memory;
      finish({ state, ...end } as RunEnd);
    });
    return thread;
  });
  const leastBusy = () => threads.reduce((a, b) => (b.given < a.given ? b : a));

  /** One question at a time: the next waits for the answers. */
  let asked: Promise<unknown> = Promise.resolve();
  const askAll = <T extends Told['type']>(message: ToThread): Promise<Extract<Told, { type: T }>[]> => {
    const answers = asked.then(async () => {
      const all: Extract<Told, { type: T }>[] = [];
      for (const thread of threads) {
        const told = await new Promise<Told>((resolve) => {
          thread.tell = resolve;
          thread.worker.postMessage(message);
        });
        if (told.type === 'refused') throw new Error(told.message);
        all.push(told as Extract<Told, { type: T }>);
      }
      return all;
    });
    asked = answers.catch(unused);
    return answers;
  };

  return {
    load: async (key, file, intraOpThreads) =>
      ((await askAll<'loaded'>({ type: 'load', key, file, intraOpThreads }))[0] as { signature: Signature }).signature,
    warm: (key, inputs, outputs) => askAll<'warmed'>({ type: 'warm', key, inputs, outputs }),
    unload: async (key) => void (await askAll<'unloaded'>({ type: 'unload', key })),

    room() {
      if (free.length === 0) return null;
      const { given } = leastBusy();
      if (given === 0) return 'IDLE';
      return given < givenMax ? 'STAGED' : null;
    },

    start(key, feeds, outputs, reading): Run {
      const slot = free.pop() as Slot;
      const thread = leastBusy();
      thread.given += 1;
      const { promise: ended, resolve } = Promise.withResolvers<RunEnd>();
      slot.finish = resolve;
      const sizes = feeds.map(({ pieces }) => pieces.reduce((sum, piece) => sum + piece.length, 0));
      const size = sizes.reduce((sum, bytes) => sum + aligned(bytes), 0);
      if (slot.memory.byteLength < size) slot.memory = new ArrayBuffer(size);
      const { memory } = slot;
      const stagedFeeds = stage(memory, feeds, sizes);
      Atomics.store(states, slot.n, staged);
      const message: ToThread = { type: 'run', slot: slot.n, memory, key, feeds: stagedFeeds, outputs, reading };
      thread.worker.postMessage(message, [memory]);
      return {
        ended,
        cancel() {
          // The slot may belong to another run by now.
          if (slot.finish === resolve) Atomics.compareExchange(states, slot.n, staged, cancelled);
        },
      };
    },

    async close() {
      await Promise.all(
        threads.map(async ({ worker }) => {
          const exited = once(worker, 'exit');
          worker.postMessage({ type: 'close' } satisfies ToThread);
          await exited;
        }),
      );
    },
  };
}

/** Copies the feeds of these sizes into a slot's memory. */
function stage(memory: ArrayBuffer, feeds: readonly Feed[], sizes: readonly number[]): StagedFeed[] {
  const target = new Uint8Array(memory);
  let from = 0;
  return feeds.map(({ pieces, ...feed }, i) => {
    const offset = from;
    let at = offset;
    for (const piece of pieces) {
      target.set(piece, at);
      at += piece.length;
    }
    from += aligned(sizes[i] as number);
    return { ...feed, offset };
  });
}
