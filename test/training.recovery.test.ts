import { expect, test } from 'vitest';
import { outlives } from './support/recovery.ts';

test('a training and its conversion outlive two kills of the server: they go on and end once', async () => {
  const [{ attempts }] = await outlives([
    { in: 'TRAIN', at: (told) => told.some((e) => e.__typename === 'JobEpochEvent') },
    { in: 'CONVERT', at: (told) => told.some((e) => e.phase === 'export') },
  ]);
  expect(attempts[0]?.resumed).toBeNull();
}, 900_000);
