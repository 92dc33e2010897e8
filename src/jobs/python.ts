import { existsSync } from 'node:fs';
import type { Config } from '../config.ts';
import { trainerFolder, trainerPython } from '../python.ts';
import { JobFailure, type Launch } from './kinds.ts';
import type { Spec } from './specs.ts';

/** Threads of a job that does not say how many: an equal share of the processor for each slot. */
export const cpuThreadsOf = ({ cores, slots }: Pick<Config, 'cores' | 'slots'>): number => Math.max(1, Math.floor(cores / slots));

/**
 * Freed memory stays with the process, in huge pages: PyTorch allocates each activation again, and a page that the kernel gives and takes at
 * every step costs a training 10 to 15 % of its time (`bench:train`). Ignored where the C library is not glibc.
 */
export const mallocTunables = [`mmap_threshold=${2 ** 30}`, `trim_threshold=${2 ** 33}`, `top_pad=${2 ** 26}`, 'hugetlb=1']
  .map((tunable) => `glibc.malloc.${tunable}`)
  .join(':');

/**
 * How often a thread of OpenMP looks whether the others have come, before it sleeps: less than the trainer's own number (`__init__.py`), where
 * jobs may have more threads than there are cores. Two trainings with two threads each on two cores took half the time.
 */
const spinsWithoutCores = '1000';

/** How the trainer is started, for every kind that it runs. The executor adds what it takes from the server's environment. */
export function launchTrainer({ cores, slots }: Pick<Config, 'cores' | 'slots'>, spec: Exclude<Spec, { kind: 'IMPORT_DATASET' }>): Launch {
  if (!existsSync(trainerPython)) {
    throw new JobFailure('EXTRA_MISSING', 'The Python packages are not installed. Run `node scripts/setup.mjs`, then retry the job.');
  }
  return {
    command: trainerPython,
    args: ['-m', 'whetstone_trainer'],
    env: {
      PYTHONPATH: trainerFolder,
      // Without it, `-m` looks for modules in the working folder first, where files of a job lie.
      PYTHONSAFEPATH: '1',
      PYTHONUNBUFFERED: '1',
      OMP_NUM_THREADS: String(spec.cpuThreads),
      GLIBC_TUNABLES: mallocTunables,
      ...(spec.cpuThreads * slots > cores && { GOMP_SPINCOUNT: spinsWithoutCores }),
    },
    spec,
  };
}
