import { fork } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { percentile } from '../bench/load.ts';
import { nodeFlags } from '../src/inference/channel.ts';
import { nativeMissing, whyNoNative } from './support/engines.ts';
import { inferJson, withModelFiles } from './support/inference.ts';

const swaps = 8;
const seconds = 10;
const deadlineMs = 1000;
const requestsPerSecond = 20;

interface Delays {
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
}

test.skipIf(nativeMissing !== null)(
  `while models of 100 MB are loaded and swapped under traffic, the event loop answers and no request is late${whyNoNative}`,
  async () => {
    const versions = Array.from({ length: swaps + 1 }, (_, n) => n + 1);
    const { folder, settings } = await withModelFiles({
      engine: 'ONNXRUNTIME_NATIVE',
      models: versions.map((version) => ({ name: 'weights', model: 'weights-100', version, deadlineMs })),
    });
    writeFileSync(join(folder, 'settings.json'), JSON.stringify(settings));
    const host = fork(join(import.meta.dirname, 'support', 'swappingHost.ts'), [folder], { execArgv: nodeFlags });
    const told = async <T>(): Promise<T> => (await once(host, 'message'))[0];
    const ask = (what: 'swap' | 'reset' | 'delays'): Promise<Delays> => {
      host.send(what);
      return told();
    };
    const agent = new Agent({ keepAlive: true });
    try {
      const { url } = await told<{ url: string }>();
      const body = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 512], data: Array(512).fill(0.5) }] };
      const answers: Promise<{ status: number; version: string; ms: number }>[] = [];
      const send = async () => {
        const sentAt = performance.now();
        const { status, json } = await inferJson(url, 'weights', body, { agent });
        return { status, version: String(json.model_version ?? json.error), ms: performance.now() - sentAt };
      };
      const measured = async (work: () => Promise<unknown>) => {
        await ask('reset');
        await work();
        return ask('delays');
      };

      const idle = await measured(() => delay(1000 * seconds));
      const traffic = setInterval(() => void answers.push(send()), 1000 / requestsPerSecond);
      const busy = await measured(() => delay(1000 * seconds));
      const before = answers.length;
      const swapping = await measured(async () => {
        for (let n = 0; n < swaps; n += 1) await ask('swap');
      });
      clearInterval(traffic);
      const all = await Promise.all(answers);
      const last = await send();

      const times = (from: number, to?: number) =>
        all
          .slice(from, to)
          .map(({ ms }) => ms)
          .sort((a, b) => a - b);
      const say = ({ p50Ms, p99Ms, maxMs }: Delays) => `P50 ${p50Ms.toFixed(2)}, P99 ${p99Ms.toFixed(2)}, at most ${maxMs.toFixed(1)} ms`;
      const saidOf = (ms: number[]) =>
        `${ms.length} answers, P50 ${percentile(ms, 0.5).toFixed(0)}, P99 ${percentile(ms, 0.99).toFixed(0)}, at most ${ms.at(-1)?.toFixed(0)} ms`;
      console.log(`between ticks of 1 ms: idle ${say(idle)}; with traffic ${say(busy)}; with ${swaps} swaps ${say(swapping)}`);
      console.log(`before the swaps ${saidOf(times(0, before))}; meanwhile ${saidOf(times(before))}`);
      expect(all.filter(({ status }) => status !== 200)).toEqual([]);
      expect(last).toMatchObject({ status: 200, version: String(swaps + 1) });
      expect(new Set(all.map(({ version }) => version)).size).toBeGreaterThan(swaps / 2);
      expect(swapping.p99Ms).toBeLessThanOrEqual(3 * idle.p99Ms);
    } finally {
      agent.destroy();
      host.kill('SIGKILL');
      await once(host, 'exit');
      rmSync(folder, { recursive: true });
    }
  },
);
