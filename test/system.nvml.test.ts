/** GPUs through NVML: a library that looks like it (inference-native/test/fake_nvml.cpp), read by the addon. */
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { openGpuMeter } from '../src/benchmark/gpuMeter.ts';
import { type Gpus, readGpus } from '../src/system/gpus.ts';
import { nativeMissing, whyNoNative } from './support/engines.ts';
import { eventually } from './support/eventually.ts';
import { withFakeNvml } from './support/fakeNvml.ts';

describe.skipIf(nativeMissing !== null)(`the GPUs that NVML lists${whyNoNative}`, () => {
  const library = withFakeNvml();
  let readings = 0;
  afterEach(() => vi.unstubAllEnvs());

  /** A PATH of its own: readings with the same one are shared for a while. */
  function reading(file = library): Promise<Gpus> {
    vi.stubEnv('WHETSTONE_NVML_LIBRARY', file);
    readings += 1;
    return readGpus(`/nowhere/${readings}`);
  }

  test('are shown with their load, memory, power and temperature, and why they are slow', async () => {
    const about = { memoryTotalBytes: 8e9, memoryUsedBytes: 1e9, powerWatts: 93.52, throttleReasons: ['POWER_CAP'] };
    expect(await reading()).toEqual({
      gpus: [
        { index: 0, uuid: 'GPU-fake-0', name: 'Fake 0', utilizationPercent: 37, temperatureCelsius: 61, ...about },
        { index: 1, uuid: 'GPU-fake-1', name: 'Fake 1', utilizationPercent: null, temperatureCelsius: null, ...about },
      ],
      reason: null,
    });
  });

  test('are none with a reason where the library is none, or is not there', async () => {
    const none = await reading(join(import.meta.dirname, 'system.nvml.test.ts'));
    expect(none).toEqual({ gpus: null, reason: expect.stringMatching(/^NVML cannot be loaded: /) });
    expect(none.reason).not.toContain(import.meta.dirname);
    expect(await reading('/nowhere/libnvidia-ml.so.1')).toEqual({ gpus: null, reason: 'nvidia-smi is not installed on this machine.' });
  });

  test('are measured beside a benchmark, between start and stop only', async () => {
    vi.stubEnv('WHETSTONE_NVML_LIBRARY', library);
    const meter = openGpuMeter('cuda', 'GPU-fake-0,GPU-fake-1');
    expect(meter.use()).toMatchObject({ utilizationPercent: null, memoryBytesMax: null, throttleReasons: null, reason: null });
    for (const _block of [1, 2]) {
      meter.start();
      meter.stop();
    }
    meter.start();
    await eventually(async () => expect(meter.use().utilizationPercent).toBe(37));
    meter.stop();
    expect(meter.use()).toEqual({
      utilizationPercent: 37,
      memoryBytesMax: 1e9,
      powerWatts: 93.52,
      temperatureCelsiusMax: 61,
      throttleReasons: ['POWER_CAP'],
      reason: null,
    });
    expect(openGpuMeter('cuda', 'GPU-none').use().reason).toBe('NVML lists no GPU GPU-none.');
  });
});

test('a benchmark says why it has no figures of a GPU', () => {
  expect(openGpuMeter('cpu', '').use()).toEqual({
    utilizationPercent: null,
    memoryBytesMax: null,
    reason: 'It was measured on the processor.',
  });
  expect(openGpuMeter('cuda', '').use().reason).toMatch(/^(NVML, libnvidia-ml\.so\.1|The native runtime)/);
});
