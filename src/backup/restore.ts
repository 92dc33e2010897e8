/** A new data folder from a backup. */
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync } from 'node:fs';
import { copyFile, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { databaseFile } from '../db.ts';
import { isInside } from '../folders.ts';
import { knownMigrations } from '../migrations.ts';
import { blobPath } from '../storage/blobs.ts';
import { codeVersion } from '../version.ts';
import { ownedBlobs, readManifest, requireRoom, withDatabase } from './folder.ts';
import { verify } from './verify.ts';

/** Most faults that an error names. */
const namedMax = 10;

export interface Restored {
  blobs: number;
  sizeBytes: number;
  /** Hashes of the stored files that the backup has damaged or lost, which were left out. */
  damaged: string[];
}

/**
 * Checks every byte of the backup before it writes anything. The database comes last: a folder without it was not restored to its end.
 * `withoutDamaged`: stored files that are damaged are left out, where otherwise nothing is restored.
 */
export async function restore(backup: string, dataDir: string, { withoutDamaged = false } = {}): Promise<Restored> {
  const manifest = readManifest(backup);
  if (!manifest) throw new Error(`${backup} is no finished backup: name one of the folders that \`npm run backup\` has printed.`);
  if (manifest.migrations > knownMigrations()) {
    throw new Error(
      `The backup was made by Whetstone ${manifest.codeVersion}, which is newer than this one (${codeVersion}). Restore it with that version.`,
    );
  }
  if (isInside(backup, dataDir)) throw new Error(`${dataDir} is inside of the backup, and would go with it. Name a folder elsewhere.`);
  if (existsSync(dataDir) && readdirSync(dataDir).length > 0) {
    throw new Error(`${dataDir} is not empty: a backup is restored to a new folder, so that nothing is overwritten.`);
  }
  const { problems, damaged } = await verify(backup);
  // A stored file has one problem. What else is damaged, such as the database, nobody can do without.
  const isRestWhole = problems.length === damaged.length;
  if (problems.length > 0 && !(withoutDamaged && isRestWhole)) {
    const more = problems.length > namedMax ? [`${problems.length - namedMax} more.`] : [];
    const hint = isRestWhole ? ['With `--without-damaged` everything else is restored.'] : [];
    throw new Error(['The backup is damaged, and nothing was written:', ...problems.slice(0, namedMax), ...more, ...hint].join('\n'));
  }
  const blobs = withDatabase(backup, ownedBlobs).filter(({ sha256 }) => !damaged.includes(sha256));
  const sizeBytes = blobs.reduce((sum, blob) => sum + blob.sizeBytes, 0);
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  requireRoom(dataDir, sizeBytes + manifest.files.reduce((sum, file) => sum + file.sizeBytes, 0));
  for (const { sha256 } of blobs) {
    const to = blobPath(dataDir, sha256);
    await mkdir(dirname(to), { recursive: true, mode: 0o700 });
    await copyFile(blobPath(dirname(backup), sha256), to);
  }
  for (const { name } of manifest.files.filter((file) => file.name !== databaseFile)) cpSync(join(backup, name), join(dataDir, name));
  const copied = join(dataDir, `${databaseFile}.new`);
  cpSync(join(backup, databaseFile), copied);
  renameSync(copied, join(dataDir, databaseFile));
  return { blobs: blobs.length, sizeBytes, damaged };
}
