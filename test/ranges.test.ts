import { expect, test } from 'vitest';
import { z } from 'zod';
import { readConfig } from '../src/config.ts';
import { InputError, parseInput } from '../src/errors.ts';
import { presets } from '../src/jobs/presets.ts';

const { imageSize, learningRate } = presets.resnet50.hyperparameters.shape;

test.each<[z.ZodType, unknown, string]>([
  [imageSize, 16, '16 is too small: must be at least 32.'],
  [imageSize, 100_000, '100000 is too large: must be at most 1024.'],
  [z.int().multipleOf(32), 33, '33 is not a multiple of 32.'],
  [learningRate, 0, '0 is too small: must be more than 0.'],
  [z.string().max(3), 'abcd', 'Must have at most 3 characters, and has 4.'],
  [z.array(z.int()).min(1), [], 'Must have at least 1 element, and has 0.'],
])('%#: a value out of its range is shown with the limit', (schema, value, message) => {
  const parsed = () => parseInput(z.object({ value: schema }), { value });
  expect(parsed).toThrow(InputError);
  expect(parsed).toThrow(message);
});

test('a setting out of its range too', () =>
  expect(() => readConfig({ WHETSTONE_SLOTS: '0' })).toThrow('WHETSTONE_SLOTS: 0 is too small: must be at least 1.'));
