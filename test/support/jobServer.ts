/** A server whose jobs do what their specification says: `node test/support/jobServer.ts`, configured as the product is. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { readConfig } from '../../src/config.ts';
import type { JobKind } from '../../src/jobs/kinds.ts';
import { createLog } from '../../src/log.ts';
import { startServer } from '../../src/server.ts';
import type { Script } from './child.ts';
import { kindsOf, scripted } from './kinds.ts';

/** Shows that it is finishing, and waits until it may. */
const finish: JobKind['finish'] = async (services, attempt, outcome) => {
  const { folder, finishWaits } = attempt.job.specJson as Script;
  if (folder && finishWaits && attempt.attemptNumber === 1) {
    writeFileSync(join(folder, 'finishing'), '');
    while (!existsSync(join(folder, finishWaits))) await setTimeout(10);
  }
  return scripted.finish(services, attempt, outcome);
};

const config = readConfig(process.env);
await startServer(config, createLog(config), kindsOf({ ...scripted, finish }));
