import { join } from 'node:path';
import type { JobKind, JobKinds } from '../../src/jobs/kinds.ts';
import { jobKindTable } from '../../src/jobs/specs.ts';
import type { Script } from './child.ts';

const childProgram = join(import.meta.dirname, 'child.ts');

/** A kind whose specification is the script of its child. Its result is what the child said. */
export const scripted: JobKind = {
  timeLimitMs: 3_600_000,
  launch: (_services, { job: { specJson }, resumeFrom }) => ({
    command: process.execPath,
    args: [childProgram],
    env: {},
    spec: { ...(specJson as Script), resumeFrom } as never,
  }),
  finish: async (_services, _attempt, outcome) => () => outcome.result,
};

export const kindsOf = (kind: JobKind): JobKinds => Object.fromEntries(Object.keys(jobKindTable).map((name) => [name, kind])) as JobKinds;
