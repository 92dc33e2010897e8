import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { median } from '../bench/load.ts';
import { nativeMissing, openvinoMissing, rounds, whyNoNative, whyNoOpenvino, withModels } from './support/engines.ts';
import { eventually } from './support/eventually.ts';
import { inferJson, metric, spinJson, withHost, withModelFiles } from './support/inference.ts';
import { withListening } from './support/process.ts';

const fileOf = withModels(['spin']);
const lateMsMax = 50;
const saidOf = (lateMs: number[]): string =>
  `median ${median(lateMs).toFixed(1)}, ${Math.min(...lateMs).toFixed(1)} to ${Math.max(...lateMs).toFixed(1)} ms`;

let url = '';
withHost({ models: [{ name: 'spin', deadlineMs: 50 }] }, (host) => {
  url = host.url;
});

test('a run that overruns its estimate: 504 is sent before it has ended, 100 of 100', async () => {
  const dispatched = () => metric(url, 'whetstone_inference_dispatched_runs');
  const runs = () => metric(url, 'whetstone_inference_runs_total{model="spin"');
  let early = 0;
  for (let n = 0; n < 100; n += 1) {
    const before = await runs();
    // Half a second on a fast machine; the warm-up has told of runs of no time at all.
    const { status } = await inferJson(url, 'spin', spinJson(100_000));
    if (status === 504 && (await runs()) === before) early += 1;
    await eventually(async () => expect(await dispatched()).toBe(0));
  }
  expect(early).toBe(100);
});

test.skipIf(nativeMissing !== null)(
  `a loop that never ends is stopped right after its deadline, and the next run works${whyNoNative}`,
  async () => {
    const { nativeOpener, RunStopped } = await import('../src/engine/native.ts');
    const session = await nativeOpener('ONNXRUNTIME_NATIVE')(fileOf('spin'), { intraOpThreads: 1 });
    const deadlineMs = 100;
    const lateMs: number[] = [];
    for (let n = 0; n < 20; n += 1) {
      const startedAt = performance.now();
      await expect(session.run(rounds(2n ** 60n), ['y'], { deadlineMs })).rejects.toThrow(RunStopped);
      lateMs.push(performance.now() - startedAt - deadlineMs);
      expect((await session.run(rounds(3n))).outputs.get('y')?.data).toEqual(BigInt64Array.of(3n));
    }
    await session.close();
    console.log(`stopped after its deadline: ${saidOf(lateMs)}`);
    expect(median(lateMs)).toBeLessThanOrEqual(lateMsMax);
  },
);

test.skipIf(nativeMissing !== null)(
  `the same in the host: 504 at the deadline, and the next request is answered by the same host${whyNoNative}`,
  async () => {
    const deadlineMs = 100;
    const lateMs: number[] = [];
    const freeMs: number[] = [];
    for (let n = 0; n < 20; n += 1) {
      const sentAt = performance.now();
      expect((await inferJson(url, 'spin', spinJson(2 ** 50, { timeout: 1000 * deadlineMs }))).status).toBe(504);
      lateMs.push(performance.now() - sentAt - deadlineMs);
      await eventually(async () => expect(await metric(url, 'whetstone_inference_dispatched_runs')).toBe(0));
      freeMs.push(performance.now() - sentAt - deadlineMs);
      expect((await inferJson(url, 'spin', spinJson(1))).status).toBe(200);
    }
    console.log(`504 after its deadline: ${saidOf(lateMs)}; its permit was seen to be free again: ${saidOf(freeMs)}`);
    expect(median(lateMs)).toBeLessThanOrEqual(lateMsMax);
  },
);

// It looks whether it is to stop between the kernels of a graph, and not within a loop, which is one of them.
test.skipIf(openvinoMissing !== null)(
  `a loop that never ends on OpenVINO: 504 at its deadline, then the host says so and ends${whyNoOpenvino}`,
  async () => {
    const { folder, settings } = await withModelFiles({
      engine: 'ONNXRUNTIME_NATIVE',
      models: [{ name: 'spin', engine: 'OPENVINO', deadlineMs: 500 }],
    });
    const config = join(folder, 'models.json');
    writeFileSync(config, JSON.stringify(settings));
    await withListening(['src/inference/main.ts', '--config', config], {}, 'inference host is ready', async ({ url, exit, lines }) => {
      // As many rounds as it takes: hours.
      expect((await inferJson(url, 'spin', spinJson(2 ** 31 - 1))).status).toBe(504);
      expect(await exit).toEqual({ code: null, signal: 'SIGKILL' });
      const said = lines.filter((line) => line.includes('does not end')).map((line) => JSON.parse(line));
      expect(said).toMatchObject([{ level: 60, model: 'spin/1', reason: expect.stringMatching(/^A run did not end within \d+ s/) }]);
    });
    rmSync(folder, { recursive: true });
  },
);
