import { expect, test } from 'vitest';
import { inTransaction } from '../src/db.ts';
import { enqueue } from '../src/jobs/enqueue.ts';
import { exportReport } from '../src/reports/exports.ts';
import { insertReport } from '../src/reports/reports.ts';
import { exportOf } from '../src/reports/serve.ts';
import { stretchesOf } from './support/eventLoop.ts';
import { nobody } from './support/jobs.ts';
import { madeUp, modelContext } from './support/reports.ts';
import { withServer } from './support/server.ts';

test('while a report of 200 rows is written as a page, the server answers others', async () => {
  const rows = Array.from({ length: 200 }, (_, n) => ({ latencyMs: 2 + n / 100, intraOpThreads: n + 1 }));
  const { made } = await madeUp(rows, [modelContext(1)]);
  await withServer(async ({ services }) => {
    const { id: reportId } = inTransaction(services.db, (tx) => {
      const { id } = enqueue(tx, nobody, { kind: 'BENCHMARK', spec: {} });
      return insertReport(tx, id, made);
    });
    // The first time also compiles.
    const here = async () => exportReport(made, 'HTML');
    await here();
    const { total } = await stretchesOf(here);
    let content = '';
    const run = async () => {
      ({ content } = await exportOf(services, {}, { reportId }, 'HTML'));
    };
    await run();
    const { longest } = await stretchesOf(run);
    expect(content).toBe((await here()).content);
    expect(longest / total).toBeLessThan(0.5);
  });
});
