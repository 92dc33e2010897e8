import { accountsExamples } from './examples/accounts.ts';
import { dataExamples } from './examples/data.ts';
import type { Example } from './examples/example.ts';
import { jobsExamples } from './examples/jobs.ts';
import { servingExamples } from './examples/serving.ts';
import { startExamples } from './examples/start.ts';

/** One row for each tab: an example of every area of the API. */
export const examples: Example[] = [...startExamples, ...jobsExamples, ...dataExamples, ...servingExamples, ...accountsExamples];
