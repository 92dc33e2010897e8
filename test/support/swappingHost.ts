/**
 * `node swappingHost.ts FOLDER`: an inference host with the first model of FOLDER/settings.json, which tells its address. Each message names a phase,
 * which the delays of its event loop count for from then on; at the phase `swap` it also loads the next model, gives it the requests and unloads the one
 * before. It answers with the percentiles of all phases.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { modelKey, parseHostConfig } from '../../src/inference/config.ts';
import { startHost } from '../../src/inference/host.ts';
import { createLog } from '../../src/log.ts';

const folder = process.argv[2] as string;
const { models, ...config } = parseHostConfig(JSON.parse(readFileSync(join(folder, 'settings.json'), 'utf8')), folder, 8);
let [serving, ...next] = models as [(typeof models)[number], ...typeof models];
const host = await startHost({ ...config, models: [serving] }, createLog({ logLevel: 'silent' }));
const delays = new Map(['idle', 'traffic', 'swap'].map((phase) => [phase, monitorEventLoopDelay({ resolution: 1 })]));

async function swap(): Promise<void> {
  const [model, ...others] = next as typeof models as [(typeof models)[number]];
  await host.load(modelKey(model), model);
  host.serve([{ name: model.name, ids: [modelKey(model)] }]);
  await host.unload(modelKey(serving));
  [serving, next] = [model, others];
}

process.on('message', async (phase: string) => {
  for (const histogram of delays.values()) histogram.disable();
  delays.get(phase)?.enable();
  if (phase === 'swap') await swap();
  const told = [...delays].map(([name, histogram]) => [name, [50, 99, 100].map((p) => histogram.percentile(p) / 1e6)]);
  process.send?.(Object.fromEntries(told));
});
process.send?.({ url: host.url });
