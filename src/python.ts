/** Where the Python package and its interpreter are. */
import { join } from 'node:path';

export const trainerFolder = join(import.meta.dirname, '..', 'trainer');
export const trainerPython = join(trainerFolder, '.venv', 'bin', 'python');
