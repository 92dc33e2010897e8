import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hasExternalData } from '../src/engine/externalData.ts';
import { parseHostConfig } from '../src/inference/config.ts';
import { loadModel, startChecks } from '../src/inference/models.ts';
import { startNativePool } from '../src/inference/native/pool.ts';
import type { Pool } from '../src/inference/pool.ts';
import { startPool } from '../src/inference/threads/pool.ts';
import { nativeMissing } from './support/engines.ts';
import { withModelFiles } from './support/inference.ts';

const minimal = { models: [{ name: 'm', version: 1, file: 'm.onnx', sha256: 'a'.repeat(64) }] };

describe('the configuration', () => {
  test('permits come from the cores: no more threads than these, at least one run, at most 16', () => {
    const permits = (cores: number, intraOpThreads: number) => parseHostConfig({ ...minimal, intraOpThreads }, '/', cores).permits;
    expect([permits(1, 1), permits(2, 1), permits(8, 1), permits(8, 3), permits(2, 4), permits(64, 1)]).toEqual([1, 2, 8, 2, 1, 16]);
    expect([2, 64].map((cores) => parseHostConfig(minimal, '/', cores).workers)).toEqual([10, 32]);
  });

  test('relative files start at its folder', () => {
    expect(parseHostConfig(minimal, '/models', 2).models[0]?.file).toBe('/models/m.onnx');
  });

  test.each<[string, object, string]>([
    ['a setting that does not exist', { prot: 1 }, 'prot'],
    ['more threads than cores', { permits: 3 }, 'permits: 3 × 1 threads are more than the 2 cores'],
    ['fewer workers than permits', { permits: 2, workers: 1 }, 'workers: 1 are fewer'],
    ['a model twice', { models: [...minimal.models, ...minimal.models] }, 'm/1 is there twice'],
    ['a hash that is none', { models: [{ ...minimal.models[0], sha256: 'x' }] }, 'models.0.sha256: A SHA-256'],
    ['a name with a slash', { models: [{ ...minimal.models[0], name: '../m' }] }, 'models.0.name'],
    ['a priority of 0', { models: [{ ...minimal.models[0], priority: 0 }] }, 'models.0.priority'],
  ])('%s is refused', (_, change, says) => {
    expect(() => parseHostConfig({ ...minimal, ...change }, '/', 2)).toThrow(says);
  });
});

const pools = { 'onnxruntime-node': startPool, ...(nativeMissing === null ? { 'the native runtime': startNativePool } : {}) };

describe.each(Object.entries(pools))('a model that cannot be served on %s', (_, start) => {
  const own = mkdtempSync(join(tmpdir(), 'whetstone-running-'));
  let folder = '';
  let config: ReturnType<typeof parseHostConfig>;
  let engine: Pool;
  const checks = startChecks();
  beforeAll(async () => {
    engine = await start({ permits: 1, workers: 2, folder: own, loadSecondsMax: 120 });
    const made = await withModelFiles({
      models: ['identity', 'external', 'text', 'brightness', 'spin', 'renamed', 'picked-0.5', 'swollen-80000000', 'weights-20'].map(
        (name) => ({ name }),
      ),
    });
    folder = made.folder;
    config = parseHostConfig(made.settings, folder, 2);
  });
  afterAll(async () => {
    await engine.close();
    await checks.close();
    rmSync(own, { recursive: true });
    rmSync(folder, { recursive: true, force: true });
  });

  const load = async (name: string, change: object = {}, limits: object = {}) => {
    const own = mkdtempSync(join(tmpdir(), 'whetstone-load-'));
    const model = config.models.find((one) => one.name === name) as (typeof config.models)[number];
    return loadModel(engine, checks, name, { ...model, ...change }, own, { ...config, ...limits }).finally(() =>
      rmSync(own, { recursive: true }),
    );
  };
  const rehashed = (name: string, bytes: Uint8Array) => {
    const file = join(folder, `${name}-changed.onnx`);
    writeFileSync(file, bytes);
    return { file, sha256: createHash('sha256').update(bytes).digest('hex') };
  };

  test('one whose bytes were flipped: the hash says so before it is loaded', async () => {
    const { file, sha256 } = rehashed('identity', readFileSync(join(folder, 'identity.onnx')));
    const flipped = readFileSync(file);
    flipped[50] = (flipped[50] as number) ^ 1;
    writeFileSync(file, flipped);
    await expect(load('identity', { file, sha256 })).rejects.toThrow(/identity\/1 cannot be served: The file has the SHA-256 .*, not /);
  });

  test('one that takes data from other files', async () => {
    writeFileSync(join(folder, 'weights.bin'), Buffer.alloc(64));
    await expect(load('external')).rejects.toThrow('without external data');
  });

  test('one that wants more threads than there are cores for it', async () => {
    await expect(load('identity', { intraOpThreads: 3 })).rejects.toThrow('1 runs at a time × 3 threads are more than the 2 cores');
  });

  test('one whose weights do not fit in what the host may have, before they are loaded', async () => {
    const memoryBytesMax = process.memoryUsage.rss() + 10 * 2 ** 20;
    await expect(load('weights-20', {}, { memoryBytesMax })).rejects.toThrow(/MiB of memory with it, and may have \d+ \(memoryBytesMax\)/);
  });

  test('one that takes more in its warm-up than the host may have', async () => {
    const memoryBytesMax = process.memoryUsage.rss() + 100 * 2 ** 20;
    await expect(load('swollen-80000000', {}, { memoryBytesMax })).rejects.toThrow('memoryBytesMax');
  });

  test('one that is cut off', async () => {
    const whole = readFileSync(join(folder, 'brightness.onnx'));
    await expect(load('brightness', rehashed('brightness', whole.subarray(0, whole.length - 20)))).rejects.toThrow(
      'not all of it is there',
    );
  });

  test('one of text, and no path in what is said', async () => {
    await expect(load('text')).rejects.toThrow('x is of type string, which cannot be served');
    await expect(load('text')).rejects.not.toThrow(/\/tmp\//);
  });

  test('batches of a model without a batch axis', async () => {
    await expect(load('spin', { batchMax: 4 })).rejects.toThrow('batchMax must be 1');
    await expect(load('renamed', { batchMax: 4 })).rejects.toThrow('is not one symbol, the batch');
  });

  test('batches of a model that has other rows in its output than in its input, as with suppression inside', async () => {
    await expect(load('picked-0.5', { batchMax: 4 })).rejects.toThrow('batchMax must be 1: output y has the shape [0,2] for a batch of 4');
    await load('picked-0.5', { batchMax: 1 });
  });

  test('a good one is loaded after all of them, and warm', async () => {
    const { signature, batched, times } = await load('identity', { batchMax: 4 });
    expect(signature.inputs).toEqual([{ name: 'x', datatype: 'FP32', shape: ['n', 4] }]);
    expect(batched).toBe(true);
    expect([times.fastest(1), times.fastest(4)].every((ms) => ms > 0)).toBe(true);
  });

  test('requests share its runs where an item of a full batch takes a tenth less: by the run times of a benchmark, or else of the warm-up', async () => {
    const batchMaxOf = async (change: object) => (await load('identity', { batchMax: 4, ...change })).batchMax;
    expect(await batchMaxOf({ runMs: { 1: 10, 4: 36 } })).toBe(4);
    expect(await batchMaxOf({ runMs: { 1: 10, 4: 36.1 } })).toBe(1);
    // A run of the identity takes as long for four items as for one.
    expect(await batchMaxOf({ runMs: { 1: 10 } })).toBe(4);
  });

  test('external data is found wherever a tensor can be: initializers, attributes, graphs in nodes, functions, sparse tensors', () => {
    const message = (field: number, ...parts: Buffer[]) => {
      const body = Buffer.concat(parts);
      return Buffer.concat([
        Buffer.from([((field << 3) & 0x7f) | 2 | (field > 15 ? 0x80 : 0), ...(field > 15 ? [field >> 4] : []), body.length]),
        body,
      ]);
    };
    const [model, graph, node, attribute] = [7, 1, 5, 5];
    const outside = Buffer.from([14 << 3, 1]);
    const inside = Buffer.from([14 << 3, 0]);
    const entry = message(13, Buffer.from('location'));
    for (const tensor of [outside, entry]) {
      expect(hasExternalData(message(model, message(5, tensor)))).toBe(true);
      expect(hasExternalData(message(model, message(graph, message(node, message(attribute, tensor)))))).toBe(true);
      expect(hasExternalData(message(model, message(graph, message(node, message(6, message(5, tensor))))))).toBe(true);
      expect(hasExternalData(message(model, message(15, message(1, tensor))))).toBe(true);
      expect(hasExternalData(message(25, message(7, message(node, message(attribute, tensor)))))).toBe(true);
      expect(hasExternalData(message(20, message(1, message(5, tensor))))).toBe(true);
    }
    expect(hasExternalData(message(model, message(5, inside)))).toBe(false);
    expect(() => hasExternalData(message(model, message(5, outside)).subarray(0, 4))).toThrow('not all of it');
    expect(() => hasExternalData(Buffer.alloc(20, 0xff))).toThrow('not all of it');
  });
});
