import { ChildError } from '../../jobs/childio.ts';
import type { Problems } from './problems.ts';
import { DamagedEntry, type Zip, type ZipEntry } from './zip.ts';

/** What a form of a dataset needs of its zip. */
export type Contents = Pick<Zip, 'files' | 'folders' | 'read'>;

/** A file of annotations; null, and a problem, when it is damaged. */
export async function readBytes(zip: Contents, file: ZipEntry, problems: Problems): Promise<Buffer | null> {
  try {
    return await zip.read(file);
  } catch (error) {
    if (!(error instanceof DamagedEntry)) throw error;
    problems.add(file.name, error.message);
    return null;
  }
}

/** The same as text, without a byte order mark; empty, and a problem, when it is larger than `bytesMax` or not UTF-8. */
export async function readText(zip: Contents, file: ZipEntry, bytesMax: number, problems: Problems): Promise<string> {
  if (file.sizeBytes > bytesMax) {
    problems.add(file.name, `is larger than ${bytesMax / 2 ** 10} KiB`);
    return '';
  }
  const bytes = await readBytes(zip, file, problems);
  try {
    return bytes ? new TextDecoder('utf-8', { fatal: true }).decode(bytes) : '';
  } catch {
    problems.add(file.name, 'is not a text in UTF-8');
    return '';
  }
}

/** Throws LIMIT_EXCEEDED when it was given more than `max` boxes in all. */
export function createBoxCounter(max: number): (boxes: number) => void {
  let total = 0;
  return (boxes) => {
    total += boxes;
    if (total > max) throw new ChildError('LIMIT_EXCEEDED', `There are more than ${max.toLocaleString('en-US')} boxes, which are allowed.`);
  };
}
