/** Images of several clients in one run, on every engine. */
import { rmSync } from 'node:fs';
import sharp from 'sharp';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { parseHostConfig } from '../src/inference/config.ts';
import { type RunningHost, startHost } from '../src/inference/host.ts';
import { createLog } from '../src/log.ts';
import { presetPreprocess } from '../src/vision/spec.ts';
import { hostEngines } from './support/engines.ts';
import { eventually } from './support/eventually.ts';
import { holding } from './support/holding.ts';
import { call, withModelFiles } from './support/inference.ts';

describe.each(hostEngines)('images that wait together, in a host on %s with models on %s', (engine, ofModels, missing) => {
  const left = missing !== null;
  const whyLeft = left ? ` (skipped: ${missing})` : '';
  const it = test.skipIf(left);
  let host: RunningHost;
  let folder = '';
  const { hold, runs, ended, underWay } = holding(() => host.url);
  beforeAll(async () => {
    if (left) return;
    const images = {
      engine: ofModels,
      preprocess: { ...presetPreprocess(32), mean: [0, 0, 0], std: [1, 1, 1] },
      deadlineMs: 60_000,
      batchMax: 8,
      // Whether they share runs does not depend on how fast this machine is.
      runMs: { 1: 1, 8: 2 },
    };
    const made = await withModelFiles({
      engine,
      queueRequestsMax: 600,
      models: [
        { name: 'hold', model: 'spin', priority: 1, deadlineMs: 60_000 },
        { name: 'brightness', ...images },
        { name: 'brightness-alone', model: 'brightness', ...images, runMs: { 1: 1, 8: 7.5 } },
        { name: 'logarithm', ...images },
        { name: 'dim', ...images },
      ],
    });
    folder = made.folder;
    host = await startHost(parseHostConfig(made.settings, folder, 8), createLog({ logLevel: 'silent' }));
  });
  // Each test begins with an idle host.
  afterEach(async () => {
    if (!left) await eventually(async () => expect(await underWay()).toBe(0));
  });
  afterAll(async () => {
    await host?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Of one color, in a size of its own. */
  const picture = (n: number, [r, g, b]: number[]) =>
    sharp({ create: { width: 20 + (n % 37), height: 20 + (n % 23), channels: 3, background: { r: r ?? 0, g: g ?? 0, b: b ?? 0 } } })
      .png()
      .toBuffer();
  const colorOf = (n: number) => [n, (7 * n) % 256, 255 - n];
  const predict = (model: string, body: Buffer) => call(`${host.url}/v2/models/${model}/predict?top=3`, { method: 'POST', body });
  /** All at once, while another model keeps them waiting until they are decoded. */
  async function predictTogether(model: string, colors: number[][]) {
    const pictures = await Promise.all(colors.map((color, n) => picture(n, color)));
    const { queued, release } = await hold();
    const asked = pictures.map((body) => predict(model, body));
    await queued(colors.length);
    const before = await ended('hold', 'ok');
    await eventually(async () => expect(await ended('hold', 'ok')).toBeGreaterThan(before + 2));
    release();
    return Promise.all(asked);
  }
  type Found = { index: number; probability: number };
  const probabilities = (classes: Found[]) => classes.toSorted((a, b) => a.index - b.index).map(({ probability }) => probability);
  const softmaxOf = (color: number[]) => {
    const powers = color.map((level) => Math.exp(level / 255));
    return powers.map((power) => expect.closeTo(power / powers.reduce((a, b) => a + b), 5));
  };

  it.each([
    ['share runs where that pays', 'brightness', 8, 32],
    ['go alone where an item of a full batch takes nearly as long as alone', 'brightness-alone', 64, 64],
  ])('of 64 clients %s, and each gets what was found on its own', async (_what, model, least, most) => {
    const before = await runs(model);
    const colors = Array.from({ length: 64 }, (_, n) => colorOf(n));
    const got = await predictTogether(model, colors);
    expect(got.map(({ json }) => probabilities(json.classes))).toEqual(colors.map(softmaxOf));
    const count = (await runs(model)) - before;
    expect(count).toBeGreaterThanOrEqual(least);
    expect(count).toBeLessThanOrEqual(most);
  });

  it(`one that the model has no number for does not take its neighbours with it${whyLeft}`, async () => {
    const got = await predictTogether('logarithm', [colorOf(9), [0, 0, 0], colorOf(99)]);
    expect(got.map(({ status }) => status)).toEqual([200, 500, 200]);
    expect(got[1]?.json.error).toContain('not made of numbers');
  });

  it('nobody gets what was found for another where the model answers for fewer images than it is given', async () => {
    const colors = [colorOf(9), [255, 255, 255], colorOf(99)];
    const before = await runs('dim');
    for (const round of [0, 1]) {
      const got = await predictTogether('dim', colors);
      // Of nothing there are no classes.
      expect(got.map(({ status }) => status)).toEqual([200, 422, 200]);
      for (const n of [0, 2]) expect(probabilities(got[n]?.json.classes)).toEqual(softmaxOf(colors[n] as number[]));
      // A batch was tried once, and not again.
      expect((await runs('dim')) - before).toBe(4 + 3 * round);
    }
  });
});
