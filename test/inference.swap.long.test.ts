import { fork } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { median, percentile } from '../bench/load.ts';
import { nodeFlags } from '../src/inference/channel.ts';
import { nativeMissing, whyNoNative } from './support/engines.ts';
import { inferJson, withModelFiles } from './support/inference.ts';

const swaps = 8;
/** Of idling, and of traffic alone, before each swap: whatever else the machine does then meets all three. */
const phaseMs = 1500;
const deadlineMs = 2000;
const requestEachMs = 100;

/** Milliseconds between ticks of 1 ms: P50, P99 and the most. */
type Delays = Record<'idle' | 'traffic' | 'swap', [number, number, number]>;

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
    const enter = (phase: keyof Delays | 'end'): Promise<Delays> => {
      host.send(phase);
      return told();
    };
    const agent = new Agent({ keepAlive: true });
    try {
      const { url } = await told<{ url: string }>();
      const body = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 512], data: Array(512).fill(0.5) }] };
      const send = async () => {
        const sentAt = performance.now();
        const { status, json } = await inferJson(url, 'weights', body, { agent });
        return { status, version: String(json.model_version ?? json.error), ms: performance.now() - sentAt };
      };
      const answers: Record<'traffic' | 'swap', ReturnType<typeof send>[]> = { traffic: [], swap: [] };
      for (let n = 0; n < swaps; n += 1) {
        await enter('idle');
        await delay(phaseMs);
        await enter('traffic');
        let phase: keyof typeof answers = 'traffic';
        const timer = setInterval(() => void answers[phase].push(send()), requestEachMs);
        await delay(phaseMs);
        phase = 'swap';
        await enter('swap');
        clearInterval(timer);
        await Promise.all(answers.swap);
      }
      const { idle, traffic, swap } = await enter('end');
      const [beside, meanwhile] = await Promise.all([Promise.all(answers.traffic), Promise.all(answers.swap)]);
      const last = await send();

      const say = (values: number[]) => values.map((value) => value.toFixed(1)).join(' / ');
      const saidOf = (all: typeof beside) => {
        const ms = all.map((answer) => answer.ms).sort((a, b) => a - b);
        return `${ms.length} answers in ${say([median(ms), percentile(ms, 0.99), percentile(ms, 1)])} ms`;
      };
      console.log(`P50 / P99 / most. Between ticks of 1 ms: idle ${say(idle)}, with traffic ${say(traffic)}, with a swap ${say(swap)} ms`);
      console.log(`traffic alone: ${saidOf(beside)}; with a swap: ${saidOf(meanwhile)}`);
      expect([...beside, ...meanwhile].filter(({ status }) => status !== 200)).toEqual([]);
      expect(last).toMatchObject({ status: 200, version: String(swaps + 1) });
      expect(swap[1]).toBeLessThanOrEqual(3 * idle[1]);
      // The longest wait of each phase is the machine's as much as the host's.
      expect(swap[2]).toBeLessThanOrEqual(3 * Math.max(idle[2], traffic[2]));
    } finally {
      agent.destroy();
      host.kill('SIGKILL');
      await once(host, 'exit');
      rmSync(folder, { recursive: true });
    }
  },
);
