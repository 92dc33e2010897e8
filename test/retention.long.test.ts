import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { count } from 'drizzle-orm';
import { afterEach, expect, test, vi } from 'vitest';
import { inTransaction, openDatabase } from '../src/db.ts';
import { attempt, job, jobEvent, metricPoint } from '../src/jobs/tables.ts';
import { sweepHistory } from '../src/retention.ts';
import { withFolder } from './support/server.ts';

const dayMs = 86_400_000;
const jobsPerMonth = 2500;
const months = 6;

afterEach(() => {
  vi.useRealTimers();
});

test('while 15,000 jobs end and their time passes, the database stops growing after the second month', () =>
  withFolder(async (dataDir) => {
    // In the past: the database itself keeps the audit log of the last day, by its own clock.
    const beganAt = Date.now() - 400 * dayMs;
    vi.useFakeTimers({ toFake: ['Date'] });
    mkdirSync(join(dataDir, 'logs'));
    const { db, close } = openDatabase(dataDir);
    try {
      const sizes: number[] = [];
      for (let month = 0; month < months; month += 1) {
        vi.setSystemTime(beganAt + month * 31 * dayMs);
        const at = Date.now();
        inTransaction(db, (tx) => {
          for (let n = 0; n < jobsPerMonth; n += 1) {
            const jobId = `${month}-${n}`;
            const about = { kind: 'TRAIN', state: 'SUCCEEDED', slotsNeeded: 1, priority: 0 } as const;
            tx.insert(job)
              .values({ ...about, id: jobId, specJson: { note: 'x'.repeat(1000) }, createdAt: at, endedAt: at })
              .run();
            tx.insert(attempt).values({ jobId, number: 1, state: 'SUCCEEDED', startedAt: at, endedAt: at }).run();
            for (let seq = 1; seq <= 5; seq += 1) {
              tx.insert(jobEvent).values({ jobId, seq, attemptNumber: 1, at, type: 'STATE', payloadJson: {} }).run();
              tx.insert(metricPoint)
                .values({ jobId, name: 'loss', step: seq, value: 1 / seq, attemptNumber: 1 })
                .run();
            }
          }
        });
        await sweepHistory({ db, config: { dataDir, auditDays: 30, jobDays: 30, jobHistoryDays: 30, jobLogDays: 30 } });
        expect(db.select({ jobs: count() }).from(job).get()).toEqual({ jobs: jobsPerMonth });
        sizes.push(Number(db.$client.pragma('page_count', { simple: true })));
      }
      console.log(`Pages of the database after each month: ${sizes.join(', ')}.`);
      expect(Math.max(...sizes)).toBeLessThanOrEqual(1.02 * (sizes[1] as number));
    } finally {
      close();
    }
  }));
