/** `npm run serve:inference -- --config models.json`: an inference host by itself. */
import { resolve } from 'node:path';
import { WhetstoneCommand } from '../../client/command.ts';
import { readReplicaToken } from '../config.ts';
import { createLog } from '../log.ts';
import { followAccounts } from './accounts.ts';
import { readHostConfig } from './config.ts';
import { startHost } from './host.ts';
import { endWhenStuck, enterEmptyFolder, stopOnSignals, tracingOf } from './process.ts';

// As in the server's: nobody else reads what it writes.
process.umask(0o077);

const { config: file } = new WhetstoneCommand('serve:inference')
  .description('Serves ONNX models over the Open Inference Protocol (docs/serving.md).')
  .requiredOption('--config <file>', 'JSON file that names the models')
  .parse()
  .opts<{ config: string }>();

const log = createLog({ logLevel: 'info' });
try {
  // npm changes into the package's folder, and says where it was called.
  const token = readReplicaToken(process.env);
  const config = readHostConfig(resolve(process.env.INIT_CWD ?? '.', file), token);
  // Files that its variables name are relative to this folder.
  const tracing = await tracingOf(process.env, log);
  enterEmptyFolder();
  const host = await startHost(
    config,
    log,
    async (listening) => {
      // It may be long until it is ready.
      log.info({ url: listening.url }, 'inference host is listening');
      stopOnSignals(listening, log);
      void endWhenStuck(listening, log);
      if (config.accounts && token) await followAccounts({ ...config.accounts, token }, listening, log);
    },
    tracing,
  );
  log.info({ url: host.url, permits: config.permits, intraOpThreads: config.intraOpThreads }, 'inference host is ready');
} catch (error) {
  console.error((error as Error).message);
  process.exit(1);
}
