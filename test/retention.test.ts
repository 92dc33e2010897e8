import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { expect, test } from 'vitest';
import { writeAudit } from '../src/accounts/audit.ts';
import { audit } from '../src/accounts/tables.ts';
import { createBus } from '../src/bus.ts';
import { readConfig } from '../src/config.ts';
import { dataset, datasetVersion } from '../src/datasets/tables.ts';
import { inTransaction, openDatabase } from '../src/db.ts';
import { job, jobEvent, metricPoint } from '../src/jobs/tables.ts';
import { measureStores } from '../src/retention/measure.ts';
import { retentionSweeps } from '../src/retention/sweep.ts';
import { withFolder } from './support/server.ts';

const dayMs = 86_400_000;
const ago = (days: number) => Date.now() - days * dayMs;

test('what grows with use goes at its age: audit lines, and events, curves and logs of jobs that have ended', () =>
  withFolder(async (dataDir) => {
    const { db, close } = openDatabase(dataDir);
    try {
      mkdirSync(join(dataDir, 'logs'));
      const add = (id: string, endedAt: number | null) => {
        const state = endedAt === null ? ('RUNNING' as const) : ('SUCCEEDED' as const);
        db.insert(job)
          .values({ id, kind: 'TRAIN', state, specJson: {}, slotsNeeded: 1, priority: 0, createdAt: ago(500), endedAt })
          .run();
        const event = { jobId: id, attemptNumber: 1, at: ago(500), type: 'STATE' as const, payloadJson: {} };
        for (let seq = 1; seq <= 3; seq++)
          db.insert(jobEvent)
            .values({ ...event, seq })
            .run();
        db.insert(metricPoint).values({ jobId: id, name: 'loss', step: 1, value: 1, attemptNumber: 1 }).run();
        writeFileSync(join(dataDir, 'logs', `${id}.jsonl`), '');
      };
      add('running', null);
      add('recent', ago(5));
      add('older', ago(15));
      add('oldest', ago(25));
      // Its child goes with it; the one that a dataset version shows stays.
      add('gone', ago(45));
      db.insert(job)
        .values({
          id: 'child',
          kind: 'CONVERT',
          state: 'FAILED',
          specJson: {},
          slotsNeeded: 1,
          priority: 0,
          parentId: 'gone',
          createdAt: ago(500),
          endedAt: ago(44),
        })
        .run();
      add('shown', ago(45));
      db.insert(dataset)
        .values({ id: 'dataset', name: 'a', task: 'CLASSIFICATION', createdAt: ago(500) })
        .run();
      db.insert(datasetVersion)
        .values({ id: 'version', datasetId: 'dataset', number: 1, state: 'READY', splitSeed: 0, jobId: 'shown', createdAt: ago(500) })
        .run();
      writeFileSync(join(dataDir, 'logs', 'nobody.jsonl'), '');
      const line = { action: 'login', outcome: 'OK' as const };
      // More than one batch.
      const line31 = ago(31);
      inTransaction(db, (tx) => {
        for (let i = 0; i < 2500; i++)
          tx.insert(audit)
            .values({ ...line, at: line31 })
            .run();
      });
      db.insert(audit)
        .values({ ...line, at: ago(29) })
        .run();

      const config = { ...readConfig({ WHETSTONE_DATA_DIR: dataDir }), auditDays: 30, jobDays: 40, jobHistoryDays: 20, jobLogDays: 10 };
      const due = (await measureStores(config, null)).filter(({ due }) => due.count > 0).map(({ name, due }) => [name, due.count]);
      expect(Object.fromEntries(due)).toEqual({ AUDIT: 2500, JOBS: 2, JOB_EVENTS: 9, CURVES: 3, JOB_LOGS: 5 });
      const sweep = async () => {
        for (const one of Object.values(retentionSweeps({ db, config, bus: createBus() }))) await one();
      };
      await sweep();
      const withRows = (table: typeof jobEvent | typeof metricPoint) =>
        db
          .selectDistinct({ id: table.jobId })
          .from(table)
          .all()
          .map(({ id }) => id)
          .sort();
      expect(withRows(jobEvent)).toEqual(['older', 'recent', 'running']);
      expect(withRows(metricPoint)).toEqual(['older', 'recent', 'running']);
      expect(readdirSync(join(dataDir, 'logs')).sort()).toEqual(['recent.jsonl', 'running.jsonl']);
      expect(db.select({ action: audit.action }).from(audit).all()).toEqual([{ action: 'login' }, { action: 'deleteJob' }]);
      const jobs = db.select({ id: job.id }).from(job).all();
      expect(jobs.map(({ id }) => id).sort(), 'jobs stay for longer').toEqual(['older', 'oldest', 'recent', 'running', 'shown']);
      await sweep();
      expect(existsSync(join(dataDir, 'logs', 'running.jsonl'))).toBe(true);
      const [file] = readdirSync(join(dataDir, 'audit'));
      const cut = readFileSync(join(dataDir, 'audit', String(file)), 'utf8')
        .trim()
        .split('\n');
      expect(cut).toHaveLength(2500);
      expect(JSON.parse(String(cut[0]))).toMatchObject({ seq: 1, action: 'login', at: new Date(line31).toISOString() });
      expect((await measureStores(config, null)).filter(({ due }) => due.count > 0)).toEqual([]);
      // What other ages would remove.
      const earlier = await measureStores(config, 12);
      expect(earlier.find(({ name }) => name === 'JOBS')?.due.count).toBe(2);
    } finally {
      close();
    }
  }));

test('the audit log keeps a million lines and all those of the last day, and nothing else removes one', () =>
  withFolder(async (dataDir) => {
    const { db, close } = openDatabase(dataDir);
    try {
      const insert = `INSERT INTO audit (seq, at, action, outcome) VALUES (?, ?, 'login', 'OK')`;
      db.$client.prepare(insert).run(1, ago(3));
      db.$client.prepare(insert).run(2, ago(0.5));
      db.$client.prepare(insert).run(3_000_000, ago(2));
      await retentionSweeps({ db, bus: createBus(), config: readConfig({ WHETSTONE_DATA_DIR: dataDir }) }).AUDIT?.();
      expect(db.select({ seq: audit.seq }).from(audit).all()).toEqual([{ seq: 2 }, { seq: 3_000_000 }]);
      writeAudit(db, { actorId: null, requestId: null }, { action: 'now' });
      expect(() => db.delete(audit).where(eq(audit.action, 'now')).run()).toThrow('append-only');
      expect(() => db.update(audit).set({ count: 2 }).run()).toThrow('append-only');
    } finally {
      close();
    }
  }));
