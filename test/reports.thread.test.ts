import { expect, test } from 'vitest';
import { canonicalJson } from '../src/canonical.ts';
import { inTransaction } from '../src/db.ts';
import { enqueue } from '../src/jobs/enqueue.ts';
import { exportReport } from '../src/reports/exports.ts';
import type { ReportRow } from '../src/reports/report.ts';
import { insertReport } from '../src/reports/reports.ts';
import { exportOf } from '../src/reports/serve.ts';
import { stretchesOf } from './support/eventLoop.ts';
import { nobody } from './support/jobs.ts';
import { madeUp, modelContext } from './support/reports.ts';
import { withServer } from './support/server.ts';

test('while a report of many rows is written as a page, the server answers others', async () => {
  const few = Array.from({ length: 50 }, (_, n) => ({ latencyMs: 2 + n / 100, intraOpThreads: n + 1 }));
  const { made } = await madeUp(few, [modelContext(1)]);
  const rows = Array.from({ length: 1000 }, (_, n) => ({ ...(made.report.rows[n % few.length] as ReportRow), n }));
  const many = { ...made, content: canonicalJson({ ...made.report, rows }) };
  await withServer(async ({ services }) => {
    const { id: reportId } = inTransaction(services.db, (tx) => {
      const { id } = enqueue(tx, nobody, { kind: 'BENCHMARK', spec: {} });
      return insertReport(tx, id, many);
    });
    const here = async () => exportReport(many, 'HTML');
    let content = '';
    const { turns } = await stretchesOf(async () => {
      ({ content } = await exportOf(services, {}, { reportId }, 'HTML'));
    });
    expect(content).toBe((await here()).content);
    // In this thread nothing else would get its turn.
    expect((await stretchesOf(here)).turns).toBeLessThan(5);
    expect(turns).toBeGreaterThan(20);
  });
});
