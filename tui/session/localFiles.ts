/** Files of this machine, as the user names them. */
import { statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { resolve } from 'node:path';

/** As a shell reads a path: `~` is the home folder. */
export const pathOf = (typed: string): string => resolve(typed.trim().replace(/^~(?=\/|$)/, homedir()));

/** The bytes of an image of this machine. */
export async function readImage(typed: string): Promise<Uint8Array> {
  const path = pathOf(typed);
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) throw new Error(`There is no file ${path}.`);
  return readFile(path);
}
