/**
 * Every command, with its arguments, options and exit codes: the help, the completion and docs/commands.md are made from these. What a command
 * needs and others do not is loaded by it: the server's modules take a second of processor time.
 */
import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { Argument, type Command, InvalidArgumentError, Option } from 'commander';
import { addHelpCommand, parseAddress, WhetstoneCommand } from '../client/command.ts';
import { describeTui } from '../client/tui.ts';
import { type ClientSession, uploadFile } from '../client/upload.ts';
import pkg from '../package.json' with { type: 'json' };
import { withSession } from './cli/client.ts';
import { completionScript, type Shell, shells } from './cli/completion.ts';
import { fetchJobs, jobStates, jobTable } from './cli/jobs.ts';
import { describePrediction, predict } from './cli/predict.ts';
import { progressBar } from './cli/progressBar.ts';
import { parseVariable, pick, query, variablesOf } from './cli/query.ts';
import { watchJob } from './cli/watch.ts';
import { type ClientConfig, type DescribedSetting, describedSettings, describeSettings, readClientConfig, readConfig } from './config.ts';
import { createLog } from './log.ts';
import { stopMs } from './stopTimes.ts';
import { suggestion } from './suggest.ts';

/** Paths of arguments count from where the user is, not from the project's folder, where npm runs its scripts. */
const atCaller = (path: string): string => resolve(process.env.INIT_CWD ?? '.', path);
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
const printJson = (value: unknown): void => console.log(JSON.stringify(value, null, 2));
const json = ['--json', 'print JSON'] as const;

const countUpTo = (max: number) => (given: string) => {
  const n = Number(given);
  if (!Number.isInteger(n) || n < 1 || n > max) throw new InvalidArgumentError(`It is a whole number from 1 to ${max}.`);
  return n;
};

function shareOf(given: string): number {
  const share = Number(given);
  if (given.trim() === '' || !(share >= 0 && share <= 1)) throw new InvalidArgumentError('It is a number from 0 to 1.');
  return share;
}

export const program: Command = new WhetstoneCommand('whetstone')
  .description(
    'Computer-vision models from a dataset to a served endpoint.\n\n' +
      'Exit codes: 0 it is done; 1 it failed, and the message says why; 2 the command line is wrong. A command that has others lists them.',
  )
  .version(pkg.version, '--version', 'print the version');

/** What each command reads, for docs/commands.md. */
export const settingsOfCommands = new Map<Command, readonly DescribedSetting[]>();

/** Says in the help of a command which settings it reads. */
function withSettings(command: Command, settings: readonly DescribedSetting[]): Command {
  settingsOfCommands.set(command, settings);
  return command.addHelpText('after', () => describeSettings(settings));
}
const settingsNamed = (...variables: string[]) =>
  Object.values(describedSettings)
    .flat()
    .filter(({ variable }) => variables.includes(variable));
const dataFolder = settingsNamed('WHETSTONE_DATA_DIR');

withSettings(program.command('serve'), [...describedSettings.server, ...describedSettings.other])
  .description('start the server')
  .action(async () => {
    const { startServer } = await import('./server.ts');
    const { finishLoading } = await import('./loading.ts');
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

/** What scripts/doctor.mjs reads, which has to run without this file. */
const doctorVariables = ['HOST', 'PORT', 'INFERENCE_PORT', 'DATA_DIR', 'DISK_RESERVE_BYTES'].map((name) => `WHETSTONE_${name}`);

/** Two that are programs of their own: `./whetstone` starts them. */
const startedByScript = (npmScript: string) => () => {
  throw new Error(`Run \`./whetstone ${npmScript}\` or \`npm run ${npmScript}\`.`);
};

withSettings(
  describeTui(program.command('tui')),
  settingsNamed('WHETSTONE_URL', 'WHETSTONE_TOKEN', 'WHETSTONE_PORT', 'WHETSTONE_DATA_DIR'),
).action(startedByScript('tui'));

withSettings(program.command('doctor'), settingsNamed(...doctorVariables))
  .description(
    'check what Whetstone needs on this machine, and name the command that installs what is missing: system, Node.js, Python, compiler, GPU, ' +
      'disk, ports, open files, clock\n\nExits with 1 when something is missing that the server needs.',
  )
  .summary('check what Whetstone needs on this machine')
  .option('--json', 'print {ok, checks: [{name, state: OK | WARNING | MISSING, found, mend}]}')
  .action(startedByScript('doctor'));

program
  .command('demo')
  .description('run all steps once: real digits, training, gate, benchmark, report')
  .addOption(new Option('--task <task>', 'what the model does').choices(['classification', 'detection']).default('classification'))
  .option('--keep', 'leave the server running')
  .option('--tune', 'search the hyperparameters, and compress the best; for classification')
  .action(async ({ task, keep = false, tune = false }: { task: 'classification' | 'detection'; keep?: boolean; tune?: boolean }) => {
    const { runDemo } = await import('./cli/demo/demo.ts');
    await runDemo(task, { keep, tune });
  });

interface ClientOptions {
  url?: string;
  json?: boolean;
}

/** A command that talks to a server. */
const ofServer = (name: string): Command =>
  withSettings(
    program.command(name).option('--url <url>', 'the server, instead of WHETSTONE_URL', parseAddress),
    describedSettings.commands,
  );

const asClient = <T>({ url }: ClientOptions, use: (session: ClientSession, config: ClientConfig) => Promise<T>): Promise<T> => {
  const config = readClientConfig({ ...process.env, ...(url ? { WHETSTONE_URL: url } : {}) });
  return withSession(config, (session) => use(session, config));
};

ofServer('query')
  .description(
    'send a GraphQL document and print the data of the answer as JSON\n\nExits with 1 when the answer has errors, or userErrors at any depth; it prints their messages.',
  )
  .summary('send a GraphQL document and print the data of the answer as JSON')
  .argument('<document>', 'the document; - reads it from standard input')
  .option(
    '--var <name=value>',
    'a variable; may be repeated. A value is JSON, unless the document declares the variable as ID, String or DateTime',
    (pair: string, before: [string, string][] = []) => [...before, parseVariable(pair)],
  )
  .option('--pick <path>', 'print only this value, such as jobs.nodes.0.id; text without quotes')
  .action(async (given: string, options: ClientOptions & { var?: [string, string][]; pick?: string }) => {
    const document = given === '-' ? await text(process.stdin) : given;
    const variables = variablesOf(document, options.var ?? []);
    const data = await asClient(options, (session) => query(session, document, variables));
    if (options.pick === undefined) printJson(data);
    else console.log(pick(data, options.pick));
  });

ofServer('jobs')
  .description('list jobs, newest first')
  .addOption(new Option('--state <state>', 'only those in this state').choices(jobStates))
  .option('--first <n>', 'how many', countUpTo(100), 20)
  .option(...json)
  .action(async (options: ClientOptions & { state?: string; first: number }) => {
    const jobs = await asClient(options, (session) => fetchJobs(session, options));
    if (options.json) printJson(jobs);
    else if (jobs.length > 0) console.log(jobTable(jobs));
    else console.log(options.state ? `No job is ${options.state}.` : 'There are no jobs yet.');
  });

ofServer('watch')
  .description(
    'follow a job or a study until it ends\n\nExits with 0 when it has succeeded, 1 when not, 2 when it could not be followed to its end.',
  )
  .summary('follow a job or a study until it ends')
  .argument('<job>', 'id of the job, or of the study')
  .option('--json', 'print each event as a line of JSON')
  .action(async (id: string, options: ClientOptions) => {
    // Until it is known how the job has ended: a token that has expired is no job that has failed.
    process.exitCode = 2;
    const succeeded = await asClient(options, (session) => watchJob(session, id, process.stdout, options.json));
    process.exitCode = succeeded ? 0 : 1;
  });

ofServer('predict')
  .description('send images to a deployment and print what it sees')
  .argument('<deployment>', 'name of the deployment')
  .argument('<image...>', 'paths of images')
  .option('--top <n>', 'of a classifier: how many classes', countUpTo(1000))
  .option('--score <share>', 'of a detector: least score, 0 to 1', shareOf)
  .option('--json', 'print one JSON object a line: image, revision, classes or detections')
  .action(async (deployment: string, images: string[], options: ClientOptions & { top?: number; score?: number }) => {
    await asClient(options, async (session, { folder }) => {
      for (const image of images) {
        const prediction = await predict(session, deployment, resolve(folder, image), options);
        console.log(options.json ? JSON.stringify({ image, ...prediction }) : describePrediction(image, prediction));
      }
    });
  });

ofServer('upload')
  .description('send a file to a server, or resume an interrupted upload; prints its upload id and SHA-256 as JSON')
  .argument('<file>', 'path of the file')
  .action(async (file: string, options: ClientOptions) => {
    const bar = progressBar(process.stderr);
    const sent = (session: ClientSession, { folder }: ClientConfig) => uploadFile(session, resolve(folder, file), bar.show);
    console.log(JSON.stringify(await asClient(options, sent).finally(bar.end)));
  });

withSettings(program.command('backup'), dataFolder)
  .description(
    'copy the data folder to a folder of backups, while the server runs; what is there already is not copied again\n\n' +
      'Each backup also reads a sixteenth of what is there, and copies again what is damaged.\n' +
      'Exits with 1 when files of the data folder itself are damaged; the backup is made all the same.',
  )
  .summary('copy the data folder to a folder of backups, while the server runs; what is there already is not copied again')
  .argument('<folder>', 'folder of the backups, outside of the data folder')
  .option('--keep <n>', 'remove all but the newest backups', countUpTo(1_000_000))
  .option('--keys', 'also the keys that tokens and links are signed with; without them everybody logs in again after a restore')
  .option(...json)
  .action(async (folder: string, options: { keep?: number; keys?: boolean; json?: boolean }) => {
    const { backUp } = await import('./backup/backup.ts');
    const { describeDamage } = await import('./backup/folder.ts');
    const { dataDir } = readConfig(process.env);
    const made = await backUp(dataDir, atCaller(folder), options);
    const { path, blobs, newBytes, repaired, damaged, removed } = made;
    if (damaged.length > 0) {
      process.exitCode = 1;
      console.error(describeDamage(dataDir, damaged));
    }
    if (options.json) return printJson(made);
    const done = [
      `${blobs} files, ${megabytes(newBytes)} of them new`,
      ...(repaired > 0 ? [`${repaired} damaged ${repaired === 1 ? 'copy' : 'copies'} replaced`] : []),
      ...(removed.length > 0 ? [`removed ${removed.length} older backups`] : []),
    ];
    console.log(`${path}\n${done.join('; ')}.`);
  });

program
  .command('restore')
  .description('make a new data folder from a backup, after checking every byte of it')
  .argument('<backup>', 'a backup, as `backup` has printed it')
  .argument('<folder>', 'the new data folder')
  .option('--without-damaged', 'leave out stored files that the backup has damaged or lost; what needs them will fail')
  .option(...json)
  .action(async (backup: string, folder: string, options: { json?: boolean; withoutDamaged?: boolean }) => {
    const { restore } = await import('./backup/restore.ts');
    const path = atCaller(folder);
    const { blobs, sizeBytes, damaged } = await restore(atCaller(backup), path, options);
    if (options.json) return printJson({ path, blobs, sizeBytes, damaged });
    if (damaged.length > 0) console.log(`Left out, since they are damaged: ${damaged.join(', ')}`);
    console.log(`Restored ${blobs} files, ${megabytes(sizeBytes)}. Start the server with WHETSTONE_DATA_DIR='${path}'`);
  });

program
  .command('verify')
  .description('check every byte of a data folder or of a backup\n\nExits with 1 when something is damaged.')
  .summary('check every byte of a data folder or of a backup')
  .argument('<folder>', 'the data folder, or a backup')
  .option(...json)
  .action(async (folder: string, options: { json?: boolean }) => {
    const { verify } = await import('./backup/verify.ts');
    const found = await verify(atCaller(folder));
    const { problems, blobs, sizeBytes, unnamed } = found;
    process.exitCode = problems.length === 0 ? 0 : 1;
    if (options.json) return printJson(found);
    for (const problem of problems) console.log(problem);
    const garbage = unnamed > 0 ? ` ${unnamed} files are not in use.` : '';
    console.log(`${problems.length === 0 ? 'Whole' : 'Damaged'}: the database and ${blobs} files, ${megabytes(sizeBytes)}.${garbage}`);
  });

const admin = program
  .command('admin')
  .description('administer without a login, on the machine of the data folder, while the server is stopped');

withSettings(admin.command('reset-password'), dataFolder)
  .description('give a user a new random password, and lift a login delay')
  .argument('<name>', 'name of the user')
  .option(...json)
  .action(async (name: string, options: { json?: boolean }) => {
    const { openDatabase, requireDatabase } = await import('./db.ts');
    const { createBus } = await import('./bus.ts');
    const { findUserByName, listUsers, resetPassword } = await import('./accounts/users.ts');
    const { dataDir } = readConfig(process.env);
    requireDatabase(dataDir);
    const { db, close } = openDatabase(dataDir);
    try {
      const found = findUserByName(db, name);
      if (!found)
        throw new Error(
          `There is no user called ${name}.${suggestion(
            name,
            listUsers(db, {}, 1000, null).map((user) => user.name),
          )}`,
        );
      const password = randomBytes(15).toString('base64url');
      await resetPassword({ db, bus: createBus() }, { actorId: null, requestId: null }, found.id, password);
      if (options.json) printJson({ name: found.name, password });
      else console.log(`New password of ${found.name}: ${password}`);
    } finally {
      close();
    }
  });

program
  .command('completion')
  .description('print a script that completes the commands of `whetstone` in your shell\n\nFor bash: source <(./whetstone completion bash)')
  .summary('print a script for completion in your shell')
  .addArgument(new Argument('<shell>', 'your shell').choices(shells))
  .action((shell: Shell) => console.log(completionScript(program, shell)));

addHelpCommand(program);
