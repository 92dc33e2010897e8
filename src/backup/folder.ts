/**
 * A folder of backups. Its `blobs/<first two digits>/<sha256>` are shared by all of them. A backup is the folder `<time>`: in it lie a copy of
 * the database at that time, the logs of jobs and, where they were asked for, the keys. Its `manifest.json` is written last: a folder without it is
 * an unfinished backup.
 */
import { existsSync, readdirSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { z } from 'zod';
import { databaseFile } from '../db.ts';

export const manifestFile = 'manifest.json';

const StoredFile = z.object({ name: z.string(), sha256: z.string(), sizeBytes: z.int() });

const Checks = z.object({
  /** The shared blobs whose hash begins with this hexadecimal digit were read; the next backup reads those of the next digit. */
  digit: z.int().min(0).max(15),
  /** Hashes of the stored files that the data folder had damaged or lost. The next backup reads them again, whatever their digit. */
  damaged: z.array(z.string()),
});
export type Checks = z.infer<typeof Checks>;

export const Manifest = z.object({
  form: z.literal(1),
  /** ISO 8601, UTC. */
  createdAt: z.string(),
  codeVersion: z.string(),
  /** How many migrations the database has had. */
  migrations: z.int(),
  /** Everything in the backup's own folder, sorted by name. */
  files: z.array(StoredFile),
  /** Earlier versions have checked nothing. */
  checks: Checks.optional(),
});
export type Manifest = z.infer<typeof Manifest>;

/** The manifest of a backup; null where the folder holds none. */
export function readManifest(backup: string): Manifest | null {
  const path = join(backup, manifestFile);
  if (!existsSync(path)) return null;
  const read = Manifest.safeParse(parsed(readFileSync(path, 'utf8')));
  if (!read.success) throw new Error(`${path} is damaged, or a newer version of Whetstone has written it.`);
  return read.data;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** What a backup has checked; null where there is none, where an earlier version has made it, or where its manifest cannot be read: then nothing counts as checked. */
export function checksOf(backup: string | undefined): Checks | null {
  try {
    return (backup === undefined ? null : readManifest(backup)?.checks) ?? null;
  } catch {
    return null;
  }
}

/** The backups in a folder, the oldest first, also unfinished ones. */
export const backupsIn = (folder: string): string[] =>
  readdirSync(folder)
    .filter((name) => existsSync(join(folder, name, databaseFile)))
    .sort()
    .map((name) => join(folder, name));

/** The backups in a folder that have been finished, the oldest first; none where there is no folder, or none that can be read. */
export function finishedBackups(folder: string): string[] {
  try {
    return backupsIn(folder).filter((path) => existsSync(join(path, manifestFile)));
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(String((error as NodeJS.ErrnoException).code))) return [];
    throw error;
  }
}

/** Runs `use` with the database of a folder, which it cannot change. */
export function withDatabase<T>(folder: string, use: (client: Sqlite.Database) => T): T {
  const client = new Sqlite(join(folder, databaseFile), { readonly: true, fileMustExist: true });
  try {
    return use(client);
  } finally {
    client.close();
  }
}

export interface NamedBlob {
  sha256: string;
  sizeBytes: number;
}

/** The blobs that something owns, by their hash. What only has a row may still be on its way. */
export const ownedBlobs = (client: Sqlite.Database): NamedBlob[] =>
  client.prepare('SELECT sha256, sizeBytes FROM blob WHERE sha256 IN (SELECT sha256 FROM artifact) ORDER BY sha256').all() as NamedBlob[];

export const migrationsOf = (client: Sqlite.Database): number =>
  Number(client.prepare('SELECT count(*) FROM __drizzle_migrations').pluck().get());

/** Size of a file; null where there is none. */
export const sizeOf = (path: string): number | null => statSync(path, { throwIfNoEntry: false })?.size ?? null;

/** Throws where a disk has less room than is needed. */
export function requireRoom(folder: string, bytes: number): void {
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize < bytes) {
    throw new Error(`${inMegabytes(bytes)} are needed and ${inMegabytes(bavail * bsize)} are free on the disk of ${folder}.`);
  }
}

const inMegabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6)} MB`;

/** Most damaged files that a message names. */
const namedMax = 10;

/** What a user has to do about files that the data folder itself has damaged. */
export function describeDamage(dataDir: string, damaged: string[]): string {
  const more = damaged.length > namedMax ? `, and ${damaged.length - namedMax} more` : '';
  return (
    `${damaged.length} stored ${damaged.length === 1 ? 'file is' : 'files are'} damaged or missing in the data folder: \`npm run verify -- '${dataDir}'\` says what is wrong with each. ` +
    'Replace each by a whole copy: from the folder of backups if `npm run verify` of the newest backup does not name it, ' +
    `otherwise from an older copy elsewhere. They lie at blobs/<first two digits>/<SHA-256>: ${damaged.slice(0, namedMax).join(', ')}${more}.`
  );
}
