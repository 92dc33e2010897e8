/**
 * `node swappingHost.ts FOLDER`: an inference host with the first model of FOLDER/settings.json, which tells its address. Each message names a phase,
 * which the delays of its event loop count for from then on; at the phase `swap` it also loads the next model, gives it the requests and unloads the one
 * before. It answers each, and `end` with the percentiles of all phases.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { percentile } from '../../bench/load.ts';
import { modelKey, parseHostConfig } from '../../src/inference/config.ts';
import { startHost } from '../../src/inference/host.ts';
import { createLog } from '../../src/log.ts';

const folder = process.argv[2] as string;
const { models, ...config } = parseHostConfig(JSON.parse(readFileSync(join(folder, 'settings.json'), 'utf8')), folder, 8);
let [serving, ...next] = models as [(typeof models)[number], ...typeof models];
const host = await startHost({ ...config, models: [serving] }, createLog({ logLevel: 'silent' }));
const delaysMs: Record<string, number[]> = { idle: [], traffic: [], swap: [] };
let phase = 'idle';
let tickedAt = performance.now();
// The histogram of `monitorEventLoopDelay` counts the time for which it was disabled, too.
setInterval(() => {
  const now = performance.now();
  delaysMs[phase]?.push(now - tickedAt);
  tickedAt = now;
}, 1);

async function swap(): Promise<void> {
  const [model, ...others] = next as typeof models as [(typeof models)[number]];
  await host.load(modelKey(model), model);
  host.serve([{ name: model.name, ids: [modelKey(model)] }]);
  await host.unload(modelKey(serving));
  [serving, next] = [model, others];
}

process.on('message', async (entered: string) => {
  phase = entered;
  if (phase === 'swap') await swap();
  // At the end only, since sorting keeps the event loop busy.
  const measured = entered === 'end' ? Object.entries(delaysMs) : [];
  const told = measured.map(([name, all]) => {
    const sorted = all.toSorted((x, y) => x - y);
    return [name, [0.5, 0.99, 1].map((p) => percentile(sorted, p))];
  });
  process.send?.(Object.fromEntries(told));
});
process.send?.({ url: host.url });
