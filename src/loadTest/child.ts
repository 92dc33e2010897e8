/** The child of LOAD_TEST. */
import { runAsChild } from '../jobs/childio.ts';
import { loadTest } from './run.ts';

await runAsChild('LOAD_TEST', {}, loadTest);
