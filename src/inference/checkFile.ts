/** A thread that reads a model file and says what is wrong with it, so that hashing 100 MB does not keep HTTP waiting. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { hasExternalData } from '../engine/externalData.ts';

export interface ToCheck {
  file: string;
  /** What it is to have. */
  sha256: string;
}

export interface Checked {
  problem: string | null;
}

function problemOf({ file, sha256: meant }: ToCheck): string | null {
  const bytes = readFileSync(file);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  if (sha256 !== meant) return `The file has the SHA-256 ${sha256}, not ${meant}: it is not the one that was meant.`;
  return hasExternalData(bytes) ? 'It takes data from other files. Save it as one file, without external data.' : null;
}

let problem: string | null;
try {
  problem = problemOf(workerData as ToCheck);
} catch (error) {
  ({ message: problem } = error as Error);
}
parentPort?.postMessage({ problem } satisfies Checked);
