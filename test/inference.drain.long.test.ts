import { test } from 'vitest';
import { stopUnderLoad } from './support/drain.ts';

test('SIGTERM under load, 20 times: exit 0, and every request that had arrived gets its answer', async () => {
  for (let n = 0; n < 20; n += 1) await stopUnderLoad();
});
