/**
 * What waits for a permit: who is let in, who goes next, and with whom. Plain data with the clock as an argument: it starts nothing and
 * knows no request, no timer and no engine. Within a priority the models share the permits: where several have work waiting, each gets as
 * much computing time as the others (self-clocked fair queueing, Golestani 1994), so that the queue of one refuses nobody else.
 */
import type { RunTimes } from './runTimes.ts';

/** What the queue has to know of a model. */
export interface Costed {
  times: RunTimes;
  batchMax: number;
}

export interface Entry {
  model: Costed;
  /** Entries of a model with the same key may be computed together. */
  batchKey: string;
  /** Items along the batch axis. */
  rows: number;
  /** 1 goes first. */
  priority: number;
  deadlineMs: number;
  /** False while it only keeps its place: its input is still being made. */
  ready: boolean;
}

export type Refusal = { reason: 'FULL' | 'LATE'; retryAfterMs: number };

/** What decides whether an entry can be in time. */
export type Urgency = Pick<Entry, 'model' | 'rows' | 'priority' | 'deadlineMs'>;

/** Entries that are computed in one run. */
export interface Batch<E> {
  entries: E[];
  rows: number;
}

/**
 * Waiting is taken to last at least so much longer than the runs before it: what slows runs comes in spells, and is learned of too late. At
 * twice the capacity 1 lets everybody in who is answered within the last tenth of the deadline, and every tenth of them is late.
 */
const stretchMin = 1.2;
/** Beyond, it is no error of the prediction: something else has the cores. */
const stretchMax = 3;

interface Prediction {
  /** The work before it, over the permits. */
  beforeMs: number;
  waitMs: number;
  ownMs: number;
}

interface Dispatched {
  estimateMs: number;
  /** Null while it is staged behind another run. */
  startedMs: number | null;
}

/** The entries of one priority. */
interface Level<E> {
  /** Turn of what was taken last. */
  clock: number;
  /** By turn; those of a model in the order of arrival. */
  waiting: { entry: E; turn: number }[];
}

export class Queue<E extends Entry> {
  readonly #permits: number;
  readonly #requestsMax: number;
  readonly #levels = new Map<number, Level<E>>();
  readonly #waitingOf = new Map<Costed, number>();
  readonly #dispatched = new Map<Batch<E>, Dispatched>();
  /** Of entries that others were before: when each was let in, and how long it was to take. */
  readonly #predictions = new WeakMap<E, { atMs: number; inMs: number }>();
  /** How long such entries took, over what was predicted: all that the run times do not know is in it. */
  readonly #stretch = { mean: 1, deviation: 0 };
  #length = 0;

  /** `requestsMax`: of one model. */
  constructor({ permits, requestsMax }: { permits: number; requestsMax: number }) {
    this.#permits = permits;
    this.#requestsMax = requestsMax;
  }

  get length(): number {
    return this.#length;
  }

  /** Why such an entry would not be let in now. */
  refusal(urgency: Urgency, nowMs: number): Refusal | null {
    return this.#refusalOf(urgency, this.#predict(urgency, nowMs), nowMs);
  }

  /** Adds the entry, or says why not. */
  offer(entry: E, nowMs: number): Refusal | null {
    const predicted = this.#predict(entry, nowMs);
    const refusal = this.#refusalOf(entry, predicted, nowMs);
    if (refusal) return refusal;
    this.#remember(entry, predicted.beforeMs, nowMs);
    this.add(entry);
    return null;
  }

  /** The input of an entry that kept its place is there. How long it took to make teaches nothing of the runs before it. */
  ready(entry: E, nowMs: number): void {
    entry.ready = true;
    if (this.#predictions.delete(entry)) this.#remember(entry, this.#workBefore(entry, nowMs) / this.#permits, nowMs);
  }

  #remember(entry: E, beforeMs: number, nowMs: number): void {
    if (beforeMs > 0) this.#predictions.set(entry, { atMs: nowMs, inMs: beforeMs + entry.model.times.mean(entry.rows) });
  }

  /** Why an entry is not let in: there is no room, or by the prediction its answer would come after its deadline. */
  #refusalOf(entry: Urgency, { waitMs, ownMs }: Prediction, nowMs: number): Refusal | null {
    if ((this.#waitingOf.get(entry.model) ?? 0) >= this.#requestsMax) return { reason: 'FULL', retryAfterMs: waitMs };
    const lateMs = nowMs + waitMs + ownMs - entry.deadlineMs;
    return lateMs > 0 ? { reason: 'LATE', retryAfterMs: lateMs } : null;
  }

  /** Without asking whether it can be done in time. */
  add(entry: E): void {
    const level = this.#levels.get(entry.priority) ?? { clock: 0, waiting: [] };
    this.#levels.set(entry.priority, level);
    const turn = this.#turnOf(entry);
    level.waiting.splice(level.waiting.findLastIndex((other) => other.turn <= turn) + 1, 0, { entry, turn });
    this.#count(entry.model, 1);
  }

  #count(model: Costed, change: 1 | -1): void {
    const waiting = (this.#waitingOf.get(model) ?? 0) + change;
    if (waiting > 0) this.#waitingOf.set(model, waiting);
    else this.#waitingOf.delete(model);
    this.#length += change;
  }

  /** Its own time behind the last of its model that waits; behind what was taken last, where none does. */
  #turnOf(entry: Urgency): number {
    const { clock, waiting } = this.#levels.get(entry.priority) ?? { clock: 0, waiting: [] };
    return (waiting.findLast((other) => other.entry.model === entry.model)?.turn ?? clock) + costMs(entry);
  }

  /** Whether it was waiting. */
  remove(entry: E): boolean {
    const waiting = this.#levels.get(entry.priority)?.waiting ?? [];
    const at = waiting.findIndex((other) => other.entry === entry);
    if (at < 0) return false;
    waiting.splice(at, 1);
    this.#count(entry.model, -1);
    return true;
  }

  /** The deadline of an entry has passed. Where it still waits, what it would have taken teaches more than those that were in time. */
  expired(entry: E, nowMs: number): void {
    const predicted = this.#predictions.get(entry);
    if (!predicted || !this.#levels.get(entry.priority)?.waiting.some((other) => other.entry === entry)) return;
    const restMs = this.#workBefore(entry, nowMs) / this.#permits + entry.model.times.mean(entry.rows);
    this.#learn((nowMs - predicted.atMs + restMs) / predicted.inMs);
  }

  /**
   * Takes what runs next, as one run: the first by priority, then turn, and as many others that may go with it as keep every deadline. What
   * cannot be in time even as the fastest run ever seen stays until its owner removes it. `staged`: it waits for the end of another run.
   */
  take(nowMs: number, { staged }: { staged: boolean }): Batch<E> | null {
    let first: E | undefined;
    let deadlineMs = Number.POSITIVE_INFINITY;
    const batch: Batch<E> = { entries: [], rows: 0 };
    const startMs = nowMs + (staged ? this.#aheadMs(nowMs) : 0);
    for (const entry of this.#inOrder()) {
      const { times, batchMax } = entry.model;
      if (!entry.ready || startMs + times.fastest(entry.rows) > entry.deadlineMs) continue;
      const rows = batch.rows + entry.rows;
      if (first) {
        if (entry.model !== first.model || entry.batchKey !== first.batchKey || rows > batchMax) continue;
        if (startMs + times.mean(rows) > Math.min(deadlineMs, entry.deadlineMs)) continue;
      }
      first ??= entry;
      deadlineMs = Math.min(deadlineMs, entry.deadlineMs);
      batch.entries.push(entry);
      batch.rows = rows;
      if (rows >= batchMax) break;
    }
    if (!first) return null;
    const level = this.#levels.get(first.priority) as Level<E>;
    const last = batch.entries.at(-1);
    level.clock = Math.max(level.clock, level.waiting.find(({ entry }) => entry === last)?.turn ?? 0);
    for (const entry of batch.entries) this.remove(entry);
    this.#dispatched.set(batch, { estimateMs: first.model.times.mean(batch.rows), startedMs: staged ? null : nowMs });
    return batch;
  }

  /** The run of a batch has ended, or (`ran` is false) did not take place; what was staged behind it begins. */
  ended(batch: Batch<E>, nowMs: number, ran = true): void {
    const run = this.#dispatched.get(batch);
    this.#dispatched.delete(batch);
    for (const entry of ran ? batch.entries : []) {
      const predicted = this.#predictions.get(entry);
      if (predicted) this.#learn((nowMs - predicted.atMs) / predicted.inMs);
    }
    if (!run || run.startedMs === null) return;
    for (const other of this.#dispatched.values()) {
      if (other.startedMs !== null) continue;
      other.startedMs = nowMs;
      return;
    }
  }

  /** Everything that waits, in the order in which it would be taken. */
  *#inOrder(): Generator<E> {
    for (const priority of [...this.#levels.keys()].sort((a, b) => a - b)) {
      for (const { entry } of (this.#levels.get(priority) as Level<E>).waiting) yield entry;
    }
  }

  /** Until the first of the runs that compute is expected to end. */
  #aheadMs(nowMs: number): number {
    const rests = [...this.#dispatched.values()].flatMap(({ startedMs, estimateMs }) =>
      startedMs === null ? [] : [Math.max(0, startedMs + estimateMs - nowMs)],
    );
    return rests.length > 0 ? Math.min(...rests) : 0;
  }

  /** Queued work over the permits, by as much longer as such predictions have turned out to be too short; and the entry's own time. */
  #predict(entry: Urgency, nowMs: number): Prediction {
    const { times } = entry.model;
    // A permit is free: what was measured once decides, so that an average which one slow run has spoiled is tried again.
    if (this.#length === 0 && this.#dispatched.size < this.#permits) return { beforeMs: 0, waitMs: 0, ownMs: times.fastest(entry.rows) };
    const { mean, deviation } = this.#stretch;
    const stretch = Math.min(stretchMax, Math.max(stretchMin, mean + 4 * deviation));
    const beforeMs = this.#workBefore(entry, nowMs) / this.#permits;
    return { beforeMs, waitMs: stretch * beforeMs, ownMs: times.cautious(entry.rows) };
  }

  /** Mean and mean deviation move as in `RunTimes`. */
  #learn(ratio: number): void {
    const error = Math.min(ratio, stretchMax) - this.#stretch.mean;
    this.#stretch.mean += error / 8;
    this.#stretch.deviation += (Math.abs(error) - this.#stretch.deviation) / 4;
  }

  /** All that is dispatched, and what waits before the entry, or before the place that it would have. */
  #workBefore(entry: Urgency, nowMs: number): number {
    let workMs = 0;
    for (const { estimateMs, startedMs } of this.#dispatched.values()) {
      // A run that exceeded its estimate is expected to take as long again as it exceeded it by.
      workMs += startedMs === null ? estimateMs : Math.abs(startedMs + estimateMs - nowMs);
    }
    const turn = this.#turnOf(entry);
    for (const [priority, { waiting }] of this.#levels) {
      if (priority > entry.priority) continue;
      for (const other of waiting) {
        if (priority === entry.priority && (other.entry === entry || other.turn > turn)) break;
        workMs += costMs(other.entry);
      }
    }
    return workMs;
  }
}

/** The entry's share of a full batch. */
function costMs({ model: { times, batchMax }, rows }: Urgency): number {
  return rows >= batchMax ? times.mean(rows) : (times.mean(batchMax) * rows) / batchMax;
}
