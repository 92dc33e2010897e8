/**
 * `node swappingHost.ts FOLDER`: an inference host with the first model of FOLDER/settings.json, which tells its address. To `swap` it loads the next
 * model, gives it the requests and unloads the one before; to `reset` it forgets the delays of its event loop, to `delays` it tells their percentiles.
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
const delays = monitorEventLoopDelay({ resolution: 1 });
delays.enable();

async function swap(): Promise<void> {
  const [model, ...others] = next as typeof models as [(typeof models)[number]];
  await host.load(modelKey(model), model);
  host.serve([{ name: model.name, ids: [modelKey(model)] }]);
  await host.unload(modelKey(serving));
  [serving, next] = [model, others];
}

process.on('message', async (asked: 'swap' | 'reset' | 'delays') => {
  if (asked === 'swap') await swap();
  if (asked === 'reset') delays.reset();
  process.send?.({ p50Ms: delays.percentile(50) / 1e6, p99Ms: delays.percentile(99) / 1e6, maxMs: delays.max / 1e6 });
});
process.send?.({ url: host.url });
