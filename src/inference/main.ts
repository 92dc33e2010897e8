/** `npm run serve:inference -- --config models.json`: an inference host by itself. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Command } from 'commander';
import { createLog } from '../log.ts';
import { readHostConfig } from './config.ts';
import { startHost } from './host.ts';

/** The design's limit for everything that has to end (core.md, decision 16). */
const stopMs = 30_000;

const { config: file } = new Command('serve:inference')
  .description('Serves ONNX models over the Open Inference Protocol (docs/serving.md).')
  .requiredOption('--config <file>', 'JSON file that names the models')
  .parse()
  .opts<{ config: string }>();

const log = createLog({ logLevel: 'info' });
// What a model file may refer to is not in an empty folder.
const empty = mkdtempSync(join(tmpdir(), 'whetstone-empty-'));
process.on('exit', () => rmSync(empty, { recursive: true, force: true }));
try {
  // npm changes into the package's folder, and says where it was called.
  const config = readHostConfig(resolve(process.env.INIT_CWD ?? '.', file));
  process.chdir(empty);
  const host = await startHost(config, log);
  log.info({ url: host.url, permits: config.permits, intraOpThreads: config.intraOpThreads }, 'inference host is ready');
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, 'stopping');
    // A thread inside a run that never ends cannot be ended in any other way.
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), stopMs).unref();
    void host.stop().then(() => process.exit(0));
  };
  process.on('SIGTERM', stop).on('SIGINT', stop);
} catch (error) {
  console.error((error as Error).message);
  process.exit(1);
}
