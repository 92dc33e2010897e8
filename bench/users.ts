/**
 * `npm run bench:users`: 100 users at once who think for a second between their requests. They send a photograph to `predict` of three models
 * with random weights, one after the other; then they read GraphQL while a training runs, and when nothing does. Prints latencies beside
 * their targets. By N = X · (R + Z) no more than 100 answers come in a second; a model that is slower has its users wait.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs, promisify } from 'node:util';
import yazl from 'yazl';
import { digits } from '../src/cli/demo/digits.ts';
import { KeptConnection, postOf, type Reply } from '../src/loadTest/connection.ts';
import { trainerFolder, trainerPython } from '../src/python.ts';
import { presetPreprocess } from '../src/vision/spec.ts';
import { type Listening, withHostProcess, withServerProcess } from '../test/support/process.ts';
import { percentile, sortedMs, users } from './load.ts';

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '30' }, users: { type: 'string', default: '100' } } });
const ms = 1000 * Number(values.seconds);
const count = Number(values.users);
const thinkMs = 1000;
const folder = mkdtempSync(join(tmpdir(), 'whetstone-bench-'));

interface Reached {
  replies: Reply[];
  /** Until the last answer. */
  elapsedMs: number;
}

/** Each user has a connection. */
async function reached(url: string, requestFor: (user: number) => Buffer): Promise<Reached> {
  const clients = Array.from({ length: count }, () => new KeptConnection(url));
  const startedAt = performance.now();
  const replies = await users(count, thinkMs, ms, (user) => (clients[user] as KeptConnection).send(requestFor(user)));
  for (const client of clients) client.close();
  return { replies, elapsedMs: performance.now() - startedAt - thinkMs };
}

function report(what: string, { replies, elapsedMs }: Reached, goal: string): void {
  const answered = replies.filter(({ status }) => status === 200);
  const [p50, p95, p99] = [0.5, 0.95, 0.99].map((p) => percentile(sortedMs(answered), p).toFixed(0).padStart(6));
  const refused = replies.length - answered.length;
  const rate = ((1000 * answered.length) / elapsedMs).toFixed(1).padStart(6);
  console.log(`${what.padEnd(44)} P50 ${p50} P95 ${p95} P99 ${p99} ms ${rate} /s, ${refused} not answered  (goal ${goal})`);
}

async function inference(): Promise<void> {
  const models = [
    { name: 'resnet50-32', preset: 'resnet50', classes: 10, preprocess: presetPreprocess(32), task: 'CLASSIFICATION' },
    { name: 'resnet50-224', preset: 'resnet50', classes: 1000, preprocess: presetPreprocess(224), task: 'CLASSIFICATION' },
    { name: 'yolov8n-640', preset: 'yolov8n', classes: 80, preprocess: presetPreprocess(640, 'DETECTION'), task: 'DETECTION' },
  ];
  const specs = models.map(({ task: _, ...spec }) => JSON.stringify(spec));
  const env = { ...process.env, PYTHONPATH: trainerFolder };
  await promisify(execFile)(trainerPython, [join(import.meta.dirname, 'presets.py'), folder, ...specs], { env });
  const configured = models.map(({ name, preprocess, task }) => {
    const file = join(folder, `${name}.onnx`);
    const sha256 = createHash('sha256').update(readFileSync(file)).digest('hex');
    const outputLayout = task === 'DETECTION' ? 'BOXES_SCORES' : undefined;
    return { name, version: 1, file, sha256, task, preprocess, outputLayout, scores: 'LOGITS', deadlineMs: 60_000 };
  });
  const config = join(folder, 'models.json');
  writeFileSync(config, JSON.stringify({ port: 0, models: configured }));
  const photo = readFileSync(join(folder, 'photo.jpg'));
  await withHostProcess(config, async ({ url }) => {
    for (const { name } of models) {
      const request = postOf(`/v2/models/${name}/predict`, { 'content-type': 'image/jpeg' }, photo);
      await reached(url, () => request);
      report(`${count} users, ${name}`, await reached(url, () => request), 'P50 < 100, P95 < 200, P99 < 500, > 10 /s');
    }
  });
}

// biome-ignore lint/suspicious/noExplicitAny: what a query answers has the shape that it asks for.
type Data = any;

async function graphql({ url }: Listening): Promise<void> {
  let token = '';
  const bodyOf = (query: string, variables: object = {}) => JSON.stringify({ query, variables });
  const headers = () => ({ 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) });
  const ask = async (query: string, variables?: object): Promise<Data> => {
    const answer = (await (
      await fetch(`${url}/graphql`, { method: 'POST', headers: headers(), body: bodyOf(query, variables) })
    ).json()) as Data;
    if (answer.errors) throw new Error(JSON.stringify(answer.errors));
    return answer.data;
  };
  const bootstrap = readFileSync(join(folder, 'data', 'bootstrap-token'), 'utf8').trim();
  const account = { name: 'bench', password: 'a passphrase for the benchmark' };
  await ask('mutation ($i: BootstrapInput!) { bootstrap(input: $i) { user { name } } }', { i: { token: bootstrap, ...account } });
  const login = 'mutation ($i: LoginInput!) { login(input: $i) { credentials { accessToken } } }';
  token = (await ask(login, { i: account })).login.credentials.accessToken;

  const zip = new yazl.ZipFile();
  for (const [file, bytes] of await digits.write(folder)) zip.addBuffer(bytes, file);
  zip.end();
  const uploaded = await fetch(`${url}/uploads?filename=digits.zip`, {
    method: 'POST',
    headers: headers(),
    body: await buffer(zip.outputStream),
  });
  const { uploadId, sha256 } = (await uploaded.json()) as Data;
  const made = await ask('mutation ($i: CreateDatasetInput!) { createDataset(input: $i) { datasetVersion { id job { id } } } }', {
    i: { name: 'digits', task: 'CLASSIFICATION', uploadId, sha256 },
  });
  const stateOf = async (id: string) =>
    (await ask('query ($id: ID!) { job(id: $id) { state events(first: 100) { ... on JobPhaseEvent { phase } } } }', { id })).job;
  const { id: datasetVersionId, job: imported } = made.createDataset.datasetVersion;
  while ((await stateOf(imported.id)).state !== 'SUCCEEDED') await delay(200);
  const train = {
    modelName: 'digits',
    datasetVersionId,
    preset: 'resnet50',
    hyperparameters: { ...digits.hyperparameters, epochs: 1000 },
    cpuThreads: Math.max(1, availableParallelism() - 1),
  };
  const started = await ask('mutation ($i: StartTrainingInput!) { startTraining(input: $i) { job { id } userErrors { message } } }', {
    i: train,
  });
  const { id } = started.startTraining.job;
  while (!(await stateOf(id)).events.some(({ phase }: Data) => phase === 'training')) await delay(200);

  const read = [
    bodyOf('{ jobs(first: 20) { nodes { id kind state createdAt attempts { number state } } } }'),
    bodyOf('query ($id: ID!) { job(id: $id) { state metrics { name steps values } attempts { number state } } }', { id }),
  ].map((body) => postOf('/graphql', headers(), Buffer.from(body)));
  let turn = 0;
  const next = () => read[turn++ % read.length] as Buffer;
  const goal = 'P50 < 100, P95 < 200, P99 < 500';
  await reached(url, next);
  report(`${count} users, GraphQL beside a training`, await reached(url, next), goal);
  await ask('mutation ($i: CancelJobInput!) { cancelJob(input: $i) { job { id } } }', { i: { jobId: id } });
  while ((await stateOf(id)).state !== 'CANCELLED') await delay(200);
  report(`${count} users, GraphQL alone`, await reached(url, next), goal);
}

try {
  const busy = (loadavg()[0] as number) > 0.5 ? ' The machine was busy with other work when this began.' : '';
  console.log(
    `${cpus()[0]?.model}, ${availableParallelism()} cores; ${count} users, ${thinkMs} ms of thinking, ${ms / 1000} s each.${busy}`,
  );
  await inference();
  await withServerProcess({ WHETSTONE_DATA_DIR: join(folder, 'data') }, graphql);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit();
