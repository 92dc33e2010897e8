/** `npm run serve:inference -- --config models.json`: an inference host by itself. */
import { resolve } from 'node:path';
import { Command } from 'commander';
import { createLog } from '../log.ts';
import { readHostConfig } from './config.ts';
import { startHost } from './host.ts';
import { enterEmptyFolder, stopOnSignals } from './process.ts';

const { config: file } = new Command('serve:inference')
  .description('Serves ONNX models over the Open Inference Protocol (docs/serving.md).')
  .requiredOption('--config <file>', 'JSON file that names the models')
  .parse()
  .opts<{ config: string }>();

const log = createLog({ logLevel: 'info' });
try {
  // npm changes into the package's folder, and says where it was called.
  const config = readHostConfig(resolve(process.env.INIT_CWD ?? '.', file));
  enterEmptyFolder();
  const host = await startHost(config, log);
  log.info({ url: host.url, permits: config.permits, intraOpThreads: config.intraOpThreads }, 'inference host is ready');
  stopOnSignals(host, log);
} catch (error) {
  console.error((error as Error).message);
  process.exit(1);
}
