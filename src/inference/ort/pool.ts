/** ONNX Runtime in worker threads: as many as there are permits. Tensors reach them through slots of shared memory. */
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Engine, Feed, Run, RunEnd, Signature } from '../engine.ts';
import { cancelled, type FromThread, type StagedFeed, staged, type ThreadData, type ToThread } from './messages.ts';

interface Thread {
  worker: Worker;
  /** Runs that it has been given: one that computes and one that is ready behind it, so that it never waits for the main thread. */
  given: number;
}

interface Slot {
  n: number;
  memory: SharedArrayBuffer;
  finish: (end: RunEnd) => void;
}

const givenMax = 2;
const unused = (): void => {};
const alignment = 64;
const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

export function startPool({ permits, intraOpThreads, workers }: { permits: number; intraOpThreads: number; workers: number }): Engine {
  const states = new Int32Array(new SharedArrayBuffer(4 * workers));
  const slots: Slot[] = Array.from({ length: workers }, (_, n) => ({ n, memory: new SharedArrayBuffer(0), finish: unused }));
  const free = [...slots];
  const threads = Array.from({ length: permits }, (): Thread => {
    const worker = new Worker(join(import.meta.dirname, 'thread.ts'), { workerData: { states, intraOpThreads } satisfies ThreadData });
    const thread = { worker, given: 0 };
    worker.on('message', (message: FromThread) => {
      if (message.type === 'loaded' || message.type === 'refused') return;
      const slot = slots[message.slot] as Slot;
      thread.given -= 1;
      free.push(slot);
      const { finish } = slot;
      slot.finish = unused;
      const { type: state, slot: _, ...end } = message;
      finish({ state, ...end } as RunEnd);
    });
    return thread;
  });
  const leastBusy = () => threads.reduce((a, b) => (b.given < a.given ? b : a));

  return {
    async load(key, file) {
      const loaded = threads.map(async ({ worker }): Promise<Signature> => {
        worker.postMessage({ type: 'load', key, file } satisfies ToThread);
        const [message] = (await once(worker, 'message')) as [FromThread];
        if (message.type === 'refused') throw new Error(message.message);
        return (message as Extract<FromThread, { type: 'loaded' }>).signature;
      });
      return (await Promise.all(loaded))[0] as Signature;
    },

    room() {
      if (free.length === 0) return null;
      const { given } = leastBusy();
      if (given === 0) return 'IDLE';
      return given < givenMax ? 'STAGED' : null;
    },

    start(key, feeds, outputs): Run {
      const slot = free.pop() as Slot;
      const thread = leastBusy();
      thread.given += 1;
      const { promise: ended, resolve } = Promise.withResolvers<RunEnd>();
      slot.finish = resolve;
      const sizes = feeds.map(({ pieces }) => pieces.reduce((sum, piece) => sum + piece.length, 0));
      const size = sizes.reduce((sum, bytes) => sum + aligned(bytes), 0);
      if (slot.memory.byteLength < size) {
        slot.memory = new SharedArrayBuffer(size);
        for (const { worker } of threads) worker.postMessage({ type: 'memory', slot: slot.n, memory: slot.memory } satisfies ToThread);
      }
      const stagedFeeds = stage(slot.memory, feeds, sizes);
      Atomics.store(states, slot.n, staged);
      thread.worker.postMessage({ type: 'run', slot: slot.n, key, feeds: stagedFeeds, outputs } satisfies ToThread);
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
function stage(memory: SharedArrayBuffer, feeds: readonly Feed[], sizes: readonly number[]): StagedFeed[] {
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
