import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { feedsOf } from '../src/benchmark/inputs.ts';
import { type Instances, openInstances, type StreamAsked } from '../src/benchmark/instances.ts';
import { type EngineName, engines } from '../src/engine/engines.ts';
import { makeBenchmarkModels } from './support/benchmark.ts';
import { nativeMissing, openvinoMissing } from './support/engines.ts';

const folder = makeBenchmarkModels();
const file = join(folder, 'classifier.onnx');
const inputs = [{ name: 'image', datatype: 'FP32' as const, shape: [1, 3, 8, 8] }];
const asMany = { seconds: 3600, samplesMax: 1_000_000, total: null };

async function withInstances(engine: EngineName, count: number, use: (instances: Instances) => Promise<void>): Promise<void> {
  const session = await (await engines[engine].load())(file, { intraOpThreads: 1 });
  const feeds = feedsOf(inputs, null, 0, 3);
  const data = { engine, file, intraOpThreads: 1, inputs, probe: null, seed: 0, feeds: feeds.length };
  const instances = await openInstances(count, session, feeds, data);
  if ('problem' in instances) throw new Error(instances.problem.message);
  await use(instances);
  await instances.close();
  await session.close();
}

/** A block, and how many inferences the calling thread has told of in each message. */
async function blockOf(instances: Instances, asked: Partial<StreamAsked>) {
  const told: number[] = [];
  const { latencyNs, endNs } = await instances.block({ ...asMany, ...asked }, (runs) => told.push(runs));
  expect(endNs).toHaveLength(latencyNs.length);
  expect(endNs).toEqual(endNs.toSorted());
  expect(latencyNs.every((ns) => ns > 0)).toBe(true);
  return { latencyNs, endNs, told, toldRuns: told.reduce((sum, runs) => sum + runs, 0) };
}

describe.each([
  ['ONNXRUNTIME_CPU', null],
  ['ONNXRUNTIME_NATIVE', nativeMissing],
  ['OPENVINO', openvinoMissing],
] as const)('instances on %s', (engine, missing) => {
  const it = test.skipIf(missing !== null);
  const why = missing === null ? '' : ` (skipped: ${missing})`;

  it(`compute until the time of a block is over, and tell their progress before that${why}`, () =>
    withInstances(engine, 1, async (instances) => {
      const { latencyNs, endNs, told, toldRuns } = await blockOf(instances, { seconds: 0.25 });
      expect(endNs.at(-1)).toBeGreaterThanOrEqual(0.25e9);
      expect(endNs.at(-2) ?? 0).toBeLessThan(0.25e9);
      expect(told.length).toBeGreaterThan(1);
      expect(toldRuns).toBe(latencyNs.length);
      // One inference follows the other.
      const gaps = endNs.map((end, i) => end - (latencyNs[i] as number) - (endNs[i - 1] ?? 0));
      expect(gaps.every((ns) => ns >= 0)).toBe(true);
    }));

  it(`compute one inference at least, and no more than is kept${why}`, () =>
    withInstances(engine, 1, async (instances) => {
      expect((await blockOf(instances, { seconds: 0 })).latencyNs).toHaveLength(1);
      expect((await blockOf(instances, { samplesMax: 5001 })).latencyNs).toHaveLength(5001);
    }));

  it(`share a list of inferences, and compute each of it once${why}`, () =>
    withInstances(engine, 2, async (instances) => {
      for (const total of [1, 1000]) {
        const { latencyNs, toldRuns } = await blockOf(instances, { total, seconds: 0 });
        expect(latencyNs).toHaveLength(total);
        expect(toldRuns).toBeLessThanOrEqual(total);
      }
    }));
});
