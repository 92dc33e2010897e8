import { statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { resolve } from 'node:path';

/** As a shell reads a path: `~` is the home folder. */
export const pathOf = (typed: string): string => resolve(typed.trim().replace(/^~(?=\/|$)/, homedir()));

/** A file in base64, as `infer` takes it. */
export async function readImage(typed: string): Promise<string> {
  const path = pathOf(typed);
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) throw new Error(`There is no file ${path}.`);
  return (await readFile(path)).toString('base64');
}
