/** The other side of `taskThreads.ts`: what a thread does with its requests, one after the other. */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { giveWay } from './priority.ts';

/** What a thread can be asked for. */
// biome-ignore lint/suspicious/noExplicitAny: each has a request of its own.
export type Tasks = Record<string, (request: any) => unknown>;

export interface Asked {
  task: string;
  request: unknown;
}
export type TaskReply = { answer: unknown } | { message: string };

/** `memoryOf`: memory of an answer that changes hands instead of being copied. */
export function serveTasks<T extends Tasks>(tasks: T, memoryOf: (answer: ReturnType<T[keyof T]>) => ArrayBuffer[] = () => []): void {
  giveWay();
  const port = parentPort as MessagePort;
  port.on('message', (asked: Asked | null) => {
    if (!asked) return port.close();
    try {
      const answer = tasks[asked.task]?.(asked.request) as ReturnType<T[keyof T]>;
      port.postMessage({ answer } satisfies TaskReply, memoryOf(answer));
    } catch (error) {
      port.postMessage({ message: (error as Error).message } satisfies TaskReply);
    }
  });
}
