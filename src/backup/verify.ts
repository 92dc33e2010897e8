/** Whether a data folder, or a backup, is whole. */
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { databaseFile } from '../db.ts';
import { hashFile } from '../hash.ts';
import { blobPath } from '../storage/blobs.ts';
import { ownedBlobs, readManifest, sizeOf, withDatabase } from './folder.ts';

export interface Verified {
  /** A sentence for each fault. */
  problems: string[];
  /** Hashes of the stored files among them, sorted. */
  damaged: string[];
  blobs: number;
  sizeBytes: number;
  /** Files in `blobs` that nothing names: garbage that the server collects. */
  unnamed: number;
}

/** Reads everything: a database by SQLite's own checks, and each file against its hash. */
export async function verify(folder: string): Promise<Verified> {
  const manifest = readManifest(folder);
  if (!existsSync(join(folder, databaseFile))) {
    throw new Error(`${folder} is neither a data folder nor a backup: it holds no ${databaseFile}.`);
  }
  const problems: string[] = [];
  for (const { name, sha256, sizeBytes } of manifest?.files ?? []) {
    problems.push(...(await problemsOf(join(folder, name), name, { sha256, sizeBytes })));
  }
  problems.push(...databaseProblems(folder));
  const store = manifest ? dirname(folder) : folder;
  const blobs = readable(folder) ? withDatabase(folder, ownedBlobs) : [];
  const damaged: string[] = [];
  for (const blob of blobs) {
    const found = await problemsOf(blobPath(store, blob.sha256), `blob ${blob.sha256}`, blob);
    if (found.length > 0) damaged.push(blob.sha256);
    problems.push(...found);
  }
  const named = new Set(blobs.map(({ sha256 }) => sha256));
  const stored = existsSync(join(store, 'blobs'))
    ? readdirSync(join(store, 'blobs')).flatMap((prefix) => readdirSync(join(store, 'blobs', prefix)))
    : [];
  return {
    problems,
    damaged,
    blobs: blobs.length,
    sizeBytes: blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    // Of a backup, another one in the same folder may name them.
    unnamed: manifest ? 0 : stored.filter((sha256) => !named.has(sha256)).length,
  };
}

const readable = (folder: string): boolean => {
  try {
    return withDatabase(folder, (client) => client.prepare('SELECT count(*) FROM artifact').pluck().get() !== undefined);
  } catch {
    return false;
  }
};

function databaseProblems(folder: string): string[] {
  try {
    return withDatabase(folder, (client) => {
      const found = client.pragma('integrity_check(10)') as { integrity_check: string }[];
      const damaged = found.map((row) => row.integrity_check).filter((text) => text !== 'ok');
      const strays = client.pragma('foreign_key_check') as { table: string }[];
      return [
        ...damaged.map((text) => `The database is damaged: ${text}.`),
        ...[...Map.groupBy(strays, ({ table }) => table)].map(
          ([table, rows]) => `The database has ${rows.length} rows in ${table} that refer to rows that do not exist.`,
        ),
      ];
    });
  } catch (error) {
    return [`The database cannot be read: ${(error as Error).message}.`];
  }
}

async function problemsOf(path: string, name: string, wanted: { sha256: string; sizeBytes: number }): Promise<string[]> {
  const size = sizeOf(path);
  if (size === null) return [`The ${name} is missing.`];
  if (size !== wanted.sizeBytes) return [`The ${name} has ${size} bytes instead of ${wanted.sizeBytes}.`];
  try {
    return (await hashFile(path)) === wanted.sha256 ? [] : [`The ${name} has other bytes than its SHA-256 says.`];
  } catch (error) {
    // A disk that cannot read its own sectors must not hide what else is damaged.
    return [`The ${name} cannot be read (${(error as NodeJS.ErrnoException).code}).`];
  }
}
