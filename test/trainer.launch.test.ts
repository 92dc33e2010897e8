import { expect, test } from 'vitest';
import { launchTrainer } from '../src/jobs/python.ts';

test.each([
  ['as many cores as threads', 2, 1, undefined],
  ['more threads than cores', 2, 2, '1000'],
])(
  'threads of the trainer wait for each other by its own rule, or shortly where there may be more of them than cores: %s',
  (_, cores, slots, spins) => {
    const spec = { kind: 'TRAIN', cpuThreads: 2 } as Parameters<typeof launchTrainer>[1];
    expect(launchTrainer({ cores, slots }, spec).env.GOMP_SPINCOUNT).toBe(spins);
  },
);
