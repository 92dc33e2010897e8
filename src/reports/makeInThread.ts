import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { ApiError } from '../errors.ts';
import { blobPath } from '../storage/blobs.ts';
import type { Made, Source } from './make.ts';

export interface ReportThreadData {
  source: Source;
  /** Where the samples are, by their hash. */
  files: Map<string, string>;
}

/** Reports that may wait to be made. */
const waitingMax = 50;

let waiting = 0;
let last: Promise<unknown> = Promise.resolve();

/**
 * Makes a report in a thread of its own: two million samples of one row are sorted for half a second. One thread at a time, since each holds
 * the samples of a row.
 */
export async function makeInThread(dataDir: string, source: Source): Promise<Made> {
  if (waiting >= waitingMax) throw new ApiError('UNAVAILABLE', `${waitingMax} reports are waiting to be made. Try again.`, 5000);
  waiting += 1;
  const made = last
    .then(() => runThread(dataDir, source))
    .finally(() => {
      waiting -= 1;
    });
  last = made.catch(() => {});
  return made;
}

async function runThread(dataDir: string, source: Source): Promise<Made> {
  const samples = source.measurements.flatMap(({ samples }) => samples ?? []);
  const files = new Map(samples.map(({ sha256 }) => [sha256, blobPath(dataDir, sha256)]));
  const thread = new Worker(join(import.meta.dirname, 'make.thread.ts'), { workerData: { source, files } satisfies ReportThreadData });
  try {
    const [made] = (await once(thread, 'message')) as [Made];
    return made;
  } finally {
    await thread.terminate();
  }
}
