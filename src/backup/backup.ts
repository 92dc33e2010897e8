/** A backup of a data folder, while its server runs. */
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { canonicalJson } from '../canonical.ts';
import { databaseFile, passingKind, requireDatabase, takeLock } from '../db.ts';
import { isInside } from '../folders.ts';
import { hashFile } from '../hash.ts';
import { sync } from '../storage/blobs.ts';
import { codeVersion } from '../version.ts';
import { blobCopier, type Copied, type Copier } from './blobs.ts';
import {
  backupsIn,
  type Checks,
  checksOf,
  finishedBackups,
  type Manifest,
  manifestFile,
  migrationsOf,
  ownedBlobs,
  requireRoom,
  sizeOf,
  withDatabase,
} from './folder.ts';

const unfinishedEnding = '.unfinished';
/** Folders of the data folder whose files only grow: logs of jobs, and lines that were cut from the audit log. */
const grownFolders = ['logs', 'audit'];
const keyFiles = ['signing-key.pem', 'link-key'];
const digits = 16;
/** The next backup begins with the digit 0. */
const uncheckedBefore: Checks = { digit: digits - 1, damaged: [] };
/** How often a copy of the database may name a blob that was deleted meanwhile. */
const attemptsMax = 5;

export interface BackupOptions {
  /** Backups that stay in the folder, this one among them; all of them without. */
  keep?: number;
  /** Whether the keys go along that tokens and links are signed with. Without them everybody logs in again after a restore. */
  keys?: boolean;
}

export interface MadeBackup extends Omit<Copied, 'damaged'> {
  path: string;
  blobs: number;
  removed: string[];
  /** Hashes of stored files that the data folder itself has damaged or lost. */
  damaged: string[];
}

/** Copies the database as it is at one moment, then what it names. Throws what is wrong as a sentence. */
export async function backUp(dataDir: string, folder: string, { keep, keys = false }: BackupOptions = {}): Promise<MadeBackup> {
  requireDatabase(dataDir);
  if (isInside(dataDir, folder)) {
    throw new Error(
      `${folder} is inside of the data folder ${dataDir}, and would be lost with it. Name a folder elsewhere, best on another disk.`,
    );
  }
  makeFolder(folder);
  const unlock = takeLock(join(folder, 'backup.lock'), `Another backup is being written to ${folder}.`);
  const name = new Date().toISOString().replaceAll(':', '-');
  const unfinished = join(folder, name + unfinishedEnding);
  try {
    for (const left of readdirSync(folder).filter((one) => one.endsWith(unfinishedEnding))) rmSync(join(folder, left), { recursive: true });
    const newest = finishedBackups(folder).at(-1);
    mkdirSync(unfinished, { mode: 0o700 });
    const before = checksOf(newest) ?? uncheckedBefore;
    const digit = (before.digit + 1) % digits;
    const copier = blobCopier(dataDir, folder, { digit: digit.toString(16), damaged: new Set(before.damaged) });
    const { blobs } = await copyData(dataDir, unfinished, copier);
    const damaged = [...copier.copied.damaged].sort();
    for (const one of grownFolders) copyGrown(join(dataDir, one), join(unfinished, one), newest && join(newest, one));
    for (const file of keys ? keyFiles : []) if (existsSync(join(dataDir, file))) copyFileSync(join(dataDir, file), join(unfinished, file));
    await writeManifest(unfinished, { digit, damaged });
    const path = join(folder, name);
    renameSync(unfinished, path);
    await sync(folder);
    return { path, blobs, ...copier.copied, damaged, removed: keep === undefined ? [] : removeOlder(folder, keep) };
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true });
    if (passingKind(error) !== 'FULL') throw error;
    throw new Error(`The disk of ${folder} is full: the backup was not made. Earlier ones are whole.`);
  } finally {
    unlock();
  }
}

function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Error(`The folder for backups ${folder} cannot be made (${code}). Name another one, or make the folder above it writable.`);
  }
}

/** Copies files that grow. One that is as it was in the newest backup becomes a second name of that one, not of the original, which may grow. */
function copyGrown(from: string, to: string, before: string | undefined): void {
  mkdirSync(to, { mode: 0o700 });
  for (const name of existsSync(from) ? readdirSync(from) : []) {
    const [original, copy, earlier] = [join(from, name), join(to, name), before && join(before, name)];
    try {
      if (earlier && isSame(original, earlier)) linkSync(earlier, copy);
      else copyFileSync(original, copy);
    } catch (error) {
      // Too old, and removed meanwhile.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
      // A disk without hard links, or a file that is too large for the memory.
      copyFileSync(original, copy);
    }
  }
}

const isSame = (one: string, other: string): boolean =>
  sizeOf(other) === statSync(one).size && readFileSync(one).equals(readFileSync(other));

async function copyData(dataDir: string, unfinished: string, copier: Copier): Promise<{ blobs: number }> {
  const target = join(unfinished, databaseFile);
  // What is stored already first: then little can be deleted between the copy of the database and that of its blobs.
  await copier.copy(withDatabase(dataDir, ownedBlobs));
  for (let attempt = 1; ; attempt += 1) {
    rmSync(target, { force: true });
    requireRoom(dirname(unfinished), sizeOf(join(dataDir, databaseFile)) ?? 0);
    // One read transaction: it keeps no writer waiting, and what is written meanwhile is not in the copy.
    withDatabase(dataDir, (client) => client.prepare('VACUUM INTO ?').run(target));
    const blobs = withDatabase(unfinished, ownedBlobs);
    const missing = await copier.copy(blobs);
    // What the database of the server still names is lost. The rest was deleted between the two copies: the next copy of the database does not
    // name it.
    const stored = new Set(missing.length > 0 ? withDatabase(dataDir, ownedBlobs).map(({ sha256 }) => sha256) : []);
    if (missing.every(({ sha256 }) => stored.has(sha256))) {
      for (const { sha256 } of missing) copier.copied.damaged.add(sha256);
      return { blobs: blobs.length };
    }
    if (attempt === attemptsMax) {
      throw new Error(
        `Stored files were deleted during each of ${attemptsMax} tries, so no backup was made. Back up again when less is deleted.`,
      );
    }
  }
}

async function writeManifest(unfinished: string, checks: Checks): Promise<void> {
  const names = (await readdir(unfinished, { recursive: true })).filter((name) => statSync(join(unfinished, name)).isFile()).sort();
  const files: Manifest['files'] = [];
  for (const name of names) {
    await sync(join(unfinished, name));
    files.push({ name, sha256: await hashFile(join(unfinished, name)), sizeBytes: statSync(join(unfinished, name)).size });
  }
  const migrations = withDatabase(unfinished, migrationsOf);
  const manifest: Manifest = { form: 1, createdAt: new Date().toISOString(), codeVersion, migrations, files, checks };
  writeFileSync(join(unfinished, manifestFile), canonicalJson(manifest), { mode: 0o600, flush: true });
}

/** Removes all but the newest finished backups, and the blobs that none of the others names. */
function removeOlder(folder: string, keep: number): string[] {
  const finished = finishedBackups(folder);
  const removed = finished.slice(0, Math.max(0, finished.length - keep));
  for (const path of removed) rmSync(path, { recursive: true });
  const named = removed.length > 0 ? blobsNamedIn(folder) : null;
  for (const prefix of named && existsSync(join(folder, 'blobs')) ? readdirSync(join(folder, 'blobs')) : []) {
    for (const file of readdirSync(join(folder, 'blobs', prefix))) {
      if (!named?.has(file)) rmSync(join(folder, 'blobs', prefix, file));
    }
  }
  return removed;
}

/** The blobs that some backup names; null where the database of one is damaged: what it names must stay, since its blobs may be whole. */
function blobsNamedIn(folder: string): Set<string> | null {
  try {
    return new Set(backupsIn(folder).flatMap((path) => withDatabase(path, ownedBlobs).map(({ sha256 }) => sha256)));
  } catch {
    return null;
  }
}
