import { expect, test } from 'vitest';
import { outlives } from './support/recovery.ts';

test('a training outlives four kills of the server: it goes on from its checkpoint and ends once', async () => {
  const { attempts, events } = await outlives([
    (told) => told.some((e) => e.phase === 'training'),
    (told) => told.some((e) => e.__typename === 'JobEpochEvent'),
    (told) => told.some((e) => e.phase === 'validation'),
    (told) => told.some((e) => e.phase === 'export'),
  ]);
  // The fourth attempt came to the export: the last checkpoint holds the whole training, and nobody trains again.
  expect(events.filter((e) => e.__typename === 'JobEpochEvent' && e.attempt > 4)).toEqual([]);
  expect([attempts[0]?.resumed, attempts.at(-1)?.resumed]).toEqual([null, { epoch: 2, batch: 0 }]);
}, 900_000);
