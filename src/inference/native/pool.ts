/**
 * The pool on the native runtime, with ONNX Runtime and OpenVINO: one session of each model, which the runtime's own threads share; as many compute as there are permits.
 * Models load and warm up on other threads of the runtime, two at a time, so that no run waits for them. Images become tensors, and outputs
 * are read, in JavaScript threads.
 */
import { join } from 'node:path';
import { tensorBytesOf } from '../../engine/datatypes.ts';
import type { Tensor } from '../../engine/engine.ts';
import { maskPaths } from '../../maskPaths.ts';
import { nowMs } from '../clock.ts';
import { whenIdle } from '../idle.ts';
import {
  type Feed,
  givenMax,
  type LoadedModel,
  type ModelFile,
  type Pool,
  type PoolSettings,
  type RunEnd,
  type Stuck,
  servable,
  warmUpRounds,
} from '../pool.ts';
import { niceOfRuns } from '../priority.ts';
import { createRunningFile } from '../runningFile.ts';
import { keptOf, outputOf, stage, stagedInPlace, tensorOf, zerosOf } from '../staging.ts';
import { startTaskThreads } from '../taskThreads.ts';
import type { VisionTasks } from './vision.thread.ts';

/** Between dispatch and its end. */
interface UnderWay {
  key: string;
  /** For how long. */
  seconds: number;
  /** Its deadline, or the time of its stop. */
  secondsMax: number;
}

/** A run that continues for so long after its stop is in a kernel that does not end. */
const overdueSecondsMax = 5;
const unused = (): void => {};
const bytesOf = (tensors: readonly Pick<Feed, 'datatype' | 'shape'>[]): number =>
  tensors.reduce((sum, tensor) => sum + tensorBytesOf(tensor), 0);
const said = (error: unknown): string => maskPaths(String((error as Error).message)).slice(0, 1000);

export async function startNativePool({ permits, workers, folder, loadSecondsMax }: PoolSettings): Promise<Pool> {
  const { loadThreadsMax, RunStopped, startRuntime } = await import('../../engine/native.ts');
  const runningFile = createRunningFile(folder, permits + loadThreadsMax);
  const runtime = startRuntime({ threadsMax: permits, nice: niceOfRuns, runningFile });
  const vision = startTaskThreads<VisionTasks>(join(import.meta.dirname, 'vision.thread.ts'), permits);
  type Session = Awaited<ReturnType<typeof runtime.open>>;
  const sessions = new Map<string, Session>();
  /** Most bytes of inputs that each model was warmed up with. */
  const warmBytes = new Map<string, number>();
  const free = Array.from({ length: workers }, () => new ArrayBuffer(0));
  const underWay = new Set<UnderWay>();
  /** For how many seconds each of these models has been loaded. */
  const loading = new Map<string, number>();
  /** Loads and unloads that have not ended. */
  const changes = new Set<Promise<unknown>>();
  const used = whenIdle(() => {
    for (const [n, memory] of free.entries()) free[n] = memory.transfer(0);
  });
  let idle = unused;
  const tooLong = `It did not load and warm up within ${loadSecondsMax} s.`;

  const isOverdue = ({ seconds, secondsMax }: UnderWay): boolean => seconds > secondsMax;
  const overdue = (): number => [...underWay].filter(isOverdue).length;

  const { promise: stuck, resolve: giveUp } = Promise.withResolvers<Stuck>();
  // Counted, not read from a clock: while the whole process is stopped nothing is late.
  const stuckTimer = setInterval(() => {
    for (const run of underWay) {
      run.seconds += 1;
      if (run.seconds > run.secondsMax + overdueSecondsMax) {
        giveUp({ key: run.key, message: `A run did not end within ${overdueSecondsMax} s after its stop.` });
      }
    }
    for (const [key, seconds] of loading) {
      loading.set(key, seconds + 1);
      if (seconds >= loadSecondsMax + overdueSecondsMax) giveUp({ key, message: tooLong });
    }
  }, 1000);
  stuckTimer.unref();

  const untilEnded = <T>(change: Promise<T>): Promise<T> => {
    const ended = change.finally(() => changes.delete(ended));
    changes.add(ended);
    return ended;
  };

  async function load({ key, file, engine: asked, intraOpThreads, warmUps, trial }: ModelFile): Promise<LoadedModel> {
    loading.set(key, 0);
    const untilMs = performance.now() + 1000 * loadSecondsMax;
    const engine = asked === 'AUTO' ? 'ONNXRUNTIME_NATIVE' : asked;
    const session = await runtime.open(file, { engine, intraOpThreads, key, runs: permits });
    sessions.set(key, session);
    const signature = { inputs: session.signature.inputs.map(servable), outputs: session.signature.outputs.map(servable) };
    const names = signature.outputs.map(({ name }) => name);
    const runAside = (inputs: Map<string, Tensor>, outputs: readonly string[], refusal: string) =>
      session.run(inputs, outputs, { aside: true, deadlineMs: untilMs - performance.now() }).catch((error) => {
        throw new Error(error instanceof RunStopped ? tooLong : `${refusal}: ${error.message}`);
      });
    const runs: LoadedModel['runs'] = [];
    for (const { rows, inputs } of warmUps(signature)) {
      warmBytes.set(key, Math.max(warmBytes.get(key) ?? 0, bytesOf(inputs)));
      const zeros = new Map(inputs.map((input): [string, Tensor] => [input.name, zerosOf(input)]));
      for (let round = 0; round < warmUpRounds; round += 1) {
        const { outputs, runNs } = await runAside(zeros, names, 'It does not run');
        const shapes = [...outputs].map(([name, { shape }]) => ({ name, shape }));
        if (round > 0) runs.push({ rows, runMs: runNs / 1e6, outputs: shapes });
      }
    }
    const predict = trial(signature);
    if (predict) {
      const { feed, outputs: wanted, reading } = predict;
      const picture = await vision.ask('picture', { datatype: feed.datatype, shape: feed.shape, images: [reading.image] });
      const { outputs } = await runAside(new Map([[feed.name, picture]]), wanted, 'It does not run on a picture');
      const problem = await vision.ask('judge', { reading, outputs });
      if (problem !== null) throw new Error(`predict cannot serve it. ${problem}`);
    }
    return { signature, runs };
  }

  return {
    copies: 1,

    load: (model) => untilEnded(load(model).finally(() => loading.delete(model.key))),

    async unload(key) {
      const session = sessions.get(key);
      sessions.delete(key);
      warmBytes.delete(key);
      if (session) await untilEnded(session.close());
    },

    room() {
      const late = overdue();
      const usable = permits - late;
      const given = underWay.size - late;
      if (free.length === 0 || given >= givenMax * usable) return null;
      return given < usable ? 'IDLE' : 'STAGED';
    },

    // There is always room again when a run has ended, and only then.
    onRoom: unused,

    start(key, feeds, outputs, msMax, readings) {
      const session = sessions.get(key) as Session;
      const slot = free.pop() as ArrayBuffer;
      const { feeds: staged, copiedBytes, memory } = stagedInPlace(feeds, slot) ?? stage(feeds, slot);
      let kept = memory;
      const run: UnderWay = { key, seconds: 0, secondsMax: Math.ceil(msMax / 1000) };
      underWay.add(run);
      const controller = new AbortController();
      const { signal } = controller;

      async function compute(): Promise<RunEnd> {
        try {
          const tensors = new Map<string, Tensor>();
          let tookMs = 0;
          for (const { images, ...feed } of staged) {
            if (images) {
              const { name, ...asked } = feed;
              kept = new ArrayBuffer(0);
              const prepared = await vision.ask('prepare', { ...asked, images, memory }, [memory]);
              tensors.set(name, prepared.tensor);
              ({ memory: kept, tookMs } = prepared);
            } else {
              tensors.set(feed.name, tensorOf(feed));
            }
          }
          if (signal.aborted) return { state: 'cancelled', ranMs: 0 };
          const keepsMemory = bytesOf(feeds) <= (warmBytes.get(key) ?? 0);
          const result = await session.run(tensors, outputs, { deadlineMs: msMax, signal, keepsMemory });
          const [preparedMs, endedMs] = [result.startedNs / 1e6, result.endedNs / 1e6];
          const found = readings ? await vision.ask('read', { readings, outputs: result.outputs }) : null;
          return {
            state: 'done',
            outputs: readings ? [] : [...result.outputs].map(outputOf),
            found,
            // The tensor of images may be there before a permit is free.
            startedMs: preparedMs - tookMs,
            preparedMs,
            endedMs,
            readMs: readings ? nowMs() : endedMs,
          };
        } catch (error) {
          if (error instanceof RunStopped) return { state: 'cancelled', ranMs: error.runNs / 1e6 };
          return { state: 'failed', message: said(error) };
        }
      }
      const ended = compute().then((end) => {
        underWay.delete(run);
        free.push(keptOf(kept));
        used();
        if (underWay.size === 0) idle();
        return end;
      });
      return {
        copiedBytes,
        ended,
        cancel() {
          controller.abort();
          run.secondsMax = Math.min(run.secondsMax, run.seconds);
        },
      };
    },

    overdue: () => Math.min(overdue(), permits),
    stalled: () => overdue() >= permits,
    stuck,

    async close() {
      clearInterval(stuckTimer);
      if (underWay.size > 0) await new Promise<void>((resolve) => (idle = resolve));
      await Promise.allSettled(changes);
      runtime.close();
      await vision.close();
    },
  };
}
