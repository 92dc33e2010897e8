/** Disks that can be filled: file systems in memory. */
import { execFileSync } from 'node:child_process';
import { closeSync, fstatSync, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { withFolder } from './server.ts';

export const mebibyte = 1024 * 1024;

/** Why a small file system cannot be mounted here, or null when it can. */
export const unmountable = await withFolder(async (folder) => {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder], { stdio: 'ignore' });
    execFileSync('umount', [folder]);
    return null;
  } catch {
    return 'mounting a tmpfs needs root on Linux';
  }
});

/** Runs `use` with a file system of its own of so many bytes. */
export async function withSmallDisk<T>(sizeBytes: number, use: (folder: string) => Promise<T>): Promise<T> {
  return withFolder(async (folder) => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes}`, 'tmpfs', folder]);
    try {
      return await use(folder);
    } finally {
      execFileSync('umount', ['--lazy', folder]);
    }
  });
}

/** Fills the disk but for so many bytes; returns the function that makes room again. */
export function fillDisk(folder: string, leaveBytes = 0): () => void {
  const filler = join(folder, 'filler');
  const file = openSync(filler, 'a');
  try {
    for (let bytes = mebibyte; bytes >= 1; ) {
      try {
        if (writeSync(file, Buffer.alloc(bytes)) < bytes) bytes = Math.floor(bytes / 2);
      } catch {
        bytes = Math.floor(bytes / 2);
      }
    }
    ftruncateSync(file, Math.max(0, fstatSync(file).size - leaveBytes));
  } finally {
    closeSync(file);
  }
  return () => rmSync(filler);
}
