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
 * Runs tasks in a thread, so that the event loop answers others meanwhile. One at a time: a task may hold the samples of a row, or a whole page. The
 * thread ends when it has had nothing to do for `idleMs`: to start it takes a multiple of what it takes to write a report.
 */
function oneAtATime<Result>(what: string, idleMs: number): (task: ReportTask) => Promise<Result> {
  let waiting = 0;
  let last: Promise<unknown> = Promise.resolve();
  let thread: Worker | null = null;
  let idle: NodeJS.Timeout | undefined;
  const end = (): void => {
    void thread?.terminate();
    thread = null;
  };
  const run = async (task: ReportTask): Promise<Result> => {
    clearTimeout(idle);
    thread ??= new Worker(join(import.meta.dirname, 'report.thread.ts'));
    const answered = once(thread, 'message');
    thread.ref();
    thread.postMessage(task);
    try {
      const [result] = (await answered) as [Result];
      thread.unref();
      idle = setTimeout(end, idleMs).unref();
      return result;
    } catch (error) {
      // It is over, with what the task threw.
      end();
      throw error;
    }
  };
  return async (task) => {
    if (waiting >= waitingMax) throw new ApiError('UNAVAILABLE', `${waitingMax} reports are waiting to be ${what}. Try again.`, 5000);
    waiting += 1;
    const done = last
      .then(() => run(task))
      .finally(() => {
        waiting -= 1;
      });
    last = done.catch(() => {});
    return done;
  };
}

const make = oneAtATime<Made>('made', 0);
/** To write a report as HTML takes 35 to 80 ms. */
export const exportInThread: (task: Exclude<ReportTask, { does: 'MAKE' }>) => Promise<ExportedReport> = oneAtATime<ExportedReport>(
  'written',
  30_000,
);

/** Two million samples of one row are sorted for half a second. */
export function makeInThread(dataDir: string, source: Source): Promise<Made> {
  const samples = source.measurements.flatMap(({ samples }) => samples ?? []);
  const files = new Map(samples.map(({ sha256 }) => [sha256, blobPath(dataDir, sha256)]));
  return make({ does: 'MAKE', source, files });
}
