/** How many files lie somewhere, and what they use of the disk. */
import { lstat, opendir } from 'node:fs/promises';
import { join } from 'node:path';

export interface Amount {
  /** Rows or files. */
  count: number;
  sizeBytes: number;
}

export const nothing: Amount = { count: 0, sizeBytes: 0 };

export const sumOf = (amounts: readonly Amount[]): Amount => ({
  count: amounts.reduce((sum, { count }) => sum + count, 0),
  sizeBytes: amounts.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
});

/** The files at a path or below it; those that come and go meanwhile count or not. `ownOnly` leaves out the bytes of files that have another name too. */
export async function filesAt(path: string, ownOnly = false): Promise<Amount> {
  try {
    const found = await lstat(path);
    if (!found.isDirectory()) return { count: 1, sizeBytes: ownOnly && found.nlink > 1 ? 0 : found.size };
    const total = { ...nothing };
    for await (const { name } of await opendir(path)) {
      const { count, sizeBytes } = await filesAt(join(path, name), ownOnly);
      total.count += count;
      total.sizeBytes += sizeBytes;
    }
    return total;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return nothing;
  }
}

export const filesAtAll = async (paths: Iterable<string>): Promise<Amount> =>
  sumOf(await Promise.all([...paths].map((path) => filesAt(path))));
