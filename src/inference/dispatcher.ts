/** Between the requests and the pool: queue, timers, runs. Each submitted request gets exactly one answer. */

import type { Found, Reading } from '../vision/reading.ts';
import { nowMs } from './clock.ts';
import type { Feed, Output, Pool, Run, RunEnd } from './pool.ts';
import { type Batch, type Entry, Queue, type Refusal } from './queue.ts';
import type { RunTimes } from './runTimes.ts';
import type { ModelStats, Timing } from './stats.ts';

export interface Served {
  key: string;
  /** From the arrival of a request to its answer, where the request says no other. */
  deadlineMs: number;
  /** Most rows of a run; becomes 1 when the outputs of a batch cannot be divided among its requests. */
  batchMax: number;
  times: RunTimes;
  stats: ModelStats;
}

export interface Request {
  model: Served;
  feeds: readonly Feed[];
  outputs: readonly string[];
  /** The outputs are read by the run. Such requests have batch keys of their own. */
  reading?: Reading;
  rows: number;
  /** Requests of a model with the same key may be computed together. */
  batchKey: string;
  priority: number;
  /** When its body was complete. */
  arrivedMs: number;
  deadlineMs: number;
}

export type Answer =
  | { state: 'done'; outputs: Output[]; found: Found | null; timing: Timing }
  | ({ state: 'refused' } & Refusal)
  | { state: 'failed'; message: string }
  | { state: 'expired' | 'cancelled' | 'stopped' };

interface Waiting extends Request, Entry {
  model: Served;
  answer: ((answer: Answer) => void) | null;
  timer: NodeJS.Timeout;
  /** Once it was dispatched. */
  run: { batch: Batch<Waiting>; run: Run } | null;
}

export interface Dispatcher {
  /** The function that is returned drops the request: its client has gone. */
  submit(request: Request, onAnswer: (answer: Answer) => void): () => void;
  /** Why a request would be refused now: asked before work that a refusal would waste. */
  refusal(request: Entry): Refusal | null;
  /** Answers everything that waits with `stopped`. */
  stop(): void;
  /** Requests that wait, and runs that were given to the pool. */
  readonly depth: { queued: number; dispatched: number };
}

export function startDispatcher(pool: Pool, limits: { permits: number; requestsMax: number }): Dispatcher {
  const queue = new Queue<Waiting>(limits);
  const open = new Set<Waiting>();
  let dispatched = 0;

  function settle(entry: Waiting, answer: Answer): void {
    if (!entry.answer) return;
    clearTimeout(entry.timer);
    open.delete(entry);
    const { answer: tell } = entry;
    entry.answer = null;
    if (!queue.remove(entry)) cancelUnwanted(entry);
    tell(answer);
  }

  /** A run that nobody waits for any more does not begin. */
  function cancelUnwanted({ run }: Waiting): void {
    if (run?.batch.entries.every(({ answer }) => answer === null)) run.run.cancel();
  }

  function dispatch(): void {
    for (;;) {
      const room = pool.room();
      if (!room) return;
      const batch = queue.take(nowMs(), { staged: room === 'STAGED' });
      if (!batch) return;
      const [first] = batch.entries as [Waiting];
      const { model, outputs, reading } = first;
      const restMs = batch.entries.map(({ deadlineMs }) => deadlineMs - nowMs());
      const run = pool.start(model.key, joined(batch.entries), outputs, Math.max(model.deadlineMs, ...restMs), reading);
      dispatched += 1;
      for (const entry of batch.entries) entry.run = { batch, run };
      void run.ended.then((end) => {
        dispatched -= 1;
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
    if (end.state === 'done' && isDivisible(end.outputs, batch)) {
      let row = 0;
      const preprocessingMs = end.preparedMs - end.startedMs;
      const postprocessingMs = end.readMs - end.endedMs;
      for (const entry of batch.entries) {
        const timing = { queueMs: end.startedMs - entry.arrivedMs, preprocessingMs, computeMs, postprocessingMs };
        settle(entry, { state: 'done', outputs: share(end.outputs, batch, row, entry.rows), found: end.found, timing });
        row += entry.rows;
      }
    } else if (end.state !== 'cancelled' && batch.entries.length > 1) {
      // One of them is at fault, or nobody can say whose the outputs are: each is tried by itself. The latter is the model's way, so it is not
      // tried again.
      if (end.state === 'done') model.batchMax = 1;
      for (const [i, entry] of batch.entries.entries()) {
        if (!entry.answer) continue;
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
    submit(request, onAnswer) {
      const now = nowMs();
      const entry: Waiting = { ...request, answer: onAnswer, run: null, timer: undefined as unknown as NodeJS.Timeout };
      const refusal = queue.offer(entry, now);
      if (refusal) {
        entry.answer = null;
        onAnswer({ state: 'refused', ...refusal });
        return () => {};
      }
      open.add(entry);
      entry.timer = setTimeout(() => {
        queue.expired(entry, nowMs());
        settle(entry, { state: 'expired' });
      }, entry.deadlineMs - now);
      dispatch();
      return () => settle(entry, { state: 'cancelled' });
    },

    refusal: (request) => queue.refusal(request, nowMs()),

    stop() {
      for (const entry of [...open]) settle(entry, { state: 'stopped' });
    },

    get depth() {
      return { queued: queue.length, dispatched };
    },
  };
}

/** The feeds of one run: those of its entries one behind the other along the batch axis. */
function joined(entries: readonly Waiting[]): readonly Feed[] {
  const [first] = entries as [Waiting];
  if (entries.length === 1) return first.feeds;
  const rows = entries.reduce((sum, entry) => sum + entry.rows, 0);
  return first.feeds.map((feed, i) => ({
    ...feed,
    shape: [rows, ...feed.shape.slice(1)],
    pieces: entries.flatMap(({ feeds }) => (feeds[i] as Feed).pieces),
  }));
}

/** Whether each row of the outputs is that of a row of the inputs. What a model declares may not be so, where it drops or finds rows itself. */
const isDivisible = (outputs: readonly Output[], { entries, rows }: Batch<Waiting>): boolean =>
  entries.length === 1 || outputs.every(({ shape }) => shape[0] === rows);

/** An entry's rows of the outputs of its run. */
function share(outputs: Output[], batch: Batch<Waiting>, row: number, rows: number): Output[] {
  if (batch.entries.length === 1) return outputs;
  return outputs.map(({ shape, data, ...output }) => {
    const rowBytes = data.length / batch.rows;
    return { ...output, shape: [rows, ...shape.slice(1)], data: data.subarray(row * rowBytes, (row + rows) * rowBytes) };
  });
}
