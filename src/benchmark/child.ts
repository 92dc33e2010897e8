/** The child of BENCHMARK. It never loads an engine itself: see `cell.ts`. */
import { runChild } from '../jobs/childio.ts';
import { benchmark } from './run.ts';

await runChild('BENCHMARK', {}, benchmark);
