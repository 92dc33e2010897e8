/**
 * Brings the stored files that a backup names into the folder of backups, each whole under its name or not at all. A copy that is there already
 * is trusted by its size, but for those that are due: these are read. A damaged copy may be a second name of a damaged original. So the original
 * is read before it replaces a copy.
 */
import { constants } from 'node:fs';
import { copyFile, link, mkdir, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { hashFile } from '../hash.ts';
import { blobPath, sync } from '../storage/blobs.ts';
import { type NamedBlob, sizeOf } from './folder.ts';

export interface Copied {
  /** Bytes of the blobs that were not in the folder before. */
  newBytes: number;
  /** Damaged copies that were copied again. */
  repaired: number;
  /** Hashes of stored files that the data folder itself has damaged. */
  damaged: Set<string>;
}

export interface Copier {
  copied: Copied;
  /** Copies those that an earlier call has not dealt with; returns those without an original. */
  copy(blobs: NamedBlob[]): Promise<NamedBlob[]>;
}

/** Which copies are read: all whose hash begins with a digit, and those that the backup before has found damaged. */
export interface Due {
  digit: string;
  damaged: ReadonlySet<string>;
}

export function blobCopier(dataDir: string, folder: string, due: Due): Copier {
  const copied: Copied = { newBytes: 0, repaired: 0, damaged: new Set() };
  const settled = new Set<string>();

  /** Whether it could be dealt with: false where the original is missing. */
  async function settle({ sha256, sizeBytes }: NamedBlob): Promise<boolean> {
    const [from, to] = [blobPath(dataDir, sha256), blobPath(folder, sha256)];
    const copySize = sizeOf(to);
    const isDue = sha256.startsWith(due.digit) || due.damaged.has(sha256);
    const isCopyWhole = copySize === sizeBytes && (!isDue || (await isWhole(to, sha256)));
    const isSuspect = due.damaged.has(sha256) || (copySize !== null && !isCopyWhole);
    const isOriginalWhole = sizeOf(from) === sizeBytes && (!isSuspect || (await isWhole(from, sha256)));
    const isMissing = sizeOf(from) === null;
    if (!isOriginalWhole && !isMissing) copied.damaged.add(sha256);
    if (isCopyWhole) return true;
    if (isMissing) return false;
    // What is there may still be good for something.
    if (!isOriginalWhole) return true;
    if (!(await place(from, to))) return false;
    if (copySize === null) copied.newBytes += sizeBytes;
    else copied.repaired += 1;
    return true;
  }

  return {
    copied,
    async copy(blobs) {
      const missing: NamedBlob[] = [];
      for (const blob of blobs) {
        if (settled.has(blob.sha256)) continue;
        if (await settle(blob)) settled.add(blob.sha256);
        else missing.push(blob);
      }
      return missing;
    },
  };
}

async function isWhole(path: string, sha256: string): Promise<boolean> {
  try {
    return (await hashFile(path)) === sha256;
  } catch (error) {
    // A disk that cannot read its own sectors, or a file that is deleted meanwhile.
    if (['EIO', 'ENOENT'].includes(String((error as NodeJS.ErrnoException).code))) return false;
    throw error;
  }
}

/** Gives the copy the bytes of the original; false where the original was deleted meanwhile. */
async function place(from: string, to: string): Promise<boolean> {
  await mkdir(dirname(to), { recursive: true, mode: 0o700 });
  await rm(to, { force: true });
  try {
    await link(from, to).catch(async (error: NodeJS.ErrnoException) => {
      // On another disk, or on one without hard links.
      if (!['EXDEV', 'EPERM', 'ENOTSUP', 'EMLINK'].includes(String(error.code))) throw error;
      await copyFile(from, `${to}.new`, constants.COPYFILE_FICLONE);
      await sync(`${to}.new`);
      await rename(`${to}.new`, to);
    });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
