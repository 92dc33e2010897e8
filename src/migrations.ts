/** Brings the schema of a database up to date, once, and leaves a copy of what was before. */
import { closeSync, fchmodSync, fsyncSync, openSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type Sqlite from 'better-sqlite3';
import { readMigrationFiles } from 'drizzle-orm/migrator';

export const migrationsFolder = join(import.meta.dirname, '..', 'drizzle');

/** How many migrations this version knows. */
export const knownMigrations = (): number => readMigrationFiles({ migrationsFolder }).length;

/** The copy that was left before a migration: of the database with so many migrations. */
const copyOf = (applied: number): string => `whetstone-before-upgrade-${applied}.db`;
const isCopy = /^whetstone-before-upgrade-\d+\.db$/;

/**
 * Runs the migrations that are new, in one transaction, with foreign keys off. Throws when a later version has run others: its schema would make
 * this version's queries fail, and what this one writes might be wrong there; and when rows refer to rows that do not exist.
 */
export function migrate(client: Sqlite.Database, dataDir: string, folder: string): void {
  const known = readMigrationFiles({ migrationsFolder: folder });
  const isNew = client.prepare("SELECT 1 FROM sqlite_master WHERE name = '__drizzle_migrations'").get() === undefined;
  const applied = isNew ? [] : (client.prepare('SELECT created_at FROM __drizzle_migrations').pluck().all() as (number | string)[]);
  const last = Math.max(0, ...applied.map(Number));
  if (last > Math.max(...known.map(({ folderMillis }) => folderMillis))) throw new Error(newerText(dataDir, applied.length, known.length));
  const wanted = known.filter(({ folderMillis }) => folderMillis > last);
  if (wanted.length > 0) {
    if (applied.length > 0) copyBefore(client, dataDir, applied.length);
    run(client, wanted);
  }
  checkForeignKeys(client);
}

function newerText(dataDir: string, applied: number, known: number): string {
  const copies = readdirSync(dataDir).filter((name) => isCopy.test(name));
  return (
    `A newer version of Whetstone has written the database in this data folder: it has ${applied} migrations, and this version knows ${known}. ` +
    'Start that version, or set WHETSTONE_DATA_DIR to another folder.' +
    (copies.includes(copyOf(known))
      ? ` To go back to the day of the upgrade, remove whetstone.db, whetstone.db-wal and whetstone.db-shm, and rename ${copyOf(known)} to whetstone.db: what came after it is lost.`
      : '')
  );
}

/** One copy stays, the newest. An earlier try may have left one: the database may have changed since. */
function copyBefore(client: Sqlite.Database, dataDir: string, applied: number): void {
  const unfinished = join(dataDir, `${copyOf(applied)}.unfinished`);
  rmSync(unfinished, { force: true });
  try {
    client.prepare('VACUUM INTO ?').run(unfinished);
    const file = openSync(unfinished, 'r+');
    fchmodSync(file, 0o600);
    fsyncSync(file);
    closeSync(file);
    renameSync(unfinished, join(dataDir, copyOf(applied)));
  } catch (error) {
    rmSync(unfinished, { force: true });
    throw error;
  }
  for (const name of readdirSync(dataDir)) if (isCopy.test(name) && name !== copyOf(applied)) rmSync(join(dataDir, name));
}

/** drizzle's own hides a full disk behind the rollback that SQLite has done already. */
function run(client: Sqlite.Database, migrations: ReturnType<typeof readMigrationFiles>): void {
  const transaction = client.transaction(() => {
    client.exec('CREATE TABLE IF NOT EXISTS __drizzle_migrations (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at numeric)');
    for (const { sql: statements, hash, folderMillis } of migrations) {
      for (const statement of statements) client.exec(statement);
      client.prepare('INSERT INTO __drizzle_migrations (hash, created_at) VALUES (?, ?)').run(hash, folderMillis);
    }
  });
  transaction.immediate();
}

/**
 * Once after each migration, since it runs without foreign keys: the check reads every row of every table. `user_version` is the number
 * of migrations after which it passed.
 */
function checkForeignKeys(client: Sqlite.Database): void {
  const migrations = client.prepare('SELECT count(*) FROM __drizzle_migrations').pluck().get();
  if (client.pragma('user_version', { simple: true }) === migrations) return;
  const violations = client.pragma('foreign_key_check') as unknown[];
  if (violations.length > 0) throw new Error(`The database has ${violations.length} rows that refer to rows that do not exist.`);
  client.pragma(`user_version = ${migrations}`);
}
