/**
 * Sessions of the serving engine in worker threads: as many as there are permits, and at least two, so that one can take the runs while the
 * other loads a model. The memory of a slot goes to a thread with a run and comes back with its end: 602 KB are copied into it in 0.10 ms,
 * into shared memory in 0.46 ms.
 */
// Before any thread is started: it sets the environment that they get.
import '../../engine/telemetry.ts';
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { whenIdle } from '../idle.ts';
import {
  givenMax,
  type LoadedModel,
  type ModelFile,
  type Pool,
  type PoolSettings,
  type Run,
  type RunEnd,
  type Stuck,
  warmUpRounds,
} from '../pool.ts';
import { createRunningFile } from '../runningFile.ts';
import { keptOf, stage } from '../staging.ts';
import { type EngineReply, type EngineThreadData, type FromEngineThread, slotStates, type ToEngineThread } from './messages.ts';

interface Thread {
  worker: Worker;
  /** Whether it takes runs. */
  serving: boolean;
  /** The run that computes, and one that is ready behind it, so that the thread never waits for the main thread. */
  given: Slot[];
  /** The model that it loads or warms up. */
  loading: string | null;
  /** For how long it has been at the same run, or at loading the same model. */
  busySeconds: number;
  /** Called when it has no run. */
  idle: () => void;
  /** Called with the answer to `load`, `warm`, `try` or `unload`. */
  tell: (told: EngineReply) => void;
}

interface Slot {
  n: number;
  /** Of a thread while it has the run. */
  memory: ArrayBuffer;
  key: string;
  secondsMax: number;
  finish: (end: RunEnd) => void;
}

/** A run that is overdue by so much does not end. */
const overdueSecondsMax = 10;
const unused = (): void => {};
const tellsOfRun = (message: FromEngineThread): message is Exclude<FromEngineThread, EngineReply> => 'slot' in message;

export function startPool({ permits, workers, folder, loadSecondsMax }: PoolSettings): Pool {
  const copies = Math.max(2, permits);
  const runningFile = createRunningFile(folder, copies);
  const states = new Int32Array(new SharedArrayBuffer(4 * workers));
  const slots = Array.from(
    { length: workers },
    (_, n): Slot => ({ n, memory: new ArrayBuffer(0), key: '', secondsMax: 0, finish: unused }),
  );
  const free = [...slots];
  const used = whenIdle(() => {
    for (const slot of free) slot.memory = slot.memory.transfer(0);
  });
  let roomAgain = unused;
  const threads = Array.from({ length: copies }, (_, n): Thread => {
    const workerData: EngineThreadData = { states, runningFile, n };
    const worker = new Worker(join(import.meta.dirname, 'thread.ts'), { workerData });
    const thread: Thread = { worker, serving: n < permits, given: [], loading: null, busySeconds: 0, idle: unused, tell: unused };
    worker.on('message', (message: FromEngineThread) => {
      if (!tellsOfRun(message)) return thread.tell(message);
      const slot = slots[message.slot] as Slot;
      thread.given.shift();
      thread.busySeconds = 0;
      if (thread.given.length === 0) thread.idle();
      free.push(slot);
      const { finish } = slot;
      slot.finish = unused;
      const { type: state, slot: _, memory, ...end } = message;
      slot.memory = keptOf(memory);
      used();
      finish({ state, ...end } as RunEnd);
    });
    return thread;
  });

  const isOverdue = ({ given: [slot], busySeconds }: Thread): boolean => slot !== undefined && busySeconds > slot.secondsMax;
  const usable = (): Thread[] => threads.filter((thread) => thread.serving && !isOverdue(thread));
  const leastBusy = (): Thread | undefined =>
    usable().reduce<Thread | undefined>((a, b) => (a && a.given.length <= b.given.length ? a : b), undefined);

  const { promise: stuck, resolve: giveUp } = Promise.withResolvers<Stuck>();
  // Counted, not read from a clock: while the whole process is stopped nothing is late.
  const stuckTimer = setInterval(() => {
    for (const thread of threads) {
      const { given, loading } = thread;
      const [slot] = given;
      thread.busySeconds += 1;
      if (loading !== null && thread.busySeconds > loadSecondsMax) {
        giveUp({ key: loading, message: `It did not load and warm up within ${loadSecondsMax} s.` });
      } else if (slot && thread.busySeconds > slot.secondsMax + overdueSecondsMax) {
        giveUp({ key: slot.key, message: `A run did not end within ${slot.secondsMax + overdueSecondsMax} s.` });
      }
    }
  }, 1000);
  stuckTimer.unref();

  const ask = async <T extends EngineReply['type']>(
    thread: Thread,
    message: ToEngineThread,
  ): Promise<Extract<EngineReply, { type: T }>> => {
    const told = await new Promise<EngineReply>((resolve) => {
      thread.tell = resolve;
      thread.worker.postMessage(message);
    });
    if (told.type === 'refused') throw new Error(told.message);
    return told as Extract<EngineReply, { type: T }>;
  };

  /** Models come and go one after the other. */
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const done = last.then(work);
    last = done.catch(unused);
    return done;
  };

  /** Takes a thread out of the service for `work`. With one permit the second thread takes its place for good, and it becomes the spare one. */
  async function withoutRuns<T>(thread: Thread, work: () => Promise<T>): Promise<T> {
    const { serving } = thread;
    const spare = threads.find((other) => other !== thread && !other.serving);
    if (serving && spare) spare.serving = true;
    thread.serving = false;
    roomAgain();
    if (thread.given.length > 0) await new Promise<void>((resolve) => (thread.idle = resolve));
    try {
      return await work();
    } finally {
      thread.idle = unused;
      thread.serving = serving && !spare;
      roomAgain();
    }
  }

  const loadOn = (thread: Thread, { key, file, intraOpThreads, warmUps, trial }: ModelFile): Promise<LoadedModel> =>
    withoutRuns(thread, async () => {
      Object.assign(thread, { loading: key, busySeconds: 0 });
      try {
        const { signature } = await ask<'loaded'>(thread, { type: 'load', key, file, intraOpThreads });
        const outputs = signature.outputs.map(({ name }) => name);
        const runs: LoadedModel['runs'] = [];
        for (const { rows, inputs } of warmUps(signature)) {
          for (let round = 0; round < warmUpRounds; round += 1) {
            const warmed = await ask<'warmed'>(thread, { type: 'warm', key, inputs, outputs }).catch((error: Error) => {
              throw new Error(`It does not run: ${error.message}`);
            });
            if (round > 0) runs.push({ rows, ...warmed });
          }
        }
        const predict = trial(signature);
        if (predict) {
          const { problem } = await ask<'tried'>(thread, { type: 'try', key, ...predict });
          if (problem !== null) throw new Error(`predict cannot serve it. ${problem}`);
        }
        return { signature, runs };
      } finally {
        thread.loading = null;
      }
    });

  return {
    copies,

    load: (model) =>
      inTurn(async () => {
        const loaded: LoadedModel[] = [];
        // The spare one first: then it can take the place of the other.
        for (const thread of [...threads].sort((a, b) => Number(a.serving) - Number(b.serving))) loaded.push(await loadOn(thread, model));
        return { signature: (loaded[0] as LoadedModel).signature, runs: loaded.flatMap(({ runs }) => runs) };
      }),

    unload: (key) =>
      inTurn(async () => {
        for (const thread of threads) await ask<'unloaded'>(thread, { type: 'unload', key });
      }),

    room() {
      const thread = leastBusy();
      if (free.length === 0 || !thread) return null;
      if (thread.given.length === 0) return 'IDLE';
      return thread.given.length < givenMax ? 'STAGED' : null;
    },

    onRoom(listener) {
      roomAgain = listener;
    },

    start(key, feeds, outputs, msMax, readings): Run {
      const slot = free.pop() as Slot;
      const thread = leastBusy() as Thread;
      if (thread.given.length === 0) thread.busySeconds = 0;
      thread.given.push(slot);
      const { promise: ended, resolve } = Promise.withResolvers<RunEnd>();
      Object.assign(slot, { key, secondsMax: Math.ceil(msMax / 1000), finish: resolve });
      const { memory, feeds: staged, copiedBytes } = stage(feeds, slot.memory);
      slot.memory = memory;
      Atomics.store(states, slot.n, slotStates.staged);
      const message: ToEngineThread = { type: 'run', slot: slot.n, memory, key, feeds: staged, outputs, readings };
      thread.worker.postMessage(message, [memory]);
      return {
        copiedBytes,
        ended,
        cancel() {
          // The slot may belong to another run by now.
          if (slot.finish === resolve) Atomics.compareExchange(states, slot.n, slotStates.staged, slotStates.cancelled);
        },
      };
    },

    overdue: () => threads.filter((thread) => thread.serving && isOverdue(thread)).length,
    stalled: () => usable().length === 0,
    stuck,

    async close() {
      clearInterval(stuckTimer);
      await Promise.all(
        threads.map(async ({ worker }) => {
          const exited = once(worker, 'exit');
          worker.postMessage({ type: 'close' } satisfies ToEngineThread);
          await exited;
        }),
      );
    },
  };
}
