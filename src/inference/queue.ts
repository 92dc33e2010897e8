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
    const refusal = this.refusal(entry, nowMs);
    if (!refusal) this.add(entry);
    return refusal;
  }

  /** Why an entry would not be let in: there is no room, or by the prediction its answer would come after its deadline. */
  refusal(entry: Entry, nowMs: number): Refusal | null {
    const { waitMs, ownMs } = this.#predict(entry, nowMs);
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
    this.#dispatched.set(batch, { estimateMs: first.model.times.slow(batch.rows), startedMs: staged ? null : nowMs });
    return batch;
  }

  /** The run of a batch has ended, or did not take place; what was staged behind it begins. */
  ended(batch: Batch<E>, nowMs: number): void {
    const run = this.#dispatched.get(batch);
    this.#dispatched.delete(batch);
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

  /** Queued work over the permits, and the entry's own time. */
  #predict(entry: Entry, nowMs: number): { waitMs: number; ownMs: number } {
    const { times } = entry.model;
    // A permit is free: what was measured once decides, so that an average which one slow run has spoiled is tried again.
    if (this.#length === 0 && this.#dispatched.size < this.#permits) return { waitMs: 0, ownMs: times.fastest(entry.rows) };
    let workMs = 0;
    for (const { estimateMs, startedMs } of this.#dispatched.values()) {
      // A run that is over its estimate is taken to go on for as long as it is over it.
      workMs += startedMs === null ? estimateMs : Math.abs(startedMs + estimateMs - nowMs);
    }
    for (const other of this.#inOrder()) {
      if (other.priority > entry.priority) break;
      workMs += costMs(other);
    }
    return { waitMs: workMs / this.#permits, ownMs: times.cautious(entry.rows) };
  }
}

/** The entry's share of a full batch. */
function costMs({ model: { times, batchMax }, rows }: Entry): number {
  return rows >= batchMax ? times.slow(rows) : (times.slow(batchMax) * rows) / batchMax;
}
