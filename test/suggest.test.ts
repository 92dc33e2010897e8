import { expect, test } from 'vitest';
import { z } from 'zod';
import { type InputError, parseInput } from '../src/errors.ts';
import { parseHostConfig } from '../src/inference/config.ts';
import { strict, suggestion } from '../src/suggest.ts';

test('a misspelt name is answered with the nearest, one that resembles nothing with none', () => {
  const names = ['epochs', 'batchSize', 'learningRate'];
  expect(suggestion('epoch', names)).toBe(' Did you mean epochs?');
  expect(suggestion('batchsize', names)).toBe(' Did you mean batchSize?');
  expect(suggestion('coffee', names)).toBe('');
  expect(suggestion('', [])).toBe('');
  expect(suggestion('x'.repeat(1_000_000), names)).toBe('');
});

test('a key that there is not is named with the nearest and with all that there are', () => {
  const { error } = strict({ epochs: z.int().optional(), seed: z.int().optional() }).safeParse({ epoch: 3 });
  expect(error?.issues.map(({ message }) => message)).toEqual(['There is no epoch here. Did you mean epochs? There are: epochs, seed.']);
  expect(() => parseHostConfig({ permit: 1 }, '/')).toThrow(
    /There is no permit here\. Did you mean permits\? There are: host, hostNames, port, /,
  );
  expect(() => parseHostConfig({ models: [{ name: 'a', dim: {} }] }, '/')).toThrow(/models\.0: There is no dim here\. Did you mean dims\?/);
});

test('what `parseInput` refuses is an InputError, which names a dimension but no field for it', () => {
  const schema = z.object({ dims: z.record(z.string(), z.int()) });
  const refused = (() => {
    try {
      parseInput(schema, { dims: { height: 0.5 } });
    } catch (error) {
      return (error as InputError).userErrors;
    }
  })();
  expect(refused).toEqual([{ code: 'INVALID', field: ['dims'], message: expect.stringMatching(/^height: /) }]);
});
