/** The thread of `checkpoints.ts`, with a connection of its own. */
import { parentPort, workerData } from 'node:worker_threads';
import Sqlite from 'better-sqlite3';
import type { CheckpointAnswer } from './checkpoints.ts';

parentPort?.on('message', () => {
  let answer: CheckpointAnswer = null;
  try {
    // It holds nothing between two of them, so that it can be ended.
    const client = new Sqlite(workerData);
    try {
      // PASSIVE: it waits for nobody, and nobody waits for it.
      client.pragma('wal_checkpoint(PASSIVE)');
    } finally {
      client.close();
    }
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    answer = { message, code: String(code) };
  }
  parentPort?.postMessage(answer);
});
