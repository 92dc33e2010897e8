import { statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createBus } from '../src/bus.ts';
import { readConfig } from '../src/config.ts';
import { inTransaction, openDatabase } from '../src/db.ts';
import { job, jobEvent, jobHyperparameter, jobSubject, metricPoint } from '../src/jobs/tables.ts';
import { insertModel } from '../src/models/models.ts';
import { retentionSweeps } from '../src/retention/sweep.ts';
import { withFolder } from './support/server.ts';

const dayMs = 86_400_000;

test('with retention on, 10,000 jobs that end each month make the database no larger than the first 10,000, nor its log', () =>
  withFolder(async (dataDir) => {
    const { db, close } = openDatabase(dataDir);
    try {
      const config = { ...readConfig({ WHETSTONE_DATA_DIR: dataDir }), jobDays: 30 };
      const { id: modelId } = insertModel(db, { name: 'a', task: 'CLASSIFICATION', notes: '', createdById: null });
      let made = 0;
      const endJobs = (endedAt: number) => {
        inTransaction(db, (tx) => {
          for (const last = made + 10_000; made < last; made += 1) {
            const id = String(made);
            const row = { kind: 'TRAIN', state: 'FAILED', specJson: { notes: 'x'.repeat(500) }, slotsNeeded: 1, priority: 0 } as const;
            tx.insert(job)
              .values({ id, ...row, createdAt: endedAt, endedAt })
              .run();
            tx.insert(jobSubject).values({ subjectId: modelId, jobId: id }).run();
            tx.insert(jobHyperparameter).values({ jobId: id, name: 'epochs', value: made }).run();
            for (let n = 1; n <= 3; n += 1) {
              tx.insert(jobEvent).values({ jobId: id, seq: n, attemptNumber: 1, at: endedAt, type: 'STATE', payloadJson: {} }).run();
              tx.insert(metricPoint).values({ jobId: id, name: 'loss', step: n, value: n, attemptNumber: 1 }).run();
            }
          }
        });
      };
      const sweep = async () => {
        for (const one of Object.values(retentionSweeps({ db, bus: createBus(), config }))) await one();
      };
      const size = () => {
        db.$client.pragma('wal_checkpoint(PASSIVE)');
        const pages = Number(db.$client.pragma('page_count', { simple: true }));
        return { pages, logBytes: statSync(join(dataDir, 'whetstone.db-wal')).size };
      };
      // What is there at a time: the month that is due, and the one that is not.
      endJobs(Date.now() - 40 * dayMs);
      endJobs(Date.now() - dayMs);
      const full = size();
      for (let month = 0; month < 2; month += 1) {
        await sweep();
        expect(db.$client.prepare('SELECT count(*) FROM job').pluck().get()).toBe(10_000);
        db.update(job)
          .set({ endedAt: Date.now() - 40 * dayMs })
          .run();
        endJobs(Date.now() - dayMs);
        // The audit log tells of each that was deleted; it has a bound of its own.
        expect(size().pages).toBeLessThan(full.pages * 1.2);
        expect(size().logBytes).toBeLessThan(Math.max(full.logBytes, 64 * 2 ** 20) * 1.1);
      }
    } finally {
      close();
    }
  }));
