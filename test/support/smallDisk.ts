/** Disks that can be filled: file systems in memory. */
import { execFileSync } from 'node:child_process';
import { statfsSync } from 'node:fs';
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

/** Makes the disk as small as what is on it, with so many bytes left; returns the function that makes it as large as before. */
export function fillDisk(folder: string, leaveBytes = 0): () => void {
  const { blocks, bsize } = statfsSync(folder);
  for (;;) {
    const { blocks: all, bfree } = statfsSync(folder);
    try {
      resize(folder, (all - bfree) * bsize + leaveBytes);
      return () => resize(folder, blocks * bsize);
    } catch {
      // Something was written in between.
    }
  }
}

/** There is room, but not for another file. Returns the function that makes room. */
export function fillNames(folder: string): () => void {
  const { files, ffree } = statfsSync(folder);
  remount(folder, `nr_inodes=${files - ffree}`);
  return () => remount(folder, `nr_inodes=${files}`);
}

/** A size of 0 would have no limit. */
const resize = (folder: string, bytes: number): void => remount(folder, `size=${Math.max(1, bytes)}`);
const remount = (folder: string, option: string): void =>
  void execFileSync('mount', ['-o', `remount,${option}`, folder], { stdio: 'ignore' });
