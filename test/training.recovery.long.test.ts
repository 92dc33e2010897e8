import { test } from 'vitest';
import { type Moment, outlives } from './support/recovery.ts';

test('a training outlives twenty kills of the server at random moments, the last ones in the conversion', async () => {
  // Too short for a conversion, and mostly for a training.
  const random: Moment[] = Array.from({ length: 16 }, () => Math.random() * 15_000);
  process.stdout.write(`killed after ${random.map((ms) => Math.round(ms as number)).join(', ')} ms\n`);
  await outlives([
    ...random,
    { in: 'CONVERT', at: (told) => told.some((e) => e.phase === 'export') },
    { in: 'CONVERT', at: (told) => told.some((e) => e.phase === 'gate') },
    { in: 'CONVERT', at: (told) => told.some((e) => e.__typename === 'JobGateEvent') },
    { in: 'CONVERT', at: (told) => told.some((e) => e.__typename === 'JobGateEvent') },
  ]);
});
