/**
 * Copies of a model that compute at the same time: one on the calling thread, each other on a thread of its own with a session of its own. They
 * begin a block together, and their times count from its one start.
 */
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { EngineSession, Feeds } from '../engine/engine.ts';
import type { EngineName } from '../engine/engines.ts';
import type { PlannedInput, Refused } from './inputs.ts';

/** Places in the memory that the instances of a cell share. */
export const shared = { generation: 0, taken: 1, startNs: 2 } as const;

export interface InstanceData {
  shared: BigInt64Array;
  engine: EngineName;
  file: string;
  intraOpThreads: number;
  inputs: readonly PlannedInput[];
  probe: string | null;
  seed: number;
  feeds: number;
}

/** What one instance does in a block. It ends at the first limit. */
export interface StreamAsked {
  seconds: number;
  samplesMax: number;
  /** OFFLINE: how many inferences the instances share. Null: each has a stream of its own. */
  total: number | null;
}

/** In nanoseconds: how long each inference took, and when it ended, counted from the start of the block. */
export interface Streamed {
  latencyNs: Float64Array;
  endNs: Float64Array;
}

export type ToInstance = { do: 'warm'; until: bigint } | { do: 'block'; after: bigint; asked: StreamAsked } | { do: 'close' };
export type FromInstance = 'loaded' | 'warm' | 'ready' | Refused | Streamed;

const now = (): bigint => process.hrtime.bigint();

/** Progress is shown between two series, whose distance of about 0.2 ms is small beside this. */
const seriesNs = 100_000_000n;
/** The speed is looked at between two series of a warm-up. */
const warmupSeriesNs = 20_000_000n;
/** Of a series: 1 MiB. */
const seriesRunsMax = 2 ** 16;
const never = 2n ** 62n;

/** Some inferences of a warm-up, and how long each took in nanoseconds. They follow each other as closely as in a block. */
export async function warmUpSome(session: EngineSession, feeds: readonly Feeds[], firstFeed: number): Promise<Float64Array> {
  const asked = { firstFeed, runsMax: seriesRunsMax, untilNs: now() + warmupSeriesNs, share: null };
  return timed([await session.series(feeds, asked)], 0n).latencyNs;
}

/** One inference after the other, and one at least where the instances share none. */
export async function stream(
  session: EngineSession,
  feeds: readonly Feeds[],
  memory: BigInt64Array,
  { seconds, samplesMax, total }: StreamAsked,
  advance: (runs: number) => void,
): Promise<Streamed> {
  const taken = memory.subarray(shared.taken, shared.taken + 1);
  const share = total === null ? null : { taken, total };
  const startedAt = Atomics.load(memory, shared.startNs);
  const endsAt = share ? never : startedAt + BigInt(Math.round(seconds * 1e9));
  const all: BigInt64Array[] = [];
  let runs = 0;
  let lastAt = 0n;
  const isMore = () => runs < samplesMax && lastAt < endsAt && (!share || Atomics.load(taken, 0) < share.total);
  while (isMore()) {
    const until = now() + seriesNs;
    const untilNs = endsAt < until ? endsAt : until;
    const runsMax = Math.min(samplesMax - runs, seriesRunsMax);
    const times = await session.series(feeds, { firstFeed: runs % feeds.length, runsMax, untilNs, share });
    all.push(times);
    runs += times.length / 2;
    lastAt = times.at(-1) ?? lastAt;
    advance(times.length / 2);
  }
  return timed(all, startedAt);
}

/** Of the starts and ends of several series. */
function timed(series: readonly BigInt64Array[], startedAt: bigint): Streamed {
  const runs = series.reduce((sum, times) => sum + times.length / 2, 0);
  const latencyNs = new Float64Array(runs);
  const endNs = new Float64Array(runs);
  let run = 0;
  for (const times of series) {
    for (let at = 0; at < times.length; at += 2) {
      const ended = times[at + 1] as bigint;
      latencyNs[run] = Number(ended - (times[at] as bigint));
      endNs[run] = Number(ended - startedAt);
      run += 1;
    }
  }
  return { latencyNs, endNs };
}

/** All instances of a cell. */
export interface Instances {
  /** Runs the others for as long as `own` runs. */
  beside<T>(own: () => Promise<T>): Promise<T>;
  /** A block of all instances, in the order in which their inferences ended. */
  block(asked: StreamAsked, advance: (runs: number) => void): Promise<Streamed>;
  close(): Promise<void>;
}

/** `session` and `feeds` are those of the calling thread; the threads load `data`'s model `count - 1` times. */
export async function openInstances(
  count: number,
  session: EngineSession,
  feeds: readonly Feeds[],
  data: Omit<InstanceData, 'shared'>,
): Promise<Instances | Refused> {
  const memory = new BigInt64Array(new SharedArrayBuffer(8 * Object.keys(shared).length));
  const workers: Worker[] = [];
  for (let i = 1; i < count; i += 1) {
    const worker = new Worker(join(import.meta.dirname, 'instance.thread.ts'), {
      workerData: { ...data, shared: memory } satisfies InstanceData,
    });
    const loaded = await told(worker);
    if (typeof loaded === 'object' && 'problem' in loaded) return loaded;
    workers.push(worker);
  }
  const ask = (message: ToInstance): Promise<FromInstance>[] =>
    workers.map((worker) => {
      const answer = told(worker);
      worker.postMessage(message);
      return answer;
    });
  const release = (): void => {
    Atomics.add(memory, shared.generation, 1n);
    Atomics.notify(memory, shared.generation);
  };

  return {
    async beside(own) {
      const warmed = ask({ do: 'warm', until: Atomics.load(memory, shared.generation) + 1n });
      const result = await own();
      release();
      await Promise.all(warmed);
      return result;
    },

    async block(asked, advance) {
      await session.run(feeds[0] as Feeds);
      const after = Atomics.load(memory, shared.generation);
      await Promise.all(ask({ do: 'block', after, asked }));
      Atomics.store(memory, shared.taken, 0n);
      Atomics.store(memory, shared.startNs, now());
      const streams = workers.map(told);
      release();
      const own = await stream(session, feeds, memory, asked, advance);
      return merged([own, ...((await Promise.all(streams)) as Streamed[])]);
    },

    async close() {
      await Promise.all(
        workers.map(async (worker) => {
          const exited = once(worker, 'exit');
          worker.postMessage({ do: 'close' } satisfies ToInstance);
          await exited;
        }),
      );
    },
  };
}

/** Rejects with what the thread failed of. */
const told = async (worker: Worker): Promise<FromInstance> => (await once(worker, 'message'))[0] as FromInstance;

function merged(streams: readonly Streamed[]): Streamed {
  const [only] = streams as [Streamed];
  if (streams.length === 1) return only;
  const all = streams.flatMap(({ latencyNs, endNs }) => Array.from(latencyNs, (latency, i) => [endNs[i] as number, latency] as const));
  all.sort(([a], [b]) => a - b);
  return { latencyNs: Float64Array.from(all, ([, latency]) => latency), endNs: Float64Array.from(all, ([end]) => end) };
}
