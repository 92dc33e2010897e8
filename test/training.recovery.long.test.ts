import { test } from 'vitest';
import { type Moment, outlives } from './support/recovery.ts';

test('a training outlives twenty kills of the server at random moments, the last ones in the export and the registration', async () => {
  // Shorter than an attempt takes to its end, which is 25 s and more on two cores.
  const random: Moment[] = Array.from({ length: 16 }, () => Math.random() * 15_000);
  process.stdout.write(`killed after ${random.map((ms) => Math.round(ms as number)).join(', ')} ms\n`);
  await outlives([
    ...random,
    (told) => told.some((e) => e.phase === 'export'),
    (told) => told.some((e) => e.phase === 'gate'),
    (told) => told.some((e) => e.__typename === 'JobGateEvent'),
    (told) => told.some((e) => e.__typename === 'JobGateEvent'),
  ]);
});
