/** What `engine.contract.test.ts` holds every engine of the processor to, with the number of payloads that was promised. */
import { describe, expect, test } from 'vitest';
import { engineNames, engines } from '../src/engine/engines.ts';
import { floats, withModels } from './support/engines.ts';

const payloads = 100_000;
const fileOf = withModels(['plus-1']);
const names = engineNames.filter((name) => engines[name].device === 'cpu');
const missing = new Map(await Promise.all(names.map(async (name) => [name, await engines[name].missing('')] as const)));

describe.each(names)('%s', (name) => {
  const reason = missing.get(name) ?? null;
  test.skipIf(reason !== null)(
    `never mixes the answers of two clients, who send ${payloads.toLocaleString('en')} different tensors${reason === null ? '' : ` (skipped: ${reason})`}`,
    async () => {
      const open = await engines[name].load();
      const session = await open(fileOf('plus-1'), { intraOpThreads: 1 });
      let wrong = 0;
      const seen = new Set<number>();
      const client = async (first: number) => {
        for (let value = first; value < payloads; value += 2) {
          const { outputs } = await session.run(new Map([['x', floats([1, 4], [value, value + 0.5, -value, 0])]]));
          if (String(outputs.get('y')?.data) !== String([value + 1, value + 1.5, 1 - value, 1])) wrong += 1;
          seen.add(outputs.get('y')?.data[0] as number);
        }
      };
      await Promise.all([client(0), client(1)]);
      await session.close();
      expect([wrong, seen.size]).toEqual([0, payloads]);
    },
  );
});
