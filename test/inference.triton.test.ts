import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { python, withHost } from './support/inference.ts';

/** Functions of `triton_client.py`. */
const checks = [
  'is_live_and_ready',
  'reads_the_metadata',
  'reads_the_configuration',
  'reads_the_statistics',
  'reads_the_repository_index',
  'infers_in_binary',
  'infers_in_json',
  'infers_without_naming_outputs',
  'gets_its_id_and_a_subset_of_the_outputs',
  'infers_half_precision_integers_and_booleans',
  'infers_asynchronously',
  'compresses_both_ways',
  'raises_for_an_unknown_model',
  'raises_for_a_missing_input',
  'raises_for_a_wrong_shape',
  'raises_for_a_deadline_that_cannot_be_met',
  'raises_for_what_is_not_served',
];

describe("NVIDIA's tritonclient, unmodified", () => {
  let found: Record<string, string | null> = {};
  let url = '';
  withHost(
    {
      models: [{ name: 'arithmetic' }, { name: 'types', batchMax: 256 }, { name: 'spin' }].map((model) => ({
        ...model,
        deadlineMs: 30_000,
      })),
    },
    (host) => {
      url = host.url;
    },
  );
  beforeAll(async () => {
    const script = join(import.meta.dirname, 'support', 'triton_client.py');
    const { stdout } = await promisify(execFile)(python, ['-P', script, new URL(url).host]);
    found = JSON.parse(stdout);
  });

  test.each(checks)('%s', (check) => {
    expect(found[check]).toBeNull();
  });

  test('no check of the script is left out here', () => {
    expect(Object.keys(found)).toEqual(checks);
  });
});
