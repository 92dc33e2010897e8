/**
 * What waits for a permit: who is let in, who goes next, and with whom. Plain data with the clock as an argument: it starts nothing and
 * knows no request, no timer and no engine.
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
}

export type Refusal = { reason: 'FULL' | 'LATE'; retryAfterMs: number };

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

export class Queue<E extends Entry> {
  readonly #permits: number;
  readonly #requestsMax: number;
  /** By priority; each in the order of arrival. */
  readonly #levels = new Map<number, Set<E>>();
  readonly #dispatched = new Map<Batch<E>, Dispatched>();
  /** Of entries that others were before: when each was let in, and how long it was to take. */
  readonly #predictions = new WeakMap<E, { atMs: number; inMs: number }>();
  /** How long such entries took, over what was predicted: all that the run times do not know is in it. */
  readonly #stretch = { mean: 1, deviation: 0 };
  #length = 0;

  constructor({ permits, requestsMax }: { permits: number; requestsMax: number }) {
    this.#permits = permits;
    this.#requestsMax = requestsMax;
  }

  get length(): number {
    return this.#length;
  }

  /** Adds the entry, or says why not. */
  offer(entry: E, nowMs: number): Refusal | null {
    const predicted = this.#predict(entry, nowMs);
    const refusal = this.#refusalOf(entry, predicted, nowMs);
    if (refusal) return refusal;
    const { beforeMs } = predicted;
    if (beforeMs > 0) this.#predictions.set(entry, { atMs: nowMs, inMs: beforeMs + entry.model.times.mean(entry.rows) });
    this.add(entry);
    return null;
  }

  /** Why an entry would not be let in: there is no room, or by the prediction its answer would come after its deadline. */
  refusal(entry: Entry, nowMs: number): Refusal | null {
    return this.#refusalOf(entry, this.#predict(entry, nowMs), nowMs);
  }

  #refusalOf(entry: Entry, { waitMs, ownMs }: Prediction, nowMs: number): Refusal | null {
    if (this.#length >= this.#requestsMax) return { reason: 'FULL', retryAfterMs: waitMs };
    const lateMs = nowMs + waitMs + ownMs - entry.deadlineMs;
    return lateMs > 0 ? { reason: 'LATE', retryAfterMs: lateMs } : null;
  }

  /** Without asking whether it can be done in time. */
  add(entry: E): void {
    const level = this.#levels.get(entry.priority) ?? new Set();
    this.#levels.set(entry.priority, level.add(entry));
    this.#length += 1;
  }

  /** Whether it was waiting. */
  remove(entry: E): boolean {
    const removed = this.#levels.get(entry.priority)?.delete(entry) ?? false;
    if (removed) this.#length -= 1;
    return removed;
  }

  /** The deadline of an entry has passed. Where it still waits, what it would have taken teaches more than those that were in time. */
  expired(entry: E, nowMs: number): void {
    const predicted = this.#predictions.get(entry);
    if (!predicted || !this.#levels.get(entry.priority)?.has(entry)) return;
    const restMs = this.#workBefore(entry, nowMs) / this.#permits + entry.model.times.mean(entry.rows);
    this.#learn((nowMs - predicted.atMs + restMs) / predicted.inMs);
  }

  /**
   * Takes what runs next, as one run: the first by priority, then age, and as many others that may go with it as keep every deadline. What
   * cannot be in time even as the fastest run ever seen stays until its owner removes it. `staged`: it waits for the end of another run.
   */
  take(nowMs: number, { staged }: { staged: boolean }): Batch<E> | null {
    let first: E | undefined;
    let deadlineMs = Number.POSITIVE_INFINITY;
    const batch: Batch<E> = { entries: [], rows: 0 };
    for (const entry of this.#inOrder()) {
      const { times, batchMax } = entry.model;
      if (nowMs + times.fastest(entry.rows) > entry.deadlineMs) continue;
      const rows = batch.rows + entry.rows;
      if (first) {
        if (entry.model !== first.model || entry.batchKey !== first.batchKey || rows > batchMax) continue;
        if (nowMs + times.mean(rows) > Math.min(deadlineMs, entry.deadlineMs)) continue;
      }
      first ??= entry;
      deadlineMs = Math.min(deadlineMs, entry.deadlineMs);
      batch.entries.push(entry);
      batch.rows = rows;
      if (rows >= batchMax) break;
    }
    if (!first) return null;
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
    for (const priority of [...this.#levels.keys()].sort((a, b) => a - b)) yield* this.#levels.get(priority) as Set<E>;
  }

  /** Queued work over the permits, by as much longer as such predictions have turned out to be too short; and the entry's own time. */
  #predict(entry: Entry, nowMs: number): Prediction {
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

  /** All that is dispatched, and what waits before the entry, or before its place at the end of its priority. */
  #workBefore(entry: Entry, nowMs: number): number {
    let workMs = 0;
    for (const { estimateMs, startedMs } of this.#dispatched.values()) {
      // A run that is over its estimate is taken to go on for as long as it is over it.
      workMs += startedMs === null ? estimateMs : Math.abs(startedMs + estimateMs - nowMs);
    }
    for (const other of this.#inOrder()) {
      if (other.priority > entry.priority || other === entry) break;
      workMs += costMs(other);
    }
    return workMs;
  }
}

/** The entry's share of a full batch. */
function costMs({ model: { times, batchMax }, rows }: Entry): number {
  return rows >= batchMax ? times.mean(rows) : (times.mean(batchMax) * rows) / batchMax;
}
