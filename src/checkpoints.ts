/** Moves what was committed from the log of the database (WAL) into the database in a thread: the event loop does not wait for the disk. */
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Db } from './db.ts';

/** What the thread answers: null, or why it failed, so that `passingKind` knows the error of a full disk. */
export type CheckpointAnswer = { message: string; code: string } | null;

/** Runs `work`, which may call `checkpoint` again and again. */
export async function withCheckpoints<T>(db: Db, work: (checkpoint: () => Promise<void>) => Promise<T>): Promise<T> {
  const thread = new Worker(join(import.meta.dirname, 'checkpoint.thread.ts'), { workerData: db.$client.name });
  const failed = once(thread, 'error').then(([error]) => {
    throw error;
  });
  failed.catch(() => {});
  try {
    return await work(async () => {
      thread.postMessage('checkpoint');
      const [answer] = (await Promise.race([once(thread, 'message'), failed])) as [CheckpointAnswer];
      if (answer) throw Object.assign(new Error(answer.message), { code: answer.code });
    });
  } finally {
    await thread.terminate();
  }
}
