/** The child of LOAD_TEST. */
import { runAsChild } from '../jobs/childio.ts';
import { runLoadTest } from './run.ts';

await runAsChild('LOAD_TEST', {}, runLoadTest);
