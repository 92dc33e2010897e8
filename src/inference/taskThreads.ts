/** JavaScript threads that do what would keep the main thread, and with it every client, waiting. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { Asked, TaskReply, Tasks } from './taskThread.ts';

export interface TaskThreads<T extends Tasks> {
  /** `transfer`: memory of the request, which the thread gets. Rejects where the task throws, and where the threads were closed. */
  ask<K extends keyof T>(task: K, request: Parameters<T[K]>[0], transfer?: ArrayBuffer[]): Promise<ReturnType<T[K]>>;
  /** Resolves when the threads have done what they were asked for, and have ended. */
  close(): Promise<void>;
}

interface Waiting {
  resolve(answer: unknown): void;
  reject(error: Error): void;
}

/** `file` calls `serveTasks` of `taskThread.ts` with its tasks. The thread with the fewest requests gets the next. */
export function startTaskThreads<T extends Tasks>(file: string, count: number): TaskThreads<T> {
  let closed = false;
  const threads = Array.from({ length: count }, () => {
    const worker = new Worker(file);
    const waiting: Waiting[] = [];
    // It answers in the order of its requests.
    worker.on('message', (reply: TaskReply) => {
      const { resolve, reject } = waiting.shift() as Waiting;
      if ('answer' in reply) resolve(reply.answer);
      else reject(new Error(reply.message));
    });
    return { worker, waiting };
  });
  return {
    async ask(task, request, transfer = []) {
      if (closed) throw new Error('The host stops.');
      const { worker, waiting } = threads.reduce((a, b) => (b.waiting.length < a.waiting.length ? b : a));
      return new Promise((resolve, reject) => {
        waiting.push({ resolve: resolve as Waiting['resolve'], reject });
        worker.postMessage({ task: String(task), request } satisfies Asked, transfer);
      });
    },
    async close() {
      closed = true;
      await Promise.all(
        threads.map(async ({ worker }) => {
          const exited = once(worker, 'exit');
          worker.postMessage(null);
          await exited;
        }),
      );
    },
  };
}
