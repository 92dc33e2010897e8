/** The thread of `inThread.ts`: does one task after the other, and tells its result. */
import '../loading.ts';
import { readFile } from 'node:fs/promises';
import { type MessagePort, parentPort } from 'node:worker_threads';
import type { ReportTask } from './inThread.ts';

// Modules are imported where they are needed, not at the top: `loading.ts` concerns what is loaded after it.
async function run(task: ReportTask) {
  if (task.does === 'MAKE') {
    const { makeReport } = await import('./make.ts');
    return makeReport(task.source, (sha256) => readFile(task.files.get(sha256) as string));
  }
  if (task.does === 'EXPORT_REPORT') {
    const { exportReport } = await import('./exports.ts');
    return exportReport(task.stored, task.format);
  }
  const { exportSources } = await import('./jobs/exportSources.ts');
  return exportSources(
    task.sources.map((source) => JSON.parse(source)),
    task.format,
  );
}

const port = parentPort as MessagePort;
port.on('message', async (task: ReportTask) => port.postMessage(await run(task)));
