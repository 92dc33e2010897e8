/** A backup of a data folder, while its server runs. */
import {
  constants,
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
import { copyFile, link, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { canonicalJson } from '../canonical.ts';
import { databaseFile, passingKind, requireDatabase, takeLock } from '../db.ts';
import { isInside } from '../folders.ts';
import { hashFile } from '../hash.ts';
import { blobPath, sync } from '../storage/blobs.ts';
import { codeVersion } from '../version.ts';
import {
  backupsIn,
  finishedBackups,
  type Manifest,
  manifestFile,
  migrationsOf,
  type NamedBlob,
  ownedBlobs,
  requireRoom,
  sizeOf,
  withDatabase,
} from './folder.ts';

const unfinishedEnding = '.unfinished';
/** Folders of the data folder whose files only grow: logs of jobs, and lines that were cut from the audit log. */
const grownFolders = ['logs', 'audit'];
const keyFiles = ['signing-key.pem', 'link-key'];
/** How often a copy of the database may name a blob that was deleted meanwhile. */
const attemptsMax = 5;

export interface BackupOptions {
  /** Backups that stay in the folder, this one among them; all of them without. */
  keep?: number;
  /** Whether the keys go along that tokens and links are signed with. Without them everybody logs in again after a restore. */
  keys?: boolean;
}

export interface MadeBackup {
  path: string;
  blobs: number;
  /** Bytes of the blobs that were not in the folder before. */
  newBytes: number;
  removed: string[];
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
    const blobs = await copyData(dataDir, folder, unfinished);
    for (const one of grownFolders) copyGrown(join(dataDir, one), join(unfinished, one), newest && join(newest, one));
    for (const file of keys ? keyFiles : []) if (existsSync(join(dataDir, file))) copyFileSync(join(dataDir, file), join(unfinished, file));
    await writeManifest(unfinished);
    const path = join(folder, name);
    renameSync(unfinished, path);
    await sync(folder);
    return { path, ...blobs, removed: keep === undefined ? [] : removeOlder(folder, keep) };
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

async function copyData(dataDir: string, folder: string, unfinished: string): Promise<{ blobs: number; newBytes: number }> {
  const target = join(unfinished, databaseFile);
  // What is stored already first: then little can be deleted between the copy of the database and that of its blobs.
  let newBytes = await copyBlobs(dataDir, folder, withDatabase(dataDir, ownedBlobs)).then(({ bytes }) => bytes);
  for (let attempt = 1; ; attempt += 1) {
    rmSync(target, { force: true });
    requireRoom(folder, sizeOf(join(dataDir, databaseFile)) ?? 0);
    // One read transaction: it keeps no writer waiting, and what is written meanwhile is not in the copy.
    withDatabase(dataDir, (client) => client.prepare('VACUUM INTO ?').run(target));
    const blobs = withDatabase(unfinished, ownedBlobs);
    const { bytes, missing } = await copyBlobs(dataDir, folder, blobs);
    newBytes += bytes;
    if (missing.length === 0) return { blobs: blobs.length, newBytes };
    // Deleted between the two copies: the next copy of the database does not name it. A file that is lost stays missing.
    if (attempt === attemptsMax) {
      throw new Error(
        `${missing.length} stored files that the database names are missing in ${dataDir}, such as ${missing[0]?.sha256}: \`npm run verify\` lists them.`,
      );
    }
  }
}

/** Brings blobs that are not in the folder yet into it, whole under their name or not at all. */
async function copyBlobs(dataDir: string, folder: string, blobs: NamedBlob[]): Promise<{ bytes: number; missing: NamedBlob[] }> {
  const missing: NamedBlob[] = [];
  let bytes = 0;
  for (const blob of blobs) {
    const [from, to] = [blobPath(dataDir, blob.sha256), blobPath(folder, blob.sha256)];
    if (sizeOf(to) === blob.sizeBytes) continue;
    if (sizeOf(from) === null) {
      missing.push(blob);
      continue;
    }
    await mkdir(dirname(to), { recursive: true, mode: 0o700 });
    await rm(to, { force: true });
    await link(from, to).catch(async (error: NodeJS.ErrnoException) => {
      // On another disk, or on one without hard links.
      if (!['EXDEV', 'EPERM', 'ENOTSUP', 'EMLINK'].includes(String(error.code))) throw error;
      await copyFile(from, `${to}.new`, constants.COPYFILE_FICLONE);
      await sync(`${to}.new`);
      await rename(`${to}.new`, to);
    });
    bytes += blob.sizeBytes;
  }
  return { bytes, missing };
}

async function writeManifest(unfinished: string): Promise<void> {
  const names = (await readdir(unfinished, { recursive: true })).filter((name) => statSync(join(unfinished, name)).isFile()).sort();
  const files: Manifest['files'] = [];
  for (const name of names) {
    await sync(join(unfinished, name));
    files.push({ name, sha256: await hashFile(join(unfinished, name)), sizeBytes: statSync(join(unfinished, name)).size });
  }
  const migrations = withDatabase(unfinished, migrationsOf);
  const manifest: Manifest = { form: 1, createdAt: new Date().toISOString(), codeVersion, migrations, files };
  writeFileSync(join(unfinished, manifestFile), canonicalJson(manifest), { mode: 0o600, flush: true });
}

/** Removes all but the newest finished backups, and the blobs that none of the others names. */
function removeOlder(folder: string, keep: number): string[] {
  const finished = finishedBackups(folder);
  const removed = finished.slice(0, Math.max(0, finished.length - keep));
  for (const path of removed) rmSync(path, { recursive: true });
  const named = new Set(backupsIn(folder).flatMap((path) => withDatabase(path, ownedBlobs).map(({ sha256 }) => sha256)));
  for (const prefix of removed.length > 0 ? readdirSync(join(folder, 'blobs')) : []) {
    for (const file of readdirSync(join(folder, 'blobs', prefix))) {
      if (!named.has(file)) rmSync(join(folder, 'blobs', prefix, file));
    }
  }
  return removed;
}
