/** A thread that counts the pages of tables that grow with use. It reads all of them: 0.2 s for a million points of curves. */
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import Sqlite from 'better-sqlite3';

const tables = {
  historyBytes: ['job_event', 'metric_point', 'audit', 'webhook_delivery', 'alert_event'],
  jobBytes: [
    ...['job', 'attempt', 'job_subject', 'evaluation', 'study', 'trial', 'load_test', 'load_test_rate'],
    ...['benchmark_run', 'benchmark_row', 'benchmark_point', 'regression', 'report'],
  ],
};
export type TableBytes = Record<keyof typeof tables, number>;

const client = new Sqlite(join(workerData, 'whetstone.db'), { readonly: true });
const bytesOf = client
  .prepare(
    `SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE aggregate = TRUE
     AND name IN (SELECT name FROM sqlite_schema WHERE tbl_name IN (SELECT value FROM json_each(?)))`,
  )
  .pluck();
const bytes = Object.fromEntries(Object.entries(tables).map(([name, of]) => [name, bytesOf.get(JSON.stringify(of))]));
client.close();
parentPort?.postMessage(bytes);
