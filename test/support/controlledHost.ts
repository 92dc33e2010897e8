/**
 * `node controlledHost.ts FOLDER [DRAIN_MS]`: an inference host with the first model of FOLDER/settings.json, which logs its address as a host by
 * itself does. The message `next` makes it load the next model beside it; it answers with what is wrong with that, or null. SIGTERM drains it, for so
 * long at most.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { modelKey, parseHostConfig } from '../../src/inference/config.ts';
import { startHost } from '../../src/inference/host.ts';
import { stopOnSignals } from '../../src/inference/process.ts';
import { createLog } from '../../src/log.ts';

const [folder, drainMs] = process.argv.slice(2) as [string, string | undefined];
const { models, ...config } = parseHostConfig(JSON.parse(readFileSync(join(folder, 'settings.json'), 'utf8')), folder, 8);
const [first, ...next] = models as [(typeof models)[number], ...typeof models];
const log = createLog({ logLevel: 'info' });
const host = await startHost({ ...config, models: [first] }, log, undefined, null, drainMs ? Number(drainMs) : undefined);
stopOnSignals(host, log);
process.on('message', async () => {
  const model = next.shift() as (typeof models)[number];
  const problem = await host.load(modelKey(model), model).then(
    () => null,
    (error: Error) => error.message,
  );
  process.send?.({ problem });
});
log.info({ url: host.url }, 'inference host is ready');
