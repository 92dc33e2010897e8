/** What may have changed. The key is the id of a user (`accessChanged`), of a job, or '' (`queueChanged`, `alertChanged`). */
export type Topic =
  /** The access of a user: a session, the role. */
  | 'accessChanged'
  /** The queue or the slots may allow another job to start. */
  | 'queueChanged'
  /** A job has a further durable event. */
  | 'jobEvent'
  /** There is a later tick of a job's progress. */
  | 'jobProgress'
  /** A job's log has a further line. */
  | 'jobLog'
  /** A job's row has changed. */
  | 'jobChanged'
  /** There is a further event of an alert. */
  | 'alertChanged';

/**
 * Tells inside the server that something has changed, and carries nothing: whoever is woken reads what stands behind their own cursor. So
 * nothing is lost when wakes fall together, and a slow reader has no queue.
 */
export interface Bus {
  /** Call it after the commit. */
  wake(topic: Topic, key: string): void;
  /** Calls `listener` with the key at once, inside `wake`; of every key where `key` is null. Returns the function that stops it. */
  on(topic: Topic, key: string | null, listener: (key: string) => void): () => void;
}

export function createBus(): Bus {
  const listeners = new Map<string, Set<(key: string) => void>>();
  const addressOf = (topic: Topic, key: string | null) => (key === null ? topic : `${topic}:${key}`);
  return {
    wake(topic, key) {
      for (const address of [addressOf(topic, key), topic]) for (const listener of listeners.get(address) ?? []) listener(key);
    },
    on(topic, key, listener) {
      const address = addressOf(topic, key);
      const set = listeners.get(address) ?? new Set();
      listeners.set(address, set.add(listener));
      return () => {
        set.delete(listener);
        if (set.size === 0) listeners.delete(address);
      };
    },
  };
}
