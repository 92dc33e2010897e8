/** What holds for each pool of the inference host, on all engines. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay, setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { parseHostConfig } from '../src/inference/config.ts';
import { loadModel, startChecks } from '../src/inference/models.ts';
import { startNativePool } from '../src/inference/native/pool.ts';
import type { Feed, Pool, Stuck } from '../src/inference/pool.ts';
import { startPool } from '../src/inference/threads/pool.ts';
import { nativeMissing } from './support/engines.ts';
import { withModelFiles } from './support/inference.ts';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;
const mebibyte = 2 ** 20;
const onThreads: [string, typeof startNativePool] = ['onnxruntime-node', async (settings) => startPool(settings)];
const onNative: [string, typeof startNativePool] = ['the native runtime', startNativePool];
const pools = [onThreads, ...(nativeMissing === null ? [onNative] : [])];

let folder = '';
let config: ReturnType<typeof parseHostConfig>;
const checks = startChecks();
beforeAll(async () => {
  const made = await withModelFiles({
    models: [{ name: 'identity' }, { name: 'brightness' }, { name: 'matmuls', dims: { n: 512 } }, { name: 'patient', dims: { m: 20_000 } }],
  });
  folder = made.folder;
  config = parseHostConfig(made.settings, folder, 2);
});
afterAll(async () => {
  await checks.close();
  rmSync(folder, { recursive: true });
});
afterEach(() => {
  vi.useRealTimers();
});

interface Started {
  pool: Pool;
  load(name: string): Promise<unknown>;
}

async function withPool(start: typeof startNativePool, loadSecondsMax: number, use: (started: Started) => Promise<void>): Promise<void> {
  const own = mkdtempSync(join(tmpdir(), 'whetstone-pool-'));
  const pool = await start({ permits: 1, workers: 2, folder: own, loadSecondsMax });
  const load = (name: string) => {
    const model = config.models.find((one) => one.name === name) as (typeof config.models)[number];
    return loadModel(pool, checks, name, model, own, config);
  };
  try {
    await use({ pool, load });
  } finally {
    await pool.close();
    rmSync(own, { recursive: true });
  }
}

/** Zeros, in two pieces: they have to be copied into one. */
function zeros(name: string, shape: number[]): Feed {
  const bytes = 4 * shape.reduce((a, b) => a * b, 1);
  return { name, datatype: 'FP32', shape, pieces: [new Uint8Array(4), new Uint8Array(bytes - 4)] };
}

const answers = async (pool: Pool) => {
  const run = pool.start('identity', [zeros('x', [1, 4])], ['y'], 60_000);
  expect(await run.ended).toMatchObject({ state: 'done' });
};

describe('a model that loads and warms up for too long', () => {
  test.skipIf(nativeMissing !== null)('is refused alone on the native runtime; others are loaded and serve meanwhile', () =>
    withPool(startNativePool, 3, async ({ pool, load }) => {
      const refused = expect(load('matmuls')).rejects.toThrow('matmuls/1 cannot be served: It did not load and warm up within 3 s.');
      await load('identity');
      await answers(pool);
      await refused;
      await load('brightness');
      await answers(pool);
    }),
  );

  test.each(pools)('is named where it cannot be stopped, on %s, so that the host ends for its sake only', (_, start) => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    return withPool(start, 3, async ({ pool, load }) => {
      await load('identity');
      void load('patient').catch(() => {});
      let stuck: Stuck | undefined;
      void pool.stuck.then((told) => {
        stuck = told;
      });
      while (!stuck) {
        vi.advanceTimersByTime(1000);
        await delay(5);
      }
      expect(stuck).toEqual({ key: 'patient', message: 'It did not load and warm up within 3 s.' });
      await answers(pool);
    });
  });
});

describe.each(pools)('memory of a run on %s', (_, start) => {
  test('stays for the next one, unless it is much, and goes when none comes', () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    return withPool(start, 60, async ({ pool, load }) => {
      await load('brightness');
      // The closure holds them, so that their own memory stays.
      const feeds = { large: zeros('image', [2000, 3, 32, 32]), small: zeros('image', [400, 3, 32, 32]) };
      // Buffers are freed beside the collection that finds them, also those of the test before.
      const bytes = async (last = Number.NaN): Promise<number> => {
        gc();
        await setImmediate();
        const { arrayBuffers } = process.memoryUsage();
        return arrayBuffers === last ? last : bytes(arrayBuffers);
      };
      const before = await bytes();
      const grownBy = async (size: keyof typeof feeds) => {
        const { ended } = pool.start('brightness', [feeds[size]], ['logits'], 60_000);
        expect(await ended).toMatchObject({ state: 'done' });
        return ((await bytes()) - before) / mebibyte;
      };
      // Of 23.4 and 4.7 MiB.
      expect(await grownBy('large')).toBeLessThan(2);
      expect(await grownBy('small')).toBeGreaterThan(2);
      vi.advanceTimersByTime(30_000);
      expect(((await bytes()) - before) / mebibyte).toBeLessThan(2);
    });
  });
});
