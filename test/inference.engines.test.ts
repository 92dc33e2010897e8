/** What the host does alike with every engine: onnxruntime-node, and those of the native runtime. All other tests run on the default. */
import { rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { parseHostConfig } from '../src/inference/config.ts';
import { type RunningHost, startHost } from '../src/inference/host.ts';
import { createLog } from '../src/log.ts';
import { hostEngines, nativeMissing, openvinoMissing, whyNoNative } from './support/engines.ts';
import { eventually } from './support/eventually.ts';
import { call, inferJson, metric, spinJson, withModelFiles } from './support/inference.ts';

const names = ['plus-1', 'plus-2', 'spin', 'lookup'];

describe.each(hostEngines)('the host on %s with models on %s', (engine, ofModels, missing) => {
  const left = missing !== null;
  const whyLeft = left ? ` (skipped: ${missing})` : '';
  const it = test.skipIf(left);
  let host: RunningHost;
  let folder = '';
  let config: ReturnType<typeof parseHostConfig>;
  beforeAll(async () => {
    if (left) return;
    const made = await withModelFiles({
      engine,
      permits: 2,
      models: names.map((name) => ({ name, engine: name === 'plus-2' ? 'AUTO' : ofModels, deadlineMs: 60_000 })),
    });
    folder = made.folder;
    config = parseHostConfig(made.settings, folder, 8);
    host = await startHost(config, createLog({ logLevel: 'silent' }));
  });
  afterAll(async () => {
    await host?.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const add = (model: string, value: number) =>
    inferJson(host.url, model, { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [value, value, value, value] }] });

  it(`gives each of many clients its own answer${whyLeft}`, async () => {
    const asked = Array.from({ length: 200 }, (_, n) => n);
    const got = await Promise.all(asked.map((n) => add(n % 2 === 0 ? 'plus-1' : 'plus-2', n)));
    expect(got.map(({ json }) => json.outputs[0].data[0])).toEqual(asked.map((n) => n + (n % 2 === 0 ? 1 : 2)));
  });

  it('says why a run fails, and runs the next', async () => {
    const look = (index: number) =>
      inferJson(host.url, 'lookup', { inputs: [{ name: 'index', datatype: 'INT64', shape: [1], data: [index] }] });
    // OpenVINO gives zeros for an index of 32 bits that is not in the table.
    const failed = await look(2 ** 32);
    expect([failed.status, failed.json.error]).toEqual([500, expect.stringMatching(/out of data bounds|range|32 bits/)]);
    expect((await look(1)).json.outputs[0].data).toEqual([3, 4]);
  });

  it('drops a run whose client has gone, and unloads a model when its runs have ended', async () => {
    const leaving = new AbortController();
    const lost = Array.from({ length: 4 }, () =>
      inferJson(host.url, 'spin', spinJson(20_000), { signal: leaving.signal }).catch(() => 'gone'),
    );
    await eventually(async () => expect(await metric(host.url, 'whetstone_inference_dispatched_runs')).toBe(4));
    leaving.abort();
    expect(await Promise.all(lost)).toEqual(['gone', 'gone', 'gone', 'gone']);
    await host.unload('spin/1');
    expect((await inferJson(host.url, 'spin', spinJson(1))).status).toBe(503);
    await host.load('spin/1', config.models.find(({ name }) => name === 'spin') as (typeof config.models)[number]);
    expect((await inferJson(host.url, 'spin', spinJson(1))).status).toBe(200);
  });
});

describe.skipIf(nativeMissing !== null)(`the native runtime in the host${whyNoNative}`, () => {
  let host: RunningHost;
  let folder = '';
  beforeAll(async () => {
    const made = await withModelFiles({
      engine: 'ONNXRUNTIME_NATIVE',
      models: [{ name: 'spin', deadlineMs: 500 }],
    });
    folder = made.folder;
    host = await startHost(parseHostConfig(made.settings, folder, 8), createLog({ logLevel: 'silent' }));
  });
  afterAll(async () => {
    await host.stop();
    rmSync(folder, { recursive: true });
  });

  test('a run that would never end: 504, its permit is free again, the host lives', async () => {
    for (let n = 0; n < 3; n += 1) {
      expect((await inferJson(host.url, 'spin', spinJson(1e12))).status).toBe(504);
      await eventually(async () => expect(await metric(host.url, 'whetstone_inference_dispatched_runs')).toBe(0));
    }
    expect(host.problem()).toBeNull();
    // A slow machine may take more than the deadline for a short run too.
    await eventually(async () => expect((await inferJson(host.url, 'spin', spinJson(1))).status).toBe(200));
    expect((await call(`${host.url}/v2/health/ready`)).status).toBe(200);
  });
});

test('while one of two permits is held by a run past its deadline, the host is ready, answers on the other, and says that it is slower', async () => {
  const { folder, settings } = await withModelFiles({
    engine: 'ONNXRUNTIME_CPU',
    permits: 2,
    models: [
      { name: 'stubborn', deadlineMs: 50 },
      { name: 'plus-1', deadlineMs: 60_000 },
    ],
  });
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  const host = await startHost(parseHostConfig(settings, folder, 8), createLog({ logLevel: 'silent' }));
  try {
    // A kernel of a second or more, during which the clock of the pool advances by two seconds.
    expect((await inferJson(host.url, 'stubborn', spinJson(30_000))).status).toBe(504);
    vi.advanceTimersByTime(2000);
    expect(host.problem()).toMatch(/^1 of 2 permits is held by a run past the deadline/);
    expect((await call(`${host.url}/v2/health/ready`)).status).toBe(200);
    const four = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }] };
    expect((await inferJson(host.url, 'plus-1', four)).status).toBe(200);
    await eventually(() => expect(host.problem()).toBeNull());
  } finally {
    vi.useRealTimers();
    await host.stop();
    rmSync(folder, { recursive: true });
  }
});

test.each([
  ['OPENVINO', 'ONNXRUNTIME_CPU', openvinoMissing ?? 'The inference host runs every model on ONNXRUNTIME_CPU, not on OPENVINO'],
  ['ONNXRUNTIME_NATIVE_CUDA', 'AUTO', 'There is no NVIDIA GPU to be seen'],
  ['ONNXRUNTIME_NATIVE_TENSORRT', 'AUTO', 'There is no NVIDIA GPU to be seen'],
])('a model that asks for %s in a host on %s, which does not run it, is refused with the reason', async (engine, ofHost, reason) => {
  const { folder, settings } = await withModelFiles({ engine: ofHost, models: [{ name: 'plus-1', engine }] });
  vi.stubEnv('PATH', '/nowhere');
  const starting = startHost(parseHostConfig(settings, folder, 8), createLog({ logLevel: 'silent' }));
  await expect(starting).rejects.toThrow(reason);
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});
