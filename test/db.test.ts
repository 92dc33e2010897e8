import { chmodSync, cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { sql } from 'drizzle-orm';
import { expect, test } from 'vitest';
import { writeAudit } from '../src/accounts/audit.ts';
import { audit, user } from '../src/accounts/tables.ts';
import { findDatasetVersion, listItems } from '../src/datasets/datasets.ts';
import { type DatasetVersion, datasetItem } from '../src/datasets/tables.ts';
import { type Db, inTransaction, openDatabase, passingKind, rowInsert } from '../src/db.ts';
import { knownMigrations } from '../src/migrations.ts';
import { migrationsUntil } from './support/earlier.ts';
import { eventually } from './support/eventually.ts';
import { withChild, withServerProcess } from './support/process.ts';
import { adminName, adminPassword, postGraphql, withFolder, withServer } from './support/server.ts';

const root = join(import.meta.dirname, '..');
const sizeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0;
const fileIn = (dataDir: string) => join(dataDir, 'whetstone.db');

/** Runs `use` with a database in a new folder. */
const withDatabase = <T>(use: (db: Db, dataDir: string) => T | Promise<T>): Promise<T> =>
  withFolder(async (dataDir) => {
    const { db, close } = openDatabase(dataDir);
    try {
      return await use(db, dataDir);
    } finally {
      close();
    }
  });

/** Holds the write lock of a database from another process while `use` runs. */
const whileLocked = (dataDir: string, use: () => Promise<void>): Promise<void> =>
  withChild(
    [
      '-e',
      `const db = new (require('better-sqlite3'))(process.argv[1], { timeout: 5000 });
       db.exec('BEGIN IMMEDIATE'); console.log('locked'); setInterval(() => {}, 1000);`,
      fileIn(dataDir),
    ],
    {},
    async (child) => {
      await child.line((line) => line === 'locked');
      await use();
      child.kill('SIGKILL');
      await child.exit;
    },
  );

const refreshMutation = 'mutation ($t: String!) { refresh(input: { refreshToken: $t }) { credentials { refreshToken } } }';

test('while another process holds the lock, a write is a retryable UNAVAILABLE, reads go on, and nothing is lost', () =>
  withServer(async (server) => {
    const token = await server.admin();
    const { refreshToken } = await server.login(adminName, adminPassword);
    await whileLocked(server.dataDir, async () => {
      for (let i = 0; i < 3; i++) {
        const { status, headers, data, errors } = await server.graphql(refreshMutation, { t: refreshToken });
        expect([status, headers.get('retry-after'), data]).toEqual([503, '1', null]);
        expect(errors?.[0]).toMatchObject({
          message: 'The database is in use by another process. Try again.',
          extensions: { code: 'UNAVAILABLE', retryable: true, retryAfterMs: 1000, requestId: expect.any(String) },
        });
      }
      expect((await server.graphql('{ viewer { name } }', {}, token)).data).toEqual({ viewer: { name: adminName } });
      expect((await fetch(`${server.url}/health`)).status).toBe(200);
    });
    const { data, errors } = await server.graphql(refreshMutation, { t: refreshToken });
    expect([errors, data.refresh.credentials.refreshToken]).toEqual([undefined, expect.any(String)]);
  }));

test('a statement waits for a lock at most 250 ms, because the event loop waits with it', () =>
  withDatabase((db) => {
    const busyTimeoutMs = db.$client.pragma('busy_timeout', { simple: true }) as number;
    expect(busyTimeoutMs).toBeGreaterThan(0);
    expect(busyTimeoutMs).toBeLessThanOrEqual(250);
  }));

test('what is written is on the disk before it is told: write-ahead log, full synchronization, foreign keys', () =>
  withDatabase((db) => {
    const pragma = (name: string) => db.$client.pragma(name, { simple: true });
    expect([pragma('journal_mode'), pragma('synchronous'), pragma('foreign_keys')]).toEqual(['wal', 2, 1]);
  }));

test('nobody else on the machine can read what a server writes, nor what an earlier version left readable', () =>
  withFolder(async (folder) => {
    const WHETSTONE_DATA_DIR = join(folder, 'data');
    mkdirSync(WHETSTONE_DATA_DIR, { mode: 0o755 });
    chmodSync(WHETSTONE_DATA_DIR, 0o755);
    writeFileSync(fileIn(WHETSTONE_DATA_DIR), '', { mode: 0o644 });
    const openToOthers = () =>
      ['.', ...readdirSync(WHETSTONE_DATA_DIR, { recursive: true, encoding: 'utf8' })].filter(
        (name) => (statSync(join(WHETSTONE_DATA_DIR, name), { throwIfNoEntry: false })?.mode ?? 0) & 0o077,
      );
    expect(openToOthers()).toEqual(['.', 'whetstone.db']);
    await withServerProcess({ WHETSTONE_DATA_DIR }, async ({ url }) => {
      expect((await postGraphql(url, '{ viewer { id } }')).data).toEqual({ viewer: null });
      expect(readdirSync(WHETSTONE_DATA_DIR)).toEqual(expect.arrayContaining(['whetstone.db-wal', 'server.lock', 'signing-key.pem']));
      expect(openToOthers()).toEqual([]);
    });
  }));

test('a data folder of somebody else that everybody can read is refused with one sentence', () =>
  withFolder(async (folder) => {
    chmodSync(folder, 0o755);
    const isRoot = process.getuid?.() === 0;
    // Root may change the mode of every folder: meanwhile this process is somebody else. Nothing is awaited until it is root again.
    if (isRoot) process.seteuid?.('nobody');
    try {
      expect(() => openDatabase(isRoot ? folder : '/var/tmp')).toThrow(
        /^Other users can read the data folder .* its mode cannot be changed\. Run `chmod 700`/,
      );
    } finally {
      if (isRoot) process.seteuid?.(0);
    }
  }));

test('a second server on the same folder is refused with a message, and may start when the first was killed', () =>
  withFolder(async (WHETSTONE_DATA_DIR) => {
    const env = { WHETSTONE_DATA_DIR };
    await withServerProcess(env, async (first) => {
      await withChild(['src/main.ts', 'serve'], { WHETSTONE_PORT: '0', ...env }, async (second) => {
        expect(await second.exit).toEqual({ code: 1, signal: null });
        expect(second.lines).toEqual([
          'Another Whetstone server uses this data folder. Stop it, or set WHETSTONE_DATA_DIR to another folder.',
        ]);
      });
      expect((await fetch(`${first.url}/ready`)).status).toBe(200);
      first.kill('SIGKILL');
      await first.exit;
      await withServerProcess(env, async (third) => expect((await fetch(`${third.url}/ready`)).status).toBe(200));
    });
  }));

test('the audit log can be added to and neither changed nor shortened', () =>
  withDatabase((db) => {
    const write = (action: string) => writeAudit(db, { actorId: null, requestId: null }, { action });
    write('one');
    write('two');
    expect(() => db.update(audit).set({ action: 'other' }).run()).toThrow('append-only');
    expect(() => db.delete(audit).run()).toThrow('append-only');
    expect(() => db.$client.exec("INSERT OR REPLACE INTO audit (seq, at, action, outcome) VALUES (1, 0, 'other', 'OK')")).toThrow();
    expect(db.select({ action: audit.action }).from(audit).all()).toEqual([{ action: 'one' }, { action: 'two' }]);
  }));

test('a transaction is carried out as a whole or not at all', () =>
  withDatabase((db) => {
    const write = (action: string) => writeAudit(db, { actorId: null, requestId: null }, { action });
    expect(() =>
      inTransaction(db, (tx) => {
        writeAudit(tx, { actorId: null, requestId: null }, { action: 'lost' });
        throw new Error('in the middle');
      }),
    ).toThrow('in the middle');
    write('kept');
    expect(db.select({ action: audit.action }).from(audit).all()).toEqual([{ action: 'kept' }]);
  }));

test('a transaction that read before another process wrote does not fail at its own write', () =>
  withDatabase((db, dataDir) => {
    inTransaction(db, (tx) => {
      tx.select().from(user).all();
      const other = new Sqlite(fileIn(dataDir), { timeout: 0 });
      // The lock is taken at the begin: the other one waits, and this one is never told that its snapshot is old.
      expect(() => other.exec("INSERT INTO audit (at, action, outcome) VALUES (0, 'other', 'OK')")).toThrow(/locked/);
      other.close();
      writeAudit(tx, { actorId: null, requestId: null }, { action: 'own' });
    });
    expect(db.select({ action: audit.action }).from(audit).all()).toEqual([{ action: 'own' }]);
  }));

test('rows inserted by a prepared query are stored as by one that is built for them, nulls and JSON included', () =>
  withDatabase((db) => {
    db.$client.pragma('foreign_keys = OFF');
    const insert = rowInsert(datasetItem);
    const common = { versionId: 'v', split: 'val', path: 'val/0.png', sha256: 'a', width: 8, height: 9, thumbnailOffset: 0 } as const;
    const [classified, detected] = [
      { ...common, n: 0, label: 3, boxesJson: null, thumbnailBytes: 1 },
      { ...common, n: 1, label: null, boxesJson: [{ label: 0, x: 0.5, y: 1, width: 2, height: 3 }], thumbnailBytes: 2 },
    ];
    const stored = () => db.$client.prepare('SELECT * FROM dataset_item ORDER BY n').all();
    insert(db, classified);
    insert(db, detected);
    const prepared = stored();
    db.delete(datasetItem).run();
    db.insert(datasetItem).values([classified, detected]).run();
    expect(prepared).toEqual(stored());
    expect(prepared).toMatchObject([{ boxesJson: null }, { label: null }]);
  }));

test('a migration that leaves rows which refer to rows that do not exist is refused at each start, and the folder is free again', () =>
  withFolder((folder) =>
    withFolder(async (dataDir) => {
      const lonely = "INSERT INTO session (id, userId, familyId, refreshHash, createdAt, expiresAt) VALUES ('s', 'nobody', 'f', 'h', 0, 0)";
      const migrations = furtherMigration(dataDir, folder, lonely);
      for (let i = 0; i < 2; i++) expect(() => openDatabase(dataDir, migrations)).toThrow('1 rows that refer to rows that do not exist');
      const client = new Sqlite(fileIn(dataDir));
      client.exec('DELETE FROM session');
      client.close();
      openDatabase(dataDir, migrations).close();
    }),
  ));

test('a start without a migration does not read every row to look for such', () =>
  withFolder(async (dataDir) => {
    openDatabase(dataDir).close();
    const client = new Sqlite(fileIn(dataDir));
    client.pragma('foreign_keys = OFF');
    client.exec("INSERT INTO session (id, userId, familyId, refreshHash, createdAt, expiresAt) VALUES ('s', 'nobody', 'f', 'h', 0, 0)");
    client.close();
    openDatabase(dataDir).close();
  }));

test('what passes is told from other failures, however deep the error is wrapped', () => {
  const busy = new Sqlite.SqliteError('database is locked', 'SQLITE_BUSY_SNAPSHOT');
  expect(passingKind(new Error('outer', { cause: new Error('inner', { cause: busy }) }))).toBe('BUSY');
  expect(passingKind(new Sqlite.SqliteError('disk is full', 'SQLITE_FULL'))).toBe('FULL');
  expect(passingKind(Object.assign(new Error('no space'), { code: 'ENOSPC' }))).toBe('FULL');
  expect(passingKind(new Sqlite.SqliteError('readonly', 'SQLITE_READONLY_DIRECTORY'))).toBe('UNWRITABLE');
  expect(passingKind(new Sqlite.SqliteError('fsync', 'SQLITE_IOERR_DIR_FSYNC'))).toBe('UNWRITABLE');
  expect(passingKind(new Sqlite.SqliteError('constraint', 'SQLITE_CONSTRAINT_FOREIGNKEY'))).toBeNull();
  expect(passingKind('SQLITE_BUSY')).toBeNull();
});

/** A data folder with rows in tables that others refer to, and the number of rows of every table. */
function fill(dataDir: string): Record<string, number> {
  const { db, close } = openDatabase(dataDir);
  const count = (n: number) => `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${n})`;
  db.$client.exec(`
    INSERT INTO user (id, name, passwordHash, role, createdAt)
      ${count(3000)} SELECT 'user' || i, 'name' || i, hex(randomblob(50)), 'VIEWER', i FROM n;
    INSERT INTO session (id, userId, familyId, refreshHash, createdAt, expiresAt)
      ${count(6000)} SELECT 'session' || i, 'user' || (i % 3000 + 1), 'family' || i, hex(randomblob(32)), i, i FROM n;
    INSERT INTO job (id, kind, state, specJson, slotsNeeded, priority, createdById, createdAt)
      ${count(1000)} SELECT 'job' || i, 'IMPORT_MODEL', 'QUEUED', '{}', 0, 0, 'user' || i, i FROM n;
    INSERT INTO job_event (jobId, seq, attemptNumber, at, type, payloadJson)
      ${count(10_000)} SELECT 'job' || (i % 1000 + 1), i, 1, i, 'STATE', '{}' FROM n;
    INSERT INTO audit (at, action, outcome) ${count(5000)} SELECT i, 'filled', 'OK' FROM n;`);
  const counts = rowCounts(db);
  close();
  return counts;
}

function rowCounts(db: Db): Record<string, number> {
  const tables = db.all<{ name: string }>(
    sql`SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name`,
  );
  return Object.fromEntries(
    tables
      .filter(({ name }) => !name.startsWith('__'))
      .map(({ name }) => [name, db.get<{ n: number }>(sql.raw(`SELECT count(*) AS n FROM "${name}"`)).n]),
  );
}

/** The product's migrations and a further one that rebuilds tables which others refer to, as drizzle-kit does, then runs `last`. */
function furtherMigration(dataDir: string, folder: string, last: string): string {
  const to = join(folder, `migrations-${last.length}`);
  cpSync(join(root, 'drizzle'), to, { recursive: true });
  const { db, close } = openDatabase(dataDir);
  const statements = ['user', 'job'].flatMap((table) => {
    const made = db.all<{ type: string; sql: string }>(
      sql`SELECT type, sql FROM sqlite_master WHERE tbl_name = ${table} AND sql IS NOT NULL`,
    );
    const createTable = made.find(({ type }) => type === 'table')?.sql as string;
    return [
      createTable.replace(/CREATE TABLE [`"]?\w+[`"]?/, `CREATE TABLE \`__new_${table}\``).replaceAll(`"${table}".`, `"__new_${table}".`),
      `INSERT INTO \`__new_${table}\` SELECT * FROM \`${table}\``,
      `DROP TABLE \`${table}\``,
      `ALTER TABLE \`__new_${table}\` RENAME TO \`${table}\``,
      ...made.filter(({ type }) => type !== 'table').map((other) => other.sql),
    ];
  });
  close();
  const journalFile = join(to, 'meta', '_journal.json');
  const journal = JSON.parse(readFileSync(journalFile, 'utf8'));
  journal.entries.push({ idx: journal.entries.length, version: '6', when: Date.now(), tag: 'further', breakpoints: true });
  writeFileSync(journalFile, JSON.stringify(journal));
  writeFileSync(join(to, 'further.sql'), ['PRAGMA foreign_keys=OFF', ...statements, last].join(';\n--> statement-breakpoint\n'));
  return to;
}

/** Writes until it is killed. */
const endless = `INSERT INTO audit (at, action, outcome)
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, 'never committed', 'OK' FROM n`;

test('a migration killed in the middle leaves everything as it was, and completes at the next start', () =>
  withFolder((folder) =>
    withFolder(async (dataDir) => {
      const before = fill(dataDir);
      const interrupted = furtherMigration(dataDir, folder, endless);
      const complete = furtherMigration(dataDir, folder, 'SELECT 1 WHERE 0');
      const check = (migrations?: string) => {
        const { db, close } = openDatabase(dataDir, migrations);
        try {
          expect(rowCounts(db)).toEqual(before);
          expect(db.$client.pragma('foreign_key_check')).toEqual([]);
          expect(db.$client.pragma('integrity_check', { simple: true })).toBe('ok');
          return db.get<{ n: number }>(sql`SELECT count(*) AS n FROM __drizzle_migrations`).n;
        } finally {
          close();
        }
      };
      const applied = check();
      for (let kill = 0; kill < 2; kill++) {
        await withChild(['test/support/migrate.ts', dataDir, interrupted], {}, async (child) => {
          // Uncommitted pages stand in the write-ahead log when the tables were rebuilt and the last statement writes.
          const written = eventually(() => expect(sizeOf(`${fileIn(dataDir)}-wal`)).toBeGreaterThan(8 * 1024 * 1024));
          await Promise.race([written, child.exit.then(() => Promise.reject(new Error(child.lines.join('\n'))))]);
          child.kill('SIGKILL');
          await child.exit;
          expect(child.lines).toEqual(['opening']);
        });
        expect(check(), 'rolled back').toBe(applied);
      }
      expect(check(complete), 'carried out').toBe(applied + 1);
      expect(check(complete), 'once').toBe(applied + 1);
    }),
  ));

test('an older program refuses the database of a newer one with a sentence, and leaves it as it is', () =>
  withFolder((folder) =>
    withFolder(async (dataDir) => {
      openDatabase(dataDir, furtherMigration(dataDir, folder, 'SELECT 1 WHERE 0')).close();
      await withChild(['src/main.ts', 'serve'], { WHETSTONE_PORT: '0', WHETSTONE_DATA_DIR: dataDir }, async (older) => {
        expect(await older.exit).toEqual({ code: 1, signal: null });
        expect(older.lines).toEqual([
          expect.stringMatching(
            /^A newer version of Whetstone has written the database in this data folder: it has (\d+) migrations, and this version knows \d+\. Start that version, or set WHETSTONE_DATA_DIR to another folder\. To go back to the day of the upgrade, .+\.$/,
          ),
        ]);
      });
    }),
  ));

test('an upgrade leaves one copy of the database from before, which the earlier version works with again', () =>
  withFolder((folder) =>
    withFolder(async (dataDir) => {
      const copies = () => readdirSync(dataDir).filter((name) => name.includes('before-upgrade'));
      openDatabase(dataDir).close();
      expect(copies(), 'of a new database').toEqual([]);
      const before = fill(dataDir);
      const further = furtherMigration(
        dataDir,
        folder,
        "DELETE FROM job_event; INSERT INTO audit (at, action, outcome) VALUES (1, 'later', 'OK')",
      );
      writeFileSync(join(dataDir, 'whetstone-before-upgrade-3.db'), 'of an earlier upgrade');
      openDatabase(dataDir, further).close();
      openDatabase(dataDir, further).close();
      const [copy] = copies() as [string];
      expect(copies()).toEqual([`whetstone-before-upgrade-${knownMigrations()}.db`]);
      expect(statSync(join(dataDir, copy)).mode & 0o777).toBe(0o600);
      expect(() => openDatabase(dataDir)).toThrow(`rename ${copy} to whetstone.db`);

      for (const ending of ['', '-wal', '-shm']) rmSync(`${fileIn(dataDir)}${ending}`, { force: true });
      renameSync(join(dataDir, copy), fileIn(dataDir));
      const { db, close } = openDatabase(dataDir);
      expect(rowCounts(db)).toEqual(before);
      close();
    }),
  ));

test('items from before there were boxes are kept, counted by split and found by their class', () =>
  withFolder((folder) =>
    withFolder(async (dataDir) => {
      const old = openDatabase(dataDir, migrationsUntil('0003_benchmark', folder));
      old.db.run(sql`INSERT INTO dataset (id, name, task, createdAt) VALUES ('d', 'digits', 'CLASSIFICATION', 0)`);
      old.db.run(sql`INSERT INTO dataset_version (id, datasetId, number, state, splitSeed, classesJson, countsJson, createdAt) VALUES
        ('v', 'd', 1, 'READY', 0, '["a","b"]', '{"items":3,"bySplit":{"train":[1,1],"val":[0,1],"test":[0,0]},"duplicatesAcrossSplits":0}', 0)`);
      for (const [n, split, label] of [
        [0, 'train', 0],
        [1, 'train', 1],
        [2, 'val', 1],
      ]) {
        old.db.run(sql`INSERT INTO dataset_item (versionId, n, split, path, sha256, width, height, label, thumbnailOffset, thumbnailBytes)
          VALUES ('v', ${n}, ${split}, ${`p${n}`}, 'x', 1, 2, ${label}, 3, 4)`);
      }
      old.close();

      const { db, close } = openDatabase(dataDir);
      try {
        const version = findDatasetVersion(db, 'v') as DatasetVersion;
        expect(version.countsJson).toMatchObject({ images: { train: 2, val: 1, test: 0 }, boxesBySplit: null });
        expect(listItems(db, version, { class: 'b' }, 10, null).map(({ n, class: name, boxes }) => [n, name, boxes])).toEqual([
          [1, 'b', null],
          [2, 'b', null],
        ]);
        expect(listItems(db, version, { split: 'val' }, 10, null)).toMatchObject([{ n: 2, width: 1, height: 2, thumbnailBytes: 4 }]);
      } finally {
        close();
      }
    }),
  ));

test('no index makes SQLite compile a query at every call, as one that is partial by IS NOT NULL does for all of its table', () =>
  withDatabase((db) => {
    const indexes = db.$client.prepare("SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '%WHERE%IS NOT NULL%'").all();
    expect(indexes).toEqual([]);
  }));
