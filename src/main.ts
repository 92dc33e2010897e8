import './loading.ts';
import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { uploadFile } from '../client/upload.ts';
import { withSession } from './cli/client.ts';
import { progressBar } from './cli/progressBar.ts';
import { watchJob } from './cli/watch.ts';
import { describedSettings, describeSettings, readClientConfig, readConfig } from './config.ts';
import { InputError } from './errors.ts';
import { finishLoading } from './loading.ts';
import { createLog } from './log.ts';
import { stopMs } from './stopTimes.ts';

// Whatever a command writes, and whatever its children write, is its user's only: keys, logs, what was uploaded.
process.umask(0o077);

/** Paths of arguments count from where the user is, not from the project's folder, where npm runs its scripts. */
const atCaller = (path: string): string => resolve(process.env.INIT_CWD ?? '.', path);
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

function countOf(text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1) throw new InvalidArgumentError('It is a whole number from 1 on.');
  return n;
}

// What a command needs and others do not is loaded by it: the server's modules take a second of processor time.
const program = new Command('whetstone')
  .description('Computer-vision models from a dataset to a served endpoint.')
  .addHelpText('after', () => describeSettings(Object.values(describedSettings).flat()));

program
  .command('serve', { isDefault: true })
  .description('start the server')
  .addHelpText('after', () => describeSettings([...describedSettings.server, ...describedSettings.other]))
  .action(async () => {
    const { startServer } = await import('./server.ts');
    const config = readConfig(process.env);
    const log = createLog(config);
    const server = await startServer(config, log);
    finishLoading();
    let stopping = false;
    const stop = (signal: NodeJS.Signals) => {
      if (stopping) return;
      stopping = true;
      log.info({ signal }, 'stopping');
      setTimeout(() => process.exit(1), stopMs.limit).unref();
      server.stop().then(
        () => process.exit(0),
        (error: unknown) => {
          log.error({ err: error }, 'the stop failed');
          process.exit(1);
        },
      );
    };
    process.on('SIGTERM', stop).on('SIGINT', stop);
  });

program
  .command('upload')
  .description('send a file to a server, or resume an interrupted upload; prints its upload id and SHA-256 as JSON')
  .argument('<file>', 'path of the file')
  .option('--url <url>', 'the server, instead of WHETSTONE_URL')
  .addHelpText('after', () => describeSettings(describedSettings.commands))
  .action(async (file: string, { url }: { url?: string }) => {
    const config = readClientConfig({ ...process.env, ...(url ? { WHETSTONE_URL: url } : {}) });
    const bar = progressBar(process.stderr);
    const uploaded = await withSession(config, (session) => uploadFile(session, resolve(config.folder, file), bar.show)).finally(bar.end);
    console.log(JSON.stringify(uploaded));
  });

program
  .command('watch')
  .description('follow a job until it ends; exits with 0 when it has succeeded, 1 when not, 2 when it could not be followed to its end')
  .argument('<job>', 'id of the job')
  .option('--url <url>', 'the server, instead of WHETSTONE_URL')
  .addHelpText('after', () => describeSettings(describedSettings.commands))
  .action(async (id: string, { url }: { url?: string }) => {
    // Until it is known how the job has ended: a token that has expired is no job that has failed.
    process.exitCode = 2;
    const config = readClientConfig({ ...process.env, ...(url ? { WHETSTONE_URL: url } : {}) });
    const succeeded = await withSession(config, (session) => watchJob(session, id, process.stdout));
    process.exitCode = succeeded ? 0 : 1;
  });

program
  .command('demo')
  .description('go the whole way once: real digits, training, gate, benchmark, report')
  .addOption(new Option('--task <task>', 'what the model does').choices(['classification', 'detection']).default('classification'))
  .option('--keep', 'leave the server running')
  .option('--tune', 'search the hyperparameters, and compress the best; for classification')
  .action(async ({ task, keep = false, tune = false }: { task: 'classification' | 'detection'; keep?: boolean; tune?: boolean }) => {
    const { runDemo } = await import('./cli/demo/demo.ts');
    await runDemo(task, { keep, tune });
  });

program
  .command('backup')
  .description('copy the data folder to a folder of backups, while the server runs; what is there already is not copied again')
  .argument('<folder>', 'folder of the backups, outside of the data folder')
  .option('--keep <n>', 'remove all but the newest backups', countOf)
  .option('--keys', 'also the keys that tokens and links are signed with; without them everybody logs in again after a restore')
  .action(async (folder: string, options: { keep?: number; keys?: boolean }) => {
    const { backUp } = await import('./backup/backup.ts');
    const { path, blobs, newBytes, removed } = await backUp(readConfig(process.env).dataDir, atCaller(folder), options);
    console.log(
      `${path}\n${blobs} files, ${megabytes(newBytes)} of them new${removed.length > 0 ? `; removed ${removed.length} older backups` : ''}.`,
    );
  });

program
  .command('restore')
  .description('make a new data folder of a backup, after every byte of it was checked')
  .argument('<backup>', 'a backup, as `backup` has printed it')
  .argument('<folder>', 'the new data folder')
  .action(async (backup: string, folder: string) => {
    const { restore } = await import('./backup/restore.ts');
    const { blobs, sizeBytes } = await restore(atCaller(backup), atCaller(folder));
    console.log(`Restored ${blobs} files, ${megabytes(sizeBytes)}. Start the server with WHETSTONE_DATA_DIR=${atCaller(folder)}`);
  });

program
  .command('verify')
  .description('check every byte of a data folder or of a backup; exits with 1 when something is damaged')
  .argument('<folder>', 'the data folder, or a backup')
  .action(async (folder: string) => {
    const { verify } = await import('./backup/verify.ts');
    const { problems, blobs, sizeBytes, unnamed } = await verify(atCaller(folder));
    for (const problem of problems) console.log(problem);
    const garbage = unnamed > 0 ? ` ${unnamed} files are not in use.` : '';
    console.log(`${problems.length === 0 ? 'Whole' : 'Damaged'}: the database and ${blobs} files, ${megabytes(sizeBytes)}.${garbage}`);
    process.exitCode = problems.length === 0 ? 0 : 1;
  });

const admin = program
  .command('admin')
  .description('administer without a login, on the machine of the data folder, while the server is stopped');

admin
  .command('reset-password')
  .description('give a user a new random password, and lift a login delay')
  .argument('<name>', 'name of the user')
  .action(async (name: string) => {
    const { openDatabase, requireDatabase } = await import('./db.ts');
    const { createBus } = await import('./bus.ts');
    const { findUserByName, resetPassword } = await import('./accounts/users.ts');
    const { dataDir } = readConfig(process.env);
    requireDatabase(dataDir);
    const { db, close } = openDatabase(dataDir);
    try {
      const found = findUserByName(db, name);
      if (!found) throw new Error(`There is no user called ${name}.`);
      const password = randomBytes(15).toString('base64url');
      await resetPassword({ db, bus: createBus() }, { actorId: null, requestId: null }, found.id, password);
      console.log(`New password of ${found.name}: ${password}`);
    } finally {
      close();
    }
  });

try {
  await program.parseAsync();
} catch (error) {
  // What a person can mend is one message; a defect keeps its stack.
  const expected = error instanceof InputError || (error instanceof Error && error.constructor === Error);
  console.error(expected ? (error as Error).message : error);
  process.exit(process.exitCode ?? 1);
}
