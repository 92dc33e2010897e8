import { ApiError } from './errors.ts';
import type { LogLine, Progress } from './jobs/progress.ts';
import type { JobEvent } from './jobs/tables.ts';

/**
 * What is published inside the server. A topic's events are divided by a key (a job's id, a user's id), so that a publisher
 * touches only those who listen to that key.
 */
export interface Topics {
  /** The access of a user ended: of one session (`familyId`), or of all of them (null). Key: the user's id. */
  accessEnded: { familyId: string | null; reason: string };
  /** The queue or the slots may allow another job to start. Key: ''. */
  queueChanged: null;
  /** A durable event of a job, after its commit. Key: the job's id. */
  jobEvent: JobEvent;
  /** A tick of a job's progress, never stored. Key: the job's id. */
  jobProgress: Progress;
  /** A line that a job's child wrote. Key: the job's id. */
  jobLog: LogLine;
  /** A job's row has changed. Key: ''. */
  jobChanged: { jobId: string };
}

type Listener = (event: never) => void;

export interface Subscription<T> extends AsyncIterableIterator<T, undefined> {
  return(): Promise<IteratorReturnResult<undefined>>;
}

export interface Bus {
  publish<K extends keyof Topics>(topic: K, key: string, event: Topics[K]): void;
  /** Calls `listener` at once, inside publish; returns the function that stops it. */
  on<K extends keyof Topics>(topic: K, key: string, listener: (event: Topics[K]) => void): () => void;
  /**
   * Events from this call on, not from the first `next()`. The queue holds `limit` events: a reader who is further behind loses
   * the oldest ones, so a durable reader must look for gaps in `seq` and read the rows again.
   */
  subscribe<K extends keyof Topics>(topic: K, key: string, limit: number): Subscription<Topics[K]>;
}

export function createBus(): Bus {
  const listeners = new Map<string, Set<Listener>>();

  const on: Bus['on'] = (topic, key, listener) => {
    const address = `${topic}:${key}`;
    const set = listeners.get(address) ?? new Set();
    listeners.set(address, set.add(listener as Listener));
    return () => {
      set.delete(listener as Listener);
      if (set.size === 0) listeners.delete(address);
    };
  };

  return {
    on,
    publish(topic, key, event) {
      for (const listener of listeners.get(`${topic}:${key}`) ?? []) (listener as (e: typeof event) => void)(event);
    },
    subscribe(topic, key, limit) {
      return queueOf(limit, (push) => on(topic, key, push));
    },
  };
}

/** A bounded queue between a source that pushes and a reader that iterates; `attach` returns the function that detaches. */
export function queueOf<T>(limit: number, attach: (push: (event: T) => void) => () => void): Subscription<T> {
  const queue: T[] = [];
  let waiting: ((result: IteratorResult<T, undefined>) => void) | undefined;
  let ended = false;
  const detach = attach((event) => {
    if (waiting) {
      waiting({ done: false, value: event });
      waiting = undefined;
    } else {
      queue.push(event);
      if (queue.length > limit) queue.shift();
    }
  });
  return {
    async next() {
      if (queue.length > 0) return { done: false, value: queue.shift() as T };
      if (ended) return { done: true, value: undefined };
      return new Promise((resolve) => {
        waiting = resolve;
      });
    },
    async return() {
      ended = true;
      queue.length = 0;
      detach();
      waiting?.({ done: true, value: undefined });
      waiting = undefined;
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/**
 * A generator that reads from `source`. Its `return` ends the source first: a generator's own would wait for the pending read, which
 * may never come.
 */
export function readingFrom<T>(
  source: { return(): unknown },
  generator: AsyncGenerator<T, undefined>,
): AsyncIterableIterator<T, undefined> {
  return {
    next: () => generator.next(),
    async return() {
      source.return();
      return generator.return(undefined);
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/** A reading now and then one after each interval of 250 to 60,000 ms; a slow reader gets the latest only. */
export function readEach<T>(intervalMs: number, read: () => Promise<T>): AsyncIterableIterator<T, undefined> {
  if (intervalMs < 250 || intervalMs > 60_000) throw new ApiError('LIMIT', '`intervalMs` is between 250 and 60000.');
  const ticks = queueOf<null>(1, (push) => {
    push(null);
    const timer = setInterval(() => push(null), intervalMs);
    return () => clearInterval(timer);
  });
  async function* readings(): AsyncGenerator<T, undefined> {
    try {
      for await (const _ of ticks) yield await read();
    } finally {
      ticks.return();
    }
  }
  return readingFrom(ticks, readings());
}
