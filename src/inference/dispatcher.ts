/** Between the requests and the pool: queue, timers, runs. Each submitted request gets exactly one answer. */

import type { Found, Image, Reading } from '../vision/reading.ts';
import { nowMs } from './clock.ts';
import type { Memory } from './memory.ts';
import type { Feed, OutputTensor, Pool, Run, RunEnd, RunResult } from './pool.ts';
import { type Batch, type Entry, Queue, type Refusal, type Urgency } from './queue.ts';
import type { RunTimes } from './runTimes.ts';
import type { ModelStats, Timing } from './stats.ts';

export interface Served {
  key: string;
  /** From the arrival of a request to its answer, where the request says no other. */
  deadlineMs: number;
  /** Most rows of a run that requests share: 1 where that does not pay, or where the outputs of a batch could not be divided among its requests. */
  batchMax: number;
  times: RunTimes;
  stats: ModelStats;
}

export interface Request {
  model: Served;
  /** Null while they are still being made: the request has its place, and runs when it is `ready`. */
  feeds: readonly Feed[] | null;
  outputs: readonly string[];
  /** The outputs are read by the run, for one image. Such requests share no batch key with others. */
  reading?: Reading;
  rows: number;
  /** Requests of a model with the same key may be computed together. */
  batchKey: string;
  priority: number;
  /** When it could have run: its body was complete, and its image decoded. */
  arrivedMs: number;
  deadlineMs: number;
  /** Called when its run has begun: from then on the feeds are not to change until the returned function is called, whatever becomes of the request. */
  lend(): () => void;
}

export type Answer =
  | { state: 'done'; outputs: OutputTensor[]; found: Found | null; timing: Timing }
  | ({ state: 'refused' } & Refusal)
  | { state: 'failed'; message: string }
  | { state: 'expired' | 'cancelled' | 'stopped' };

interface Waiting extends Request, Entry {
  model: Served;
  resolve: (answer: Answer) => void;
  timer: NodeJS.Timeout;
  /** Once it was dispatched. */
  run: { batch: Batch<Waiting>; run: Run } | null;
}

export interface Submitted {
  /** Never rejects. */
  answer: Promise<Answer>;
  /** The feeds of a request that was submitted without them. */
  ready(feeds: readonly Feed[], reading?: Reading): void;
  /** Nobody waits for the answer any more. */
  drop(): void;
}

export interface Dispatcher {
  /** Why such a request would be refused now. */
  refusal(urgency: Urgency): Refusal | null;
  submit(request: Request): Submitted;
  /** Answers everything that waits, and everything that comes, with `stopped`. */
  stop(): void;
  /** Requests that wait, and runs that were given to the pool. */
  readonly depth: { queued: number; dispatched: number };
}

export function startDispatcher(pool: Pool, memory: Pick<Memory, 'count'>, limits: { permits: number; requestsMax: number }): Dispatcher {
  const queue = new Queue<Waiting>(limits);
  const open = new Set<Waiting>();
  let dispatched = 0;
  let stopped = false;

  function settle(entry: Waiting, answer: Answer): void {
    if (!open.delete(entry)) return;
    clearTimeout(entry.timer);
    if (!queue.remove(entry)) cancelUnwanted(entry);
    entry.resolve(answer);
  }

  /** A run that nobody waits for any more does not begin. */
  function cancelUnwanted({ run }: Waiting): void {
    if (run && !run.batch.entries.some((entry) => open.has(entry))) run.run.cancel();
  }

  function dispatch(): void {
    for (;;) {
      const room = pool.room();
      if (!room) return;
      const batch = queue.take(nowMs(), { staged: room === 'STAGED' });
      if (!batch) return;
      const [first] = batch.entries as [Waiting];
      const { model, outputs } = first;
      const readings = batch.entries.flatMap(({ reading }) => reading ?? []);
      const restMs = batch.entries.map(({ deadlineMs }) => deadlineMs - nowMs());
      const feeds = joined(batch.entries);
      const msMax = Math.max(model.deadlineMs, ...restMs);
      const run = pool.start(model.key, feeds, outputs, msMax, first.reading && readings);
      const { copiedBytes } = run;
      // Requests of a batch that fails are tried again, each by itself: they keep their feeds.
      const giveBack = batch.entries.length === 1 ? first.lend() : () => {};
      if (copiedBytes > 0) giveBack();
      // The copy stays also when the clients have gone.
      memory.count(model.key, copiedBytes);
      dispatched += 1;
      for (const entry of batch.entries) entry.run = { batch, run };
      void run.ended.then((end) => {
        dispatched -= 1;
        memory.count(model.key, -copiedBytes);
        if (copiedBytes === 0) giveBack();
        queue.ended(batch, nowMs(), end.state !== 'cancelled');
        finish(batch, end);
        dispatch();
      });
    }
  }

  function finish(batch: Batch<Waiting>, end: RunEnd): void {
    const { model } = batch.entries[0] as Waiting;
    const computeMs = end.state === 'done' ? end.endedMs - end.preparedMs : 0;
    if (end.state === 'done') {
      // Until this thread gets to know of it: on a busy machine that is what a client waits for.
      model.times.observe(batch.rows, nowMs() - end.startedMs);
      model.stats.ran(batch.rows, computeMs);
    }
    // It would have taken longer: without this a model that is always stopped would be taken for a fast one.
    if (end.state === 'cancelled' && end.ranMs > model.times.mean(batch.rows)) model.times.observe(batch.rows, end.ranMs);
    if (end.state === 'done' && isDivisible(end, batch)) {
      let row = 0;
      const preprocessingMs = end.preparedMs - end.startedMs;
      const postprocessingMs = end.readMs - end.endedMs;
      for (const [i, entry] of batch.entries.entries()) {
        const timing = { queueMs: end.startedMs - entry.arrivedMs, preprocessingMs, computeMs, postprocessingMs };
        const found = end.found?.[i] ?? null;
        settle(entry, { state: 'done', outputs: share(end.outputs, batch, row, entry.rows), found, timing });
        row += entry.rows;
      }
    } else if (end.state !== 'cancelled' && batch.entries.length > 1) {
      // One of them is at fault, or nobody can say whose the outputs are: each is tried by itself. The latter is the model's way, so it is not
      // tried again.
      if (end.state === 'done') model.batchMax = 1;
      for (const [i, entry] of batch.entries.entries()) {
        if (!open.has(entry)) continue;
        entry.run = null;
        entry.batchKey = `alone ${i} ${entry.batchKey}`;
        queue.add(entry);
      }
    } else if (end.state === 'failed') {
      for (const entry of batch.entries) settle(entry, { state: 'failed', message: end.message });
    }
  }

  pool.onRoom(dispatch);
  return {
    refusal: (urgency) => queue.refusal(urgency, nowMs()),

    submit(request) {
      const now = nowMs();
      const { promise: answer, resolve } = Promise.withResolvers<Answer>();
      const timer = undefined as unknown as NodeJS.Timeout;
      const entry: Waiting = { ...request, ready: request.feeds !== null, resolve, run: null, timer };
      const refusal: Answer | null = stopped ? { state: 'stopped' } : asAnswer(queue.offer(entry, now));
      if (refusal) {
        resolve(refusal);
        return { answer, ready: () => {}, drop: () => {} };
      }
      open.add(entry);
      entry.timer = setTimeout(() => {
        queue.expired(entry, nowMs());
        settle(entry, { state: 'expired' });
      }, entry.deadlineMs - now);
      dispatch();
      return {
        answer,
        ready(feeds, reading) {
          if (!open.has(entry)) return;
          Object.assign(entry, { feeds, reading, arrivedMs: nowMs() });
          queue.ready(entry, entry.arrivedMs);
          dispatch();
        },
        drop: () => settle(entry, { state: 'cancelled' }),
      };
    },

    stop() {
      stopped = true;
      for (const entry of [...open]) settle(entry, { state: 'stopped' });
    },

    get depth() {
      return { queued: queue.length, dispatched };
    },
  };
}

const asAnswer = (refusal: Refusal | null): Answer | null => refusal && { state: 'refused', ...refusal };

/** The feeds of one run: those of its entries one behind the other along the batch axis. */
function joined(entries: readonly Waiting[]): readonly Feed[] {
  const all = entries.map(({ feeds }) => feeds as readonly Feed[]);
  const [first] = all as [readonly Feed[]];
  if (entries.length === 1) return first;
  const rows = entries.reduce((sum, entry) => sum + entry.rows, 0);
  return first.map((feed, i) => ({
    ...feed,
    shape: [rows, ...feed.shape.slice(1)],
    pieces: all.flatMap((feeds) => (feeds[i] as Feed).pieces),
    ...(feed.images ? { images: all.flatMap((feeds) => (feeds[i] as Feed).images as Image[]) } : {}),
  }));
}

/** Whether each row of the outputs is that of a row of the inputs. What a model declares may not be so, where it drops or finds rows itself. */
function isDivisible({ outputs, found }: RunResult, { entries: [first, ...others], rows }: Batch<Waiting>): boolean {
  if (others.length === 0) return true;
  return first?.reading ? found !== null : outputs.every(({ shape }) => shape[0] === rows);
}

/** An entry's rows of the outputs of its run. */
function share(outputs: OutputTensor[], batch: Batch<Waiting>, row: number, rows: number): OutputTensor[] {
  if (batch.entries.length === 1) return outputs;
  return outputs.map(({ shape, data, ...output }) => {
    const rowBytes = data.length / batch.rows;
    return { ...output, shape: [rows, ...shape.slice(1)], data: data.subarray(row * rowBytes, (row + rows) * rowBytes) };
  });
}
