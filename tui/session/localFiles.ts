/** Files of this machine, as the user names them. */
import { statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { resolve } from 'node:path';

/** As a shell reads a path: from where the user is, not from the project's folder, where npm and `./whetstone` run it; `~` is the home folder. */
export const pathOf = (typed: string): string => resolve(process.env.INIT_CWD ?? '.', typed.trim().replace(/^~(?=\/|$)/, homedir()));

/** The bytes of an image of this machine. */
export async function readImage(typed: string): Promise<Uint8Array> {
  const path = pathOf(typed);
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) throw new Error(`There is no file ${path}.`);
  return readFile(path);
}
