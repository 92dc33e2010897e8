import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sql } from 'drizzle-orm';
import { afterEach, expect, test, vi } from 'vitest';
import { inTransaction } from '../src/db.ts';
import { insertDeployment, insertRevision } from '../src/deployments/deployments.ts';
import { deploymentRevision } from '../src/deployments/tables.ts';
import { insertModel } from '../src/models/models.ts';
import { modelVersion } from '../src/models/tables.ts';
import { storageUse } from '../src/retention/storageUse.ts';
import { type Store, stores } from '../src/retention/stores.ts';
import { eventually } from './support/eventually.ts';
import { withServer } from './support/server.ts';
import { withStorage } from './support/storage.ts';

afterEach(() => void vi.restoreAllMocks());

const rows = Object.entries<Store>(stores);
/** The names of the rows that a file of the data folder belongs to. */
const rowsOf = (file: string) => rows.filter(([, { files }]) => files?.test(file)).map(([name]) => name);

test('every table and every file of the data folder has a row of system.storage, and one alone', () =>
  withServer(async ({ services, dataDir, graphql, as }) => {
    const tables = services.db.all<{ name: string }>(sql`SELECT name FROM sqlite_schema WHERE type = 'table'`).map(({ name }) => name);
    const counted = rows.flatMap(([, store]) => store.tables ?? []);
    expect(counted.toSorted()).toEqual(tables.filter((name) => !/^(sqlite_|__drizzle)/.test(name)).sort());
    // The database itself is its tables, with FREE_PAGES.
    const files = readdirSync(dataDir).filter((name) => name !== 'whetstone.db');
    expect(files.filter((name) => rowsOf(name).length !== 1)).toEqual([]);
    // Also those that only other servers make.
    const named = readdirSync('src', { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.ts'))
      .flatMap((path) => [...readFileSync(join('src', path), 'utf8').matchAll(/dataDir, '([^']+)'/g)].map(([, name]) => String(name)));
    expect(named).toContain('logs');
    expect([...new Set(named)].filter((name) => name !== 'whetstone.db' && rowsOf(name).length !== 1)).toEqual([]);

    const { data, errors } = await graphql(
      '{ system { storage(days: 30) { name count sizeBytes bound setting days dueCount dueBytes } backups { nextAt } } }',
      {},
      await as('VIEWER'),
    );
    expect(errors).toBeUndefined();
    expect(data.system.storage.map(({ name }: { name: string }) => name)).toEqual(Object.keys(stores));
    expect(data.system.storage.find(({ name }: { name: string }) => name === 'AUDIT')).toMatchObject({
      count: expect.any(Number),
      setting: 'WHETSTONE_AUDIT_DAYS',
      days: 365,
      dueCount: 0,
    });
    expect(data.system.backups).toBeNull();
    const wrong = await graphql('{ system { storage(days: 1) { name } } }', {}, await as('VIEWER'));
    expect(wrong.errors?.[0]).toMatchObject({ message: '`days` is between 2 and 36500; it is 1.', extensions: { code: 'LIMIT' } });
  }));

test('what uses the disk is told by kind, and is measured again after ten seconds only', () =>
  withStorage(async ({ config, db }) => {
    const folders = { uploads: 100, 'work/job/1': 2000, 'cache/images/a': 30_000, logs: 400_000 };
    for (const [folder, size] of Object.entries(folders)) {
      mkdirSync(join(config.dataDir, folder), { recursive: true });
      writeFileSync(join(config.dataDir, folder, 'file'), Buffer.alloc(size));
    }
    db.run(sql`INSERT INTO blob VALUES ('a', 5000, 0), ('b', 7, 9e15)`);
    let now = 1e9;
    vi.spyOn(performance, 'now').mockImplementation(() => now);
    const use = async () => Object.fromEntries((await storageUse(config, null)).map((one) => [one.name, one]));
    const first = await use();
    expect(first).toMatchObject({
      WORK: { count: 1, sizeBytes: 2000, due: { count: 1, sizeBytes: 2000 } },
      CACHE: { sizeBytes: 30_000, due: { sizeBytes: 30_000 } },
      JOB_LOGS: { sizeBytes: 400_000, due: { count: 1 } },
      BLOBS: { count: 2, sizeBytes: 5007, due: { count: 1, sizeBytes: 5000 } },
      BACKUPS: { count: 0, sizeBytes: 0 },
    });
    expect(first.UPLOADS?.sizeBytes).toBeGreaterThan(100);
    expect(first.JOBS?.sizeBytes).toBeGreaterThan(0);
    rmSync(join(config.dataDir, 'work'), { recursive: true });
    now += 9_000;
    expect((await use()).WORK?.sizeBytes).toBe(2000);
    now += 2_000;
    // The stale figure is given at once, the new one when it is there.
    expect((await use()).WORK?.sizeBytes).toBe(2000);
    await eventually(async () => expect((await use()).WORK?.sizeBytes).toBe(0));
  }));

test('a deployment keeps its last 1,000 revisions, and the one that a rollback goes to', () =>
  withStorage(async ({ db }) => {
    const { id: modelId } = insertModel(db, { name: 'a', task: 'CLASSIFICATION', notes: '', createdById: null });
    const kind = { format: 'ONNX', precision: 'FP32', origin: 'UPLOADED', state: 'READY' } as const;
    db.insert(modelVersion)
      .values({ id: 'version', modelId, number: 1, ...kind, createdAt: 0 })
      .run();
    const { id: deploymentId } = insertDeployment(db, 'a');
    const row = { deploymentId, modelVersionId: 'version', settingsJson: {}, createdAt: 0 };
    // The first has served; those that were to follow it have failed.
    db.insert(deploymentRevision)
      .values({ ...row, number: 1, state: 'RETIRED', activatedAt: 1, retiredAt: 2 })
      .run();
    inTransaction(db, (tx) => {
      for (let number = 2; number <= 1001; number += 1)
        tx.insert(deploymentRevision)
          .values({ ...row, number, state: 'FAILED' })
          .run();
    });
    expect(insertRevision(db, { ...row, createdById: null }).number).toBe(1002);
    const numbers = db.select({ number: deploymentRevision.number }).from(deploymentRevision).all();
    expect(numbers.map(({ number }) => number)).toEqual([1, ...Array.from({ length: 1000 }, (_, i) => i + 3)]);
  }));
