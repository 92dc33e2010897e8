import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { ApiError } from '../errors.ts';
import { blobPath } from '../storage/blobs.ts';
import type { ExportedReport, ReportFormat } from './exports.ts';
import type { Made, Source } from './make.ts';

/** What `report.thread.ts` does. Text is copied into a thread at once; objects of a long training would take 50 ms. */
export type ReportTask =
  /** `files`: where the samples are, by their hash. */
  | { does: 'MAKE'; source: Source; files: Map<string, string> }
  /** The report of a benchmark. */
  | { does: 'EXPORT_REPORT'; stored: { content: string; sha256: string }; format: ReportFormat }
  /** Each a `JobSource` as JSON. */
  | { does: 'EXPORT_JOBS'; sources: string[]; format: ReportFormat };

/** Work of a kind that may wait. */
const waitingMax = 50;

/**
 * Runs each task in a thread of its own, so that the event loop answers others meanwhile. One thread at a time: it may hold the samples of a
 * row, or a whole page.
 */
function oneAtATime<Result>(what: string): (task: ReportTask) => Promise<Result> {
  let waiting = 0;
  let last: Promise<unknown> = Promise.resolve();
  return async (task) => {
    if (waiting >= waitingMax) throw new ApiError('UNAVAILABLE', `${waitingMax} reports are waiting to be ${what}. Try again.`, 5000);
    waiting += 1;
    const done = last
      .then(() => runThread<Result>(task))
      .finally(() => {
        waiting -= 1;
      });
    last = done.catch(() => {});
    return done;
  };
}

async function runThread<Result>(task: ReportTask): Promise<Result> {
  const thread = new Worker(join(import.meta.dirname, 'report.thread.ts'), { workerData: task });
  try {
    const [result] = (await once(thread, 'message')) as [Result];
    return result;
  } finally {
    await thread.terminate();
  }
}

const make = oneAtATime<Made>('made');
/** To write a report as HTML takes 35 to 80 ms. */
export const exportInThread: (task: Exclude<ReportTask, { does: 'MAKE' }>) => Promise<ExportedReport> =
  oneAtATime<ExportedReport>('written');

/** Two million samples of one row are sorted for half a second. */
export function makeInThread(dataDir: string, source: Source): Promise<Made> {
  const samples = source.measurements.flatMap(({ samples }) => samples ?? []);
  const files = new Map(samples.map(({ sha256 }) => [sha256, blobPath(dataDir, sha256)]));
  return make({ does: 'MAKE', source, files });
}
