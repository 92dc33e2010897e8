/** JavaScript threads that make tensors of images and read outputs, which takes milliseconds: the main thread would keep every client waiting. */
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { VisionReply, VisionRequest, VisionTasks } from './vision.thread.ts';

export interface Vision {
  /** `transfer`: memory of the request, which the thread gets. */
  ask<T extends keyof VisionTasks>(
    task: T,
    request: Parameters<VisionTasks[T]>[0],
    transfer?: ArrayBuffer[],
  ): Promise<ReturnType<VisionTasks[T]>>;
  close(): Promise<void>;
}

interface Waiting {
  resolve(answer: unknown): void;
  reject(error: Error): void;
}

export function startVision(count: number): Vision {
  const threads = Array.from({ length: count }, () => {
    const worker = new Worker(join(import.meta.dirname, 'vision.thread.ts'));
    const waiting: Waiting[] = [];
    // It answers in the order of its requests.
    worker.on('message', (reply: VisionReply) => {
      const { resolve, reject } = waiting.shift() as Waiting;
      if ('answer' in reply) resolve(reply.answer);
      else reject(new Error(reply.message));
    });
    return { worker, waiting };
  });
  return {
    ask(task, request, transfer = []) {
      const { worker, waiting } = threads.reduce((a, b) => (b.waiting.length < a.waiting.length ? b : a));
      return new Promise((resolve, reject) => {
        waiting.push({ resolve: resolve as Waiting['resolve'], reject });
        worker.postMessage({ task, request } satisfies VisionRequest, transfer);
      });
    },
    async close() {
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
