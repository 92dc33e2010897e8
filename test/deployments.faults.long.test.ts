/** A kernel that cannot be stopped, with figures: when its client gets 504, and for how long another deployment does not answer. */
import { Agent } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { median } from '../bench/load.ts';
import { by, deployed, health, item } from './support/deployments.ts';
import { nativeMissing, whyNoNative, withModels } from './support/engines.ts';
import { eventually } from './support/eventually.ts';
import { inferJson, spinJson } from './support/inference.ts';
import type { TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { type Api, modelVersionOf } from './support/training.ts';

const deadlineMs = 500;
const lateMsMax = 100;
const gapMsMax = 2000;
const requestEachMs = 20;
const rounds = 3;

describe.skipIf(nativeMissing !== null)(`a run that does not end beside another deployment${whyNoNative}`, () => {
  const fileOf = withModels(['plus-1', 'stubborn']);
  let server: TestServer;
  withSharedServer(
    (running) => {
      server = running;
    },
    { WHETSTONE_INFERENCE_PERMITS: '2' },
  );

  test(`504 at the deadline, the host is replaced, and the other one answers again within ${gapMsMax} ms`, async () => {
    const api: Api = { url: server.url, token: await server.as('ENGINEER') };
    const versionOf = (name: string) => modelVersionOf(api, name, fileOf(name));
    await deployed(api, 'plus-1', await versionOf('plus-1'), { deadlineMs: 1000 });
    await deployed(api, 'endless', await versionOf('stubborn'), { deadlineMs });
    const agent = new Agent({ keepAlive: true });
    const figures: Record<'lateMs' | 'gapMs', number[]> = { lateMs: [], gapMs: [] };
    for (let round = 0; round < rounds; round += 1) {
      const { url: before, restarts } = await health(api);
      let url = before;
      const answeredAt: number[] = [];
      let others = 0;
      let looking: Promise<void> | null = null;
      const look = async () => {
        url = (await health(api)).url ?? url;
        looking = null;
      };
      const asked: Promise<unknown>[] = [];
      const askOther = async () => {
        const answer = await inferJson(url, 'plus-1', item(10), by(api, { agent })).catch(() => null);
        if (answer?.status === 200 && answer.json.outputs[0].data[0] === 11) answeredAt.push(performance.now());
        else {
          others += 1;
          // Its successor may have another port.
          looking ??= look();
          await looking;
        }
      };
      const timer = setInterval(() => asked.push(askOther()), requestEachMs);
      await eventually(() => expect(answeredAt.length).toBeGreaterThan(10));

      const sentAt = performance.now();
      const { status } = await inferJson(before, 'endless', spinJson(1_000_000), by(api));
      figures.lateMs.push(performance.now() - sentAt - deadlineMs);
      expect(status).toBe(504);
      await eventually(async () => expect(await health(api)).toMatchObject({ state: 'READY', restarts: restarts + 1 }));
      const readyAt = performance.now();
      await eventually(() => expect(answeredAt.at(-1)).toBeGreaterThan(readyAt));
      clearInterval(timer);
      await Promise.all(asked);
      answeredAt.sort((a, b) => a - b);
      const gaps = answeredAt.slice(1).map((at, i) => at - (answeredAt[i] as number));
      figures.gapMs.push(Math.max(...gaps));
      console.log(
        `504 ${figures.lateMs.at(-1)?.toFixed(0)} ms after its deadline; of ${asked.length} requests to the other deployment ${others} were not ` +
          `answered with 200, and the longest time without one was ${figures.gapMs.at(-1)?.toFixed(0)} ms`,
      );
      await delay(100);
    }
    agent.destroy();
    expect(median(figures.lateMs)).toBeLessThanOrEqual(lateMsMax);
    expect(median(figures.gapMs)).toBeLessThanOrEqual(gapMsMax);
  });
});
