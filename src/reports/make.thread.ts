/** The thread of `makeInThread`: makes one report. */
import '../loading.ts';
import { readFile } from 'node:fs/promises';
import { parentPort, workerData } from 'node:worker_threads';
import type { ReportThreadData } from './makeInThread.ts';

// Here, not at the top: `loading.ts` concerns what is loaded after it.
const { makeReport } = await import('./make.ts');
const { source, files } = workerData as ReportThreadData;
parentPort?.postMessage(await makeReport(source, (sha256) => readFile(files.get(sha256) as string)));
