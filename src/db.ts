import { chmodSync, closeSync, existsSync, mkdirSync, openSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { count, getTableColumns, type InferSelectModel, type Placeholder, type SQL, sql } from 'drizzle-orm';
import { type BetterSQLite3Database, drizzle } from 'drizzle-orm/better-sqlite3';
import type { SQLiteTable } from 'drizzle-orm/sqlite-core';
import { ApiError } from './errors.ts';
import { migrate, migrationsFolder } from './migrations.ts';
import { releaseReserve, requireReserve } from './reserve.ts';

export type Db = BetterSQLite3Database & { $client: Sqlite.Database };
/** The database, or a transaction on it. */
export type Queryable = Pick<Db, 'select' | 'selectDistinct' | 'insert' | 'update' | 'delete' | 'run' | 'get' | 'all'>;

/** How long a statement waits for another process that holds the lock; the event loop stands still meanwhile. */
const busyTimeoutMs = 250;

/** Pages of the log from which a commit moves them into the database: SQLite's own default. */
const autocheckpointPages = 1000;

export const databaseFile = 'whetstone.db';

/**
 * Opens `whetstone.db` in the data folder and brings its schema up to date. Throws when another server uses the folder, when a newer
 * version has migrated it, and when the migrated rows violate a foreign key. `close` ends both connections.
 */
export function openDatabase(dataDir: string, migrations = migrationsFolder): { db: Db; close: () => void } {
  try {
    return withReserve(dataDir, () => open(dataDir, migrations));
  } catch (error) {
    throw startError(error, dataDir);
  }
}

function open(dataDir: string, migrations: string): ReturnType<typeof openDatabase> {
  const release = lockFolder(dataDir);
  let client: Sqlite.Database | undefined;
  const close = () => {
    client?.close();
    release();
  };
  try {
    // SQLite gives the files beside it the same mode.
    closeSync(openSync(join(dataDir, databaseFile), 'a', 0o600));
    client = new Sqlite(join(dataDir, databaseFile), { timeout: busyTimeoutMs });
    client.pragma('journal_mode = WAL');
    client.pragma('synchronous = FULL');
    // A long reader, such as a backup, makes the log grow; afterwards it would stay as long as it was.
    client.pragma(`journal_size_limit = ${64 * 2 ** 20}`);
    // Without it REPLACE deletes past the trigger that keeps the audit log.
    client.pragma('recursive_triggers = ON');
    const db = drizzle(client);
    // With foreign keys on, a migration that rebuilds a table would delete the rows that refer to it. Inside the transaction SQLite ignores this.
    client.pragma('foreign_keys = OFF');
    migrate(client, dataDir, migrations);
    client.pragma('foreign_keys = ON');
    return { db, close };
  } catch (error) {
    close();
    throw error;
  }
}

/** Repeats `work` with the room of the reserve when it finds the disk full. */
function withReserve<T>(dataDir: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (passingKind(error) !== 'FULL' || !releaseReserve(dataDir)) throw error;
    return work();
  }
}

/** What a person can mend is one sentence with the setting's name. */
export function startError(error: unknown, dataDir: string): unknown {
  const kind = passingKind(error);
  const { code } = error as NodeJS.ErrnoException;
  if (kind === 'BUSY') return new Error(passingErrors.BUSY().message);
  if (kind === 'FULL')
    return new Error(`The disk of the data folder ${dataDir} (WHETSTONE_DATA_DIR) is full. Free some space, then start again.`);
  if (kind === 'UNWRITABLE' || ['EACCES', 'EPERM', 'ENOENT', 'ENOTDIR', 'EEXIST'].includes(String(code)))
    return new Error(
      `The data folder ${dataDir} (WHETSTONE_DATA_DIR) cannot be made or written (${code}). Make it writable, or name another folder.`,
    );
  return error;
}

/**
 * Takes every right from others on the data folder, which holds keys and password hashes, and on the database files of a version that left
 * them readable. Throws when the folder belongs to somebody else who lets everybody in.
 */
function closeToOthers(dataDir: string): void {
  try {
    chmodSync(dataDir, 0o700);
    for (const ending of ['', '-wal', '-shm']) {
      const path = join(dataDir, `${databaseFile}${ending}`);
      if (existsSync(path)) chmodSync(path, 0o600);
    }
  } catch (error) {
    // A volume may belong to root and be open to the server's group only.
    if ((statSync(dataDir).mode & 0o007) === 0) return;
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
    throw new Error(
      `Other users can read the data folder ${dataDir} (WHETSTONE_DATA_DIR), and its mode cannot be changed. Run \`chmod 700\` on it as its owner.`,
    );
  }
}

/** As `mkdirSync` with `recursive`, which never returns where a folder cannot be made though its parent is there: below /proc. */
function makeFolder(path: string): void {
  if (existsSync(path)) return;
  makeFolder(dirname(path));
  mkdirSync(path, { mode: 0o700 });
}

/** Throws where there is no database to administer: opening it would make one. */
export function requireDatabase(dataDir: string): void {
  if (existsSync(join(dataDir, databaseFile))) return;
  throw new Error(`The data folder ${dataDir} (WHETSTONE_DATA_DIR) holds no database. Name the folder of your server.`);
}

/** One server for each data folder. */
function lockFolder(dataDir: string): () => void {
  makeFolder(dataDir);
  closeToOthers(dataDir);
  return takeLock(
    join(dataDir, 'server.lock'),
    'Another Whetstone server uses this data folder. Stop it, or set WHETSTONE_DATA_DIR to another folder.',
  );
}

/**
 * An open transaction on a file of its own, which the system ends when the process dies, until the function that it returns is called. Throws
 * `busy` where another process has it.
 */
export function takeLock(path: string, busy: string): () => void {
  let lock: Sqlite.Database | undefined;
  try {
    lock = new Sqlite(path, { timeout: 0 });
    lock.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    lock?.close();
    throw passingKind(error) === 'BUSY' ? new Error(busy) : error;
  }
  return () => lock.close();
}

/**
 * Runs `work` in one immediate transaction: a deferred one that reads before it writes fails at once (SQLITE_BUSY_SNAPSHOT) when
 * another connection has written meanwhile. `work` must not await. There is one connection, so that `tx` is the database itself,
 * and its prepared queries serve in transactions too.
 */
export function inTransaction<T>(db: Db, work: (tx: Queryable) => T): T {
  requireReserve(dirname(db.$client.name));
  return transact(db, work);
}

/** One that may use the room that is kept for it on a full disk: it lets people in, takes rights away, frees room or ends something. */
export function inUrgentTransaction<T>(db: Db, work: (tx: Queryable) => T): T {
  return withReserve(dirname(db.$client.name), () => transact(db, work));
}

/**
 * One of many whose rows nobody sees before a later transaction counts them in: it does not wait for the disk. The next `inTransaction` brings
 * its rows to the disk with its own, and until then a power cut may take them. `checkpoint` of `checkpoints.ts` has to be called now and then:
 * the log grows, and whoever finds it long waits for the disk.
 */
export function inUnsyncedTransaction<T>(db: Db, work: (tx: Queryable) => T): T {
  db.$client.pragma('synchronous = NORMAL');
  db.$client.pragma('wal_autocheckpoint = 0');
  try {
    return inTransaction(db, work);
  } finally {
    db.$client.pragma(`wal_autocheckpoint = ${autocheckpointPages}`);
    db.$client.pragma('synchronous = FULL');
  }
}

const transact = <T>(db: Db, work: (tx: Queryable) => T): T => db.$client.transaction(() => work(db)).immediate();

/**
 * A query with `sql.placeholder`s that is built and compiled once for each database: for a small read, drizzle takes longer to build
 * it than SQLite to run it.
 */
export function prepared<Query>(build: (db: Queryable) => Query): (db: Queryable) => Query {
  const built = new WeakMap<Queryable, Query>();
  return (db) => {
    const query = built.get(db) ?? build(db);
    built.set(db, query);
    return query;
  };
}

/**
 * An argument of a compiled query whose value SQLite does not plan by. It plans joins and limits by the values of bare ones, and so compiles
 * the query at every call: three quarters of the time of a look-up.
 */
export const argument = (name: string, type: 'TEXT' | 'INTEGER'): SQL => sql`CAST(${sql.placeholder(name)} AS ${sql.raw(type)})`;

/** The argument `limit`. */
export const limitArgument = argument('limit', 'INTEGER') as unknown as Placeholder<'limit'>;

/** Inserts a row with all its columns: an event in 10 µs, where drizzle takes 80, and 30 for each of a query of a hundred. */
export function rowInsert<Table extends SQLiteTable>(table: Table): (db: Queryable, row: InferSelectModel<Table>) => void {
  const columns = Object.entries(getTableColumns(table));
  const values = Object.fromEntries(columns.map(([name]) => [name, sql`${sql.placeholder(name)}`]));
  const insert = prepared((db) =>
    db
      .insert(table)
      .values(values as Table['$inferInsert'])
      .prepare(),
  );
  return (db, row) => {
    // A placeholder of a JSON column would make the text `null` of a null.
    const encoded = columns.map(([name, column]) => {
      const value = row[name as keyof typeof row];
      return [name, value === null ? null : column.mapToDriverValue(value)];
    });
    insert(db).run(Object.fromEntries(encoded));
  };
}

/** Where counts end: to count on would take too long, and nobody pages so far. */
export const countMax = 10_000;

/** How many rows there are, at most `countMax`. */
export function countUpTo(db: Queryable, table: SQLiteTable, where: SQL | undefined, values: Record<string, unknown> = {}): number {
  const found = db
    .select({ one: sql`1`.as('one') })
    .from(table)
    .where(where)
    .limit(countMax)
    .as('found');
  return db.select({ n: count() }).from(found).prepare().get(values)?.n ?? 0;
}

/** What the database and the file system say while something cannot be written now; by the start of their code. */
const passingCodes = {
  BUSY: /^SQLITE_(BUSY|LOCKED)/,
  FULL: /^(SQLITE_FULL|SQLITE_IOERR_(WRITE|FSYNC|TRUNCATE|SHM)|ENOSPC|EDQUOT)/,
  UNWRITABLE: /^(SQLITE_READONLY|SQLITE_CANTOPEN|SQLITE_IOERR|EROFS|EIO)/,
};

/** Why a write failed that may succeed later; null for any other error. */
export function passingKind(error: unknown): keyof typeof passingCodes | null {
  for (let e = error; e instanceof Error; e = e.cause) {
    const { code } = e as NodeJS.ErrnoException;
    for (const [kind, pattern] of Object.entries(passingCodes)) {
      if (typeof code === 'string' && pattern.test(code)) return kind as keyof typeof passingCodes;
    }
  }
  return null;
}

const retryMs = 1000;
const passingErrors: Record<keyof typeof passingCodes, () => ApiError> = {
  BUSY: () => new ApiError('UNAVAILABLE', 'The database is in use by another process. Try again.', retryMs),
  FULL: () => new ApiError('DISK_FULL', "The server's disk is full. Delete what is not needed, then repeat this.", retryMs),
  UNWRITABLE: () =>
    new ApiError(
      'DISK_FULL',
      "The server's disk cannot be written: it is read-only or broken. Ask an administrator to mend it, then repeat this.",
      retryMs,
    ),
};

/** The error for a caller whose write failed for a reason that passes; null for any other error. */
export function passingError(error: unknown): ApiError | null {
  const kind = passingKind(error);
  return kind && passingErrors[kind]();
}
