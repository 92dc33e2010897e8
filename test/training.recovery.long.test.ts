import { expect, test } from 'vitest';
import { type Moment, outlives } from './support/recovery.ts';

const inExport: Moment = { in: 'CONVERT', at: (told) => told.some((e) => e.phase === 'export') };
const inGate: Moment = { in: 'CONVERT', at: (told) => told.some((e) => e.phase === 'gate') };
const atItsEnd: Moment = { in: 'CONVERT', at: (told) => told.some((e) => e.__typename === 'JobGateEvent') };

test('a training and its conversion outlive kills of the server in its first batches, behind an epoch and in the validation', async () => {
  const [{ attempts }] = await outlives([
    { in: 'TRAIN', at: (told) => told.some((e) => e.phase === 'training') },
    { in: 'TRAIN', at: (told) => told.some((e) => e.__typename === 'JobEpochEvent') },
    { in: 'TRAIN', at: (told) => told.some((e) => e.phase === 'validation') },
    inExport,
  ]);
  expect(attempts[0]?.resumed).toBeNull();
});

// Three for each training: from the fourth death of the server without a new checkpoint on, the job is what is taken to kill it.
test.each([[inExport], [inGate], [atItsEnd], [atItsEnd], [inExport], [inGate], [atItsEnd]])(
  'a training and its conversion outlive kills of the server at two random moments and at %o',
  async (last) => {
    // Too short for a conversion, and mostly for a training.
    const random = [0, 1].map(() => Math.random() * 15_000);
    process.stdout.write(`killed after ${random.map((ms) => Math.round(ms)).join(', ')} ms\n`);
    await outlives([...random, last]);
  },
);

test('a training and its conversion outlive two kills of the server: they go on and end once', async () => {
  const [{ attempts }] = await outlives([
    { in: 'TRAIN', at: (told) => told.some((e) => e.__typename === 'JobEpochEvent') },
    { in: 'CONVERT', at: (told) => told.some((e) => e.phase === 'export') },
  ]);
  expect(attempts[0]?.resumed).toBeNull();
});
