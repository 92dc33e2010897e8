import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

const python = join(import.meta.dirname, '..', '..', 'trainer', '.venv', 'bin', 'python');

/** Writes the rows of `model_files.py` with these names into a folder. */
export async function makeModelFiles(folder: string, names: string[]): Promise<void> {
  // -P: a module of the standard library is not a file of that name which lies beside the script.
  await promisify(execFile)(python, ['-P', join(import.meta.dirname, 'model_files.py'), folder, ...names]);
}
