import { expect, test } from 'vitest';
import { outlives } from './support/recovery.ts';

test('a training and its conversion outlive four kills of the server: they go on and end once', async () => {
  const [{ attempts }] = await outlives([
    { in: 'TRAIN', at: (told) => told.some((e) => e.phase === 'training') },
    { in: 'TRAIN', at: (told) => told.some((e) => e.__typename === 'JobEpochEvent') },
    { in: 'TRAIN', at: (told) => told.some((e) => e.phase === 'validation') },
    { in: 'CONVERT', at: (told) => told.some((e) => e.phase === 'export') },
  ]);
  expect(attempts[0]?.resumed).toBeNull();
}, 900_000);
