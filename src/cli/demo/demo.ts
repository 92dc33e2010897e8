/**
 * `npm run demo`: the whole way of a model as a user goes it, over the public API only: a dataset is uploaded, a model trained on it and
 * converted behind its gate, its ONNX version benchmarked, the report written where it outlives the server, and the version deployed.
 */
import { spawn } from 'node:child_process';
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import yazl from 'yazl';
import { type ClientSession, uploadFile } from '../../../client/upload.ts';
import { servingEngine } from '../../engine/engines.ts';
import { ask } from '../client.ts';
import { progressBar } from '../progressBar.ts';
import { watchJob } from '../watch.ts';
import { digits } from './digits.ts';
import { scenes } from './scenes.ts';
import type { DemoTask } from './task.ts';

const password = 'the demo has no secrets';
/** All of them: nothing runs beside the demo's jobs. */
const cpuThreads = availableParallelism();

const demos = { classification: digits, detection: scenes };

// biome-ignore lint/suspicious/noExplicitAny: what a query answers has the shape that it asks for.
type Data = any;

/**
 * Runs the demo of a task; with `keep` the server stays until Ctrl-C, with `tune` a study finds the hyperparameters and its best is compressed.
 * Throws when a step fails.
 */
export async function runDemo(task: keyof typeof demos, { keep, tune }: { keep: boolean; tune: boolean }): Promise<void> {
  const demo: DemoTask = demos[task];
  if (tune && !demo.study) throw new Error(`The demo of ${task} has no study: leave --tune out, or --task.`);
  const startedAt = performance.now();
  const folder = mkdtempSync(join(tmpdir(), 'whetstone-demo-'));
  const server = await startServerProcess(folder);
  try {
    say(`The server runs at ${server.url}`);
    const session = await firstLogin(server.url, folder);
    const datasetVersionId = await importDataset(session, demo, folder);
    const study = tune ? await search(session, demo, datasetVersionId) : await train(session, demo, datasetVersionId);
    const modelVersionId = await showVersions(session, demo, folder);
    const versions = study ? [modelVersionId, await compress(session, demo, modelVersionId)] : [modelVersionId];
    const reportFolder = await benchmark(session, versions);
    if (study) {
      writeFileSync(join(reportFolder, 'study.html'), study.html);
      say('   study.html, beside this report, shows the study.');
    } else if (demo.unseen) await deploy(session, demo.name, modelVersionId, await demo.unseen());
    if (demo.check) step(await demo.check(folder, reportFolder));

    say(`\nThat took ${Math.round((performance.now() - startedAt) / 1000)} s.`);
    say(
      keep
        ? `The server keeps running: open ${server.url}/graphql and log in as "demo" with "${password}". Ctrl-C ends it.`
        : 'Next: `npm run demo -- --keep` leaves the server running; `npm start` serves your own data; docs/tutorial.md shows the next steps.',
    );
    console.log(`report: ${relative(process.cwd(), join(reportFolder, 'report.md'))}`);
    if (keep) await server.ended;
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

const say = (text: string): void => console.log(text);

let steps = 0;
const step = (text: string): void => {
  steps += 1;
  say(`\n${steps}. ${text}`);
};

interface ServerProcess {
  url: string;
  ended: Promise<void>;
  stop(): Promise<void>;
}

/** It ends with the demo, also when that is interrupted: nothing stays in `folder`. */
async function startServerProcess(folder: string): Promise<ServerProcess> {
  const own = { WHETSTONE_DATA_DIR: join(folder, 'data'), WHETSTONE_PORT: '0', WHETSTONE_INFERENCE_PORT: '0', WHETSTONE_LOG_LEVEL: 'info' };
  const env = { ...process.env, ...own };
  const child = spawn(process.execPath, [join(import.meta.dirname, '..', '..', 'main.ts'), 'serve'], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const interrupt = async () => {
    child.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true, force: true });
    process.exit(130);
  };
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  const lines = createInterface({ input: child.stdout });
  const url = await new Promise<string>((ready, failed) => {
    lines.on('line', (line) => {
      const { msg, url } = JSON.parse(line) as { msg?: string; url?: string };
      if (msg === 'whetstone is ready' && url) ready(url);
    });
    ended.then(() => failed(new Error('The server did not start.')));
  });
  return {
    url,
    ended,
    async stop() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

async function firstLogin(url: string, folder: string): Promise<ClientSession> {
  const anonymous: ClientSession = { url, accessToken: async () => '' };
  const token = readFileSync(join(folder, 'data', 'bootstrap-token'), 'utf8').trim();
  await mutate(anonymous, 'bootstrap', { token, name: 'demo', password }, 'user { name }');
  const login = () => mutate(anonymous, 'login', { name: 'demo', password }, 'credentials { accessToken accessTokenExpiresAt }');
  let { credentials } = await login();
  return {
    url,
    async accessToken() {
      if (Date.parse(credentials.accessTokenExpiresAt) - Date.now() < 60_000) credentials = (await login()).credentials;
      return credentials.accessToken;
    },
  };
}

const query = (session: ClientSession, text: string, variables: object = {}): Promise<Data> => ask(session, text, variables);

/** The payload of a mutation; its user errors are thrown. */
async function mutate(session: ClientSession, name: string, input: object, fields: string): Promise<Data> {
  const type = `${name.charAt(0).toUpperCase()}${name.slice(1)}Input`;
  const data = await query(session, `mutation ($input: ${type}!) { ${name}(input: $input) { ${fields} userErrors { message } } }`, {
    input,
  });
  const [error] = data[name].userErrors;
  if (error) throw new Error(`${name}: ${error.message}`);
  return data[name];
}

async function follow(session: ClientSession, jobId: string): Promise<void> {
  if (!(await watchJob(session, jobId, process.stdout))) throw new Error('The job has not succeeded.');
}

async function importDataset(session: ClientSession, { name, task, data, write }: DemoTask, folder: string): Promise<string> {
  const path = join(folder, `${name}.zip`);
  const zip = new yazl.ZipFile();
  for (const [file, bytes] of await write(folder)) zip.addBuffer(bytes, file);
  zip.end();
  await pipeline(zip.outputStream, createWriteStream(path));

  step(`Upload: ${data} in a zip`);
  const bar = progressBar(process.stdout);
  const { uploadId, sha256 } = await uploadFile(session, path, bar.show).finally(bar.end);
  const { datasetVersion } = await mutate(session, 'createDataset', { name, task, uploadId, sha256 }, 'datasetVersion { id job { id } }');
  await follow(session, datasetVersion.job.id);
  const { dataset } = await query(session, `{ dataset(name: "${name}") { version { contentHash counts { train val } } } }`);
  const { counts, contentHash } = dataset.version;
  say(`   ${counts.train} images to train, ${counts.val} to validate; content hash ${contentHash.slice(0, 12)}`);
  return datasetVersion.id;
}

async function train(session: ClientSession, { name, preset, hyperparameters }: DemoTask, datasetVersionId: string): Promise<null> {
  step(
    `Training: ${preset} from scratch, ${hyperparameters.epochs} epochs at ${hyperparameters.imageSize} px, seed 0; then its conversion to ONNX`,
  );
  const input = { modelName: name, datasetVersionId, preset, hyperparameters, seed: 0, cpuThreads };
  const { job } = await mutate(session, 'startTraining', input, 'job { id }');
  await follow(session, job.id);
  return null;
}

/** Runs the study of the demo, says what it has found, and gives its report. */
async function search(session: ClientSession, { name, study: settings }: DemoTask, datasetVersionId: string): Promise<{ html: string }> {
  const input = { modelName: name, datasetVersionId, ...settings, begin: [{ imageSize: 32 }], seed: 0 };
  const fields = 'study { id job { id } } plan { trials generations epochs }';
  const { study: started, plan } = await mutate(session, 'startTuning', input, fields);
  step(
    `Study: ${plan.trials} trials of ${settings?.preset} in ${plan.generations} generations, ${plan.epochs} epochs in all; then the conversion of the best to ONNX`,
  );
  await follow(session, started.job.id);
  const { study, exportJobs } = await query(
    session,
    `query ($id: ID!, $jobIds: [ID!]!) {
      study(id: $id) { objectives front { number generation state params values } }
      exportJobs(jobIds: $jobIds, format: HTML) { content }
    }`,
    { id: started.id, jobIds: [started.job.id] },
  );
  say('   the front, whose trials no other one beats in both objectives:');
  for (const { number, generation, state, params, values } of study.front as Data[]) {
    const reached = study.objectives.map((objective: string, n: number) => `${objective} ${short(values[n])}`);
    const chosen = Object.entries(params).map(([name, value]) => `${name} ${typeof value === 'number' ? short(value) : value}`);
    say(`   trial ${number}, generation ${generation}, ${state}: ${reached.join(', ')} with ${chosen.join(', ')}`);
  }
  return { html: exportJobs.content };
}

const short = (value: number): number => Number(value.toPrecision(4));

/** Gives the INT8 version of an ONNX version. */
async function compress(session: ClientSession, { quality }: DemoTask, modelVersionId: string): Promise<string> {
  step('Compression: INT8, which may lose one point');
  const { job } = await mutate(session, 'startCompression', { modelVersionId, precision: 'INT8', budget: 1 }, 'job { id }');
  await follow(session, job.id);
  const fields = 'id number sizeBytes parent { sizeBytes } evaluations { images top1 map50 map5095 } compression { kept { name } }';
  const ended = await query(session, `query ($id: ID!) { job(id: $id) { modelVersions { id precision ${fields} } } }`, { id: job.id });
  const { id, number, sizeBytes, parent, evaluations, compression } = ended.job.modelVersions.find(
    ({ precision }: Data) => precision === 'INT8',
  );
  const share = Math.round((100 * sizeBytes) / parent.sizeBytes);
  say(`   version ${number}: INT8, ${quality(evaluations[0])}, ${(sizeBytes / 1e6).toFixed(0)} MB, ${share} % of the ONNX version`);
  say(`   operators put back to FP32 to stay inside the budget: ${compression.kept.length}`);
  return id;
}

/** Says what the training has made, fetches the ONNX file, and gives its version. */
async function showVersions(session: ClientSession, { name, quality }: DemoTask, folder: string): Promise<string> {
  const fields = 'id number format sizeBytes lineageHash gate downloadUrl evaluations { images top1 map50 map5095 }';
  const { model } = await query(session, `{ model(name: "${name}") { versions(first: 10) { nodes { ${fields} } } } }`);
  const versions = model.versions.nodes as Data[];
  const checkpoint = versions.find((v) => v.format === 'CHECKPOINT');
  const onnx = versions.find((v) => v.format === 'ONNX');
  say(`   version ${checkpoint.number}: checkpoint, ${quality(checkpoint.evaluations[0])}`);
  const size = `${(onnx.sizeBytes / 1e6).toFixed(0)} MB`;
  say(`   version ${onnx.number}: ONNX, ${quality(onnx.evaluations[0])}, ${size}, lineage ${onnx.lineageHash.slice(0, 12)}`);
  const { images, largestDifference, tolerance } = onnx.gate;
  say(
    `   gate passed: over ${images} images the outputs differ by ${largestDifference.toExponential(1)} at most (${tolerance.toExponential(1)} allowed)`,
  );
  const file = await fetch(new URL(onnx.downloadUrl, session.url));
  writeFileSync(join(folder, 'model.onnx'), Buffer.from(await file.arrayBuffer()));
  return onnx.id;
}

/** Gives the folder that the report is written to. */
async function benchmark(session: ClientSession, modelVersionIds: string[]): Promise<string> {
  const input = {
    modelVersionIds,
    batchSizes: modelVersionIds.length > 1 ? [1] : [1, 4],
    engines: [servingEngine],
    intraOpThreads: [1, 2],
  };
  const fields = 'job { id } configurations estimatedDurationMs';
  const { job, configurations, estimatedDurationMs } = await mutate(session, 'startBenchmark', input, fields);
  step(`Benchmark: ${configurations} configurations, alone on the machine, about ${Math.round(estimatedDurationMs / 1000)} s`);
  await follow(session, job.id);

  const formats = { json: 'JSON', csv: 'CSV', md: 'MARKDOWN', html: 'HTML' };
  const exports = Object.entries(formats).map(([ending, format]) => `${ending}: export(format: ${format}) { content }`);
  const { reports } = await query(session, `{ reports(first: 1) { nodes { sha256 simple { headline points } ${exports.join(' ')} } } }`);
  const [report] = reports.nodes;
  step(`Report ${report.sha256.slice(0, 12)}\n   ${report.simple.headline}`);
  for (const point of report.simple.points) say(`   - ${point}`);
  const folder = resolve('demo', report.sha256.slice(0, 12));
  mkdirSync(folder, { recursive: true });
  for (const ending of Object.keys(formats)) writeFileSync(join(folder, `report.${ending}`), report[ending].content);
  return folder;
}

/** Sends images to the model behind a name, and says how many it tells. */
async function deploy(
  session: ClientSession,
  name: string,
  modelVersionId: string,
  images: [label: string, image: Buffer][],
): Promise<void> {
  step(`Deployment: the ONNX version behind the name ${name}`);
  await mutate(session, 'deploy', { name, modelVersionId, settings: { deadlineMs: 10_000 } }, 'deployment { name }');
  const state = `{ deployment(name: "${name}") { loading { number } revisions { reason } snippet } }`;
  let { deployment } = await query(session, state);
  while (deployment.loading) {
    await delay(100);
    ({ deployment } = await query(session, state));
  }
  const [{ reason }] = deployment.revisions;
  if (reason) throw new Error(reason);
  const input = { deployment: name, images: images.map(([, image]) => image.toString('base64')), top: 1 };
  const { results } = await mutate(session, 'inferBatch', input, 'results { prediction { classes { label } } error { message } }');
  const right = images.filter(([label], i) => results[i].prediction?.classes[0].label === label).length;
  say(`   ${right} of ${images.length} images that it has never seen are recognized. Your service calls it like this:`);
  say(`   ${deployment.snippet}`);
}
