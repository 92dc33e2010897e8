/** The child of BENCHMARK. It never loads an engine itself: see `cell.ts`. */
import { runAsChild } from '../jobs/childio.ts';
import { benchmark } from './run.ts';

await runAsChild('BENCHMARK', {}, benchmark);
