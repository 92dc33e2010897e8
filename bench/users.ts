/**
 * `npm run bench:users`: 100 users at once who think for a second between their requests. They send a photograph to `predict` of three models
 * with random weights, one after the other; then they read GraphQL while a training runs, and when nothing does. Then all of it at once, on one
 * server beside a training: `npm run bench:users -- --minutes 10` does this alone, with users who think for two seconds, and exits with 1 if a
 * request fails. Prints latencies beside their targets. By N = X · (R + Z) no more than N / Z answers come in a second; a model that is slower
 * has its users wait.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs, promisify } from 'node:util';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import yazl from 'yazl';
import { digits } from '../src/cli/demo/digits.ts';
import { nowMs } from '../src/inference/clock.ts';
import { KeptConnection, postOf, type Reply } from '../src/loadTest/connection.ts';
import { trainerFolder, trainerPython } from '../src/python.ts';
import { presetPreprocess } from '../src/vision/spec.ts';
import { withHostProcess, withServerProcess } from '../test/support/process.ts';
import { percentile, sortedMs, users } from './load.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '30' },
    minutes: { type: 'string' },
    users: { type: 'string', default: '100' },
    think: { type: 'string', default: '2' },
  },
});
/** Of each part; of the one with everything at once, if minutes are given. */
const ms = values.minutes ? 60_000 * Number(values.minutes) : 1000 * Number(values.seconds);
const count = Number(values.users);
const thinkMs = 1000;
/** With everything at once, beside a training. `--think` finds the capacity of a machine. */
const togetherThinkMs = 1000 * Number(values.think);
/** With everything at once, this share of the requests are images. */
const imageShare = 0.2;
/** A user to whom the host has said `Retry-After` asks again, for so long. */
const patienceMs = 10_000;
const goal = 'P50 < 100, P95 < 200, P99 < 500';
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

function report(what: string, { replies, elapsedMs }: Reached, goalOf = goal): void {
  const answered = replies.filter(({ status }) => status === 200);
  const [p50, p95, p99] = [0.5, 0.95, 0.99].map((p) => percentile(sortedMs(answered), p).toFixed(0).padStart(6));
  const refused = replies.filter(({ status }) => status !== 200);
  const rate = ((1000 * answered.length) / elapsedMs).toFixed(1).padStart(6);
  console.log(`${what.padEnd(44)} P50 ${p50} P95 ${p95} P99 ${p99} ms ${rate} /s, ${refused.length} not answered  (goal ${goalOf})`);
  if (refused[0]) console.log(`  The first that was not answered: ${refused[0].status} ${refused[0].text}`);
}

interface Answer extends Reply {
  /** How often it was refused with `Retry-After` before. */
  refusals: number;
}

/** As an HTTP client does: a connection is opened for the first request, kept, and opened again where the server has closed it meanwhile. */
class PatientClient {
  readonly #url: string;
  #connection: KeptConnection | null = null;

  constructor(url: string) {
    this.#url = url;
  }

  /** A refusal that names a time is no error yet: the user waits so long and asks again. The latency counts from the first request. */
  async send(request: Buffer): Promise<Answer> {
    const sinceMs = nowMs();
    for (let refusals = 0; ; refusals += 1) {
      if (!this.#connection || this.#connection.closed) this.#connection = new KeptConnection(this.#url);
      const reply = await this.#connection.send(request, sinceMs);
      if (reply.retryAfterMs === null || reply.ms + reply.retryAfterMs > patienceMs) return { ...reply, refusals };
      await delay(reply.retryAfterMs);
    }
  }

  close(): void {
    this.#connection?.close();
  }
}

function reportRefusals(answers: Answer[]): void {
  const refused = answers.filter(({ refusals }) => refusals > 0);
  const share = ((100 * refused.length) / answers.length).toFixed(2);
  const most = Math.max(0, ...refused.map(({ refusals }) => refusals));
  console.log(`  ${refused.length} of ${answers.length} (${share} %) were refused with Retry-After first, at most ${most} times each.`);
}

const photo = () => readFileSync(join(folder, 'photo.jpg'));
const imagesGoal = `${goal}, > 10 /s`;

async function writePresets(specs: object[]): Promise<void> {
  const env = { ...process.env, PYTHONPATH: trainerFolder };
  const script = join(import.meta.dirname, 'presets.py');
  await promisify(execFile)(trainerPython, [script, folder, ...specs.map((spec) => JSON.stringify(spec))], { env });
}

async function inference(): Promise<void> {
  const models = [
    { name: 'resnet50-32', preset: 'resnet50', classes: 10, preprocess: presetPreprocess(32), task: 'CLASSIFICATION' },
    { name: 'resnet50-224', preset: 'resnet50', classes: 1000, preprocess: presetPreprocess(224), task: 'CLASSIFICATION' },
    { name: 'yolov8n-640', preset: 'yolov8n', classes: 80, preprocess: presetPreprocess(640, 'DETECTION'), task: 'DETECTION' },
  ];
  await writePresets(models.map(({ task: _, ...spec }) => spec));
  const configured = models.map(({ name, preprocess, task }) => {
    const file = join(folder, `${name}.onnx`);
    const sha256 = createHash('sha256').update(readFileSync(file)).digest('hex');
    const outputLayout = task === 'DETECTION' ? 'BOXES_SCORES' : undefined;
    return { name, version: 1, file, sha256, task, preprocess, outputLayout, scores: 'LOGITS', deadlineMs: 60_000 };
  });
  const config = join(folder, 'models.json');
  writeFileSync(config, JSON.stringify({ port: 0, models: configured }));
  await withHostProcess(config, async ({ url }) => {
    for (const { name } of models) {
      const request = postOf(`/v2/models/${name}/predict`, { 'content-type': 'image/jpeg' }, photo());
      await reached(url, () => request);
      report(`${count} users, ${name}`, await reached(url, () => request), imagesGoal);
    }
  });
}

// biome-ignore lint/suspicious/noExplicitAny: what a query answers has the shape that it asks for.
type Data = any;

interface Session {
  headers: Record<string, string>;
  ask(query: string, variables?: object): Promise<Data>;
}

const apiKey = 'mutation ($i: CreateApiKeyInput!) { createApiKey(input: $i) { secret } }';
const scopes = ['READ', 'UPLOAD', 'RUN_JOBS', 'DEPLOY', 'INFER', 'MANAGE_USERS'];
const password = 'a passphrase for the benchmark';

function session(url: string, token: string): Session {
  const headers = { 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) };
  return {
    headers,
    async ask(query, variables) {
      const sent = await fetch(`${url}/graphql`, { method: 'POST', headers, body: bodyOf(query, variables) });
      const answer = (await sent.json()) as Data;
      if (answer.errors) throw new Error(JSON.stringify(answer.errors));
      return answer.data;
    },
  };
}

/** With an API key of this account, which is valid for as long as the benchmark runs. */
async function signIn(url: string, name: string): Promise<Session> {
  const anybody = session(url, '');
  const login = 'mutation ($i: LoginInput!) { login(input: $i) { credentials { accessToken user { role } } } }';
  const { accessToken, user } = (await anybody.ask(login, { i: { name, password } })).login.credentials;
  const own = scopes.filter((scope) => user.role === 'ADMIN' || scope !== 'MANAGE_USERS');
  const { secret } = (await session(url, accessToken).ask(apiKey, { i: { name: 'bench', scopes: own } })).createApiKey;
  return session(url, secret);
}

async function bootstrap(url: string): Promise<Session> {
  const token = readFileSync(join(dataDir, 'bootstrap-token'), 'utf8').trim();
  const mutation = 'mutation ($i: BootstrapInput!) { bootstrap(input: $i) { user { name } } }';
  await session(url, '').ask(mutation, { i: { token, name: 'bench', password } });
  return signIn(url, 'bench');
}

/** Accounts of 10 users each: one may have 100 subscriptions. */
async function accounts(url: string, { ask }: Session): Promise<Session[]> {
  const sessions: Session[] = [];
  for (let n = 0; n < count / 10; n += 1) {
    const i = { name: `user${n}`, role: 'ENGINEER', password };
    await ask('mutation ($i: CreateUserInput!) { createUser(input: $i) { user { id } } }', { i });
    sessions.push(await signIn(url, i.name));
  }
  return sessions;
}

const bodyOf = (query: string, variables: object = {}) => JSON.stringify({ query, variables });

async function upload(
  url: string,
  { headers }: Session,
  name: string,
  body: Buffer<ArrayBuffer>,
): Promise<{ uploadId: string; sha256: string }> {
  const { uploadId, sha256 } = (await (await fetch(`${url}/uploads?filename=${name}`, { method: 'POST', headers, body })).json()) as Data;
  return { uploadId, sha256 };
}

const jobOf = async ({ ask }: Session, id: string): Promise<Data> =>
  (await ask('query ($id: ID!) { job(id: $id) { state events(first: 100) { seq ... on JobPhaseEvent { phase } } } }', { id })).job;

async function ended(session: Session, id: string, state: string): Promise<void> {
  while ((await jobOf(session, id)).state !== state) await delay(200);
}

/** A training that does not end by itself, when it has begun. */
async function startTraining(url: string, session: Session): Promise<string> {
  const zip = new yazl.ZipFile();
  for (const [file, bytes] of await digits.write(folder)) zip.addBuffer(bytes, file);
  zip.end();
  const uploaded = await upload(url, session, 'digits.zip', await buffer(zip.outputStream));
  const made = await session.ask('mutation ($i: CreateDatasetInput!) { createDataset(input: $i) { datasetVersion { id job { id } } } }', {
    i: { name: 'digits', task: 'CLASSIFICATION', ...uploaded },
  });
  const { id: datasetVersionId, job: imported } = made.createDataset.datasetVersion;
  await ended(session, imported.id, 'SUCCEEDED');
  const train = {
    modelName: 'digits',
    datasetVersionId,
    preset: 'resnet50',
    hyperparameters: { ...digits.hyperparameters, epochs: 1000 },
    cpuThreads: Math.max(1, availableParallelism() - 1),
  };
  const started = await session.ask(
    'mutation ($i: StartTrainingInput!) { startTraining(input: $i) { job { id } userErrors { message } } }',
    {
      i: train,
    },
  );
  const { id } = started.startTraining.job;
  while (!(await jobOf(session, id)).events.some(({ phase }: Data) => phase === 'training')) await delay(200);
  return id;
}

async function cancel(session: Session, id: string): Promise<void> {
  await session.ask('mutation ($i: CancelJobInput!) { cancelJob(input: $i) { job { id } } }', { i: { jobId: id } });
  await ended(session, id, 'CANCELLED');
}

/** A list and a training with its curves, by turns. */
function reader({ headers }: Session, id: string): () => Buffer {
  const read = [
    bodyOf('{ jobs(first: 20) { nodes { id kind state createdAt attempts { number state } } } }'),
    bodyOf('query ($id: ID!) { job(id: $id) { state metrics { name steps values } attempts { number state } } }', { id }),
  ].map((body) => postOf('/graphql', headers, Buffer.from(body)));
  let turn = 0;
  return () => read[turn++ % read.length] as Buffer;
}

async function graphql(url: string, session: Session): Promise<void> {
  const id = await startTraining(url, session);
  const next = reader(session, id);
  await reached(url, next);
  report(`${count} users, GraphQL beside a training`, await reached(url, next));
  await cancel(session, id);
  report(`${count} users, GraphQL alone`, await reached(url, next));
}

/** Puts a classifier like that of the demo behind a name; gives the address of the inference host. */
async function deploy(url: string, session: Session): Promise<string> {
  await writePresets([{ name: 'deployed', preset: 'resnet50', classes: 10, preprocess: presetPreprocess(32) }]);
  const file = await upload(url, session, 'deployed.onnx', readFileSync(join(folder, 'deployed.onnx')));
  const made = await session.ask('mutation ($i: CreateModelInput!) { createModel(input: $i) { modelVersion { id job { id } } } }', {
    i: { name: 'deployed', task: 'CLASSIFICATION', ...file },
  });
  const { id: modelVersionId, job } = made.createModel.modelVersion;
  await ended(session, job.id, 'SUCCEEDED');
  await session.ask('mutation ($i: DeployInput!) { deploy(input: $i) { deployment { name } } }', {
    i: { name: 'deployed', modelVersionId },
  });
  const active = async () => (await session.ask('{ deployment(name: "deployed") { active { number } } }')).deployment.active;
  while (!(await active())) await delay(200);
  return (await session.ask('{ inferenceHealth { url } }')).inferenceHealth.url;
}

/** Each user has a subscription open to the events and the progress of the training, reads GraphQL and sends images. */
async function together(url: string, session: Session): Promise<void> {
  const inferenceUrl = await deploy(url, session);
  const id = await startTraining(url, session);
  const after = (await jobOf(session, id)).events.at(-1).seq;
  const events: Reply[] = [];
  const broken: unknown[] = [];
  /** Number of the last event of each user. */
  const newest = Array.from({ length: count }, (): number => after);
  const own = await accounts(url, session);
  const ofUser = (user: number) => own[user % own.length] as Session;
  const clients = Array.from({ length: count }, (_, user) => {
    const client = createClient({
      url: `${url.replace('http', 'ws')}/graphql`,
      webSocketImpl: WebSocket,
      connectionParams: { authorization: ofUser(user).headers.authorization },
      lazy: false,
      retryAttempts: 0,
    });
    const follow = (query: string, seen: (data: Data) => void) =>
      client.subscribe(
        { query, variables: { id } },
        {
          next: ({ data, errors }) => (errors ? broken.push(errors) : seen(data)),
          error: (error) => broken.push(error),
          complete: () => {},
        },
      );
    follow(`subscription ($id: ID!) { jobEvents(id: $id, after: ${after}) { at seq } }`, ({ jobEvents: { at, seq } }) => {
      if (seq !== (newest[user] as number) + 1) broken.push(`User ${user} got the event ${seq} after ${newest[user]}.`);
      newest[user] = seq;
      // From the moment that the server has stored it with.
      events.push({ status: 200, ms: Date.now() - Date.parse(at), text: '', retryAfterMs: null });
    });
    follow('subscription ($id: ID!) { jobProgress(id: $id) { done } }', () => {});
    return client;
  });
  const next = own.map((one) => reader(one, id));
  const image = own.map(({ headers }) => postOf('/v2/models/deployed/predict', { ...headers, 'content-type': 'image/jpeg' }, photo()));
  const connections = [url, inferenceUrl].map((to) => Array.from({ length: count }, () => new PatientClient(to)));
  const [graphqlOf, inferenceOf] = connections as [PatientClient[], PatientClient[]];
  const [reads, images]: [Answer[], Answer[]] = [[], []];
  const isImage = Math.round(1 / imageShare);
  const turns = Array.from({ length: count }, (_, user) => user);
  const load = (forMs: number) =>
    users(count, togetherThinkMs, forMs, async (user) => {
      const turn = (turns[user] as number)++;
      const [connection, request, answers] =
        turn % isImage === 0
          ? [inferenceOf[user], image[user % own.length], images]
          : [graphqlOf[user], next[user % own.length]?.(), reads];
      const answer = await (connection as PatientClient).send(request as Buffer);
      answers.push(answer);
      return answer;
    });
  await load(Math.min(10_000, ms));
  for (const warmUp of [reads, images, events]) warmUp.length = 0;
  const startedAt = performance.now();
  await load(ms);
  const elapsedMs = performance.now() - startedAt;
  for (const connection of connections.flat()) connection.close();
  const { state } = await jobOf(session, id);
  const behind = Math.max(...newest);
  for (let waitMs = 0; waitMs < patienceMs && newest.some((seq) => seq < behind); waitMs += 100) await delay(100);
  for (const [user, seq] of newest.entries()) if (seq < behind) broken.push(`User ${user} got no event after ${seq} of ${behind}.`);
  for (const client of clients) client.dispose();
  console.log(
    `All at once for ${(elapsedMs / 1000).toFixed(0)} s with ${togetherThinkMs} ms of thinking, beside a training that is ${state}; ` +
      `${broken.length} subscriptions broken.`,
    ...broken.slice(0, 1),
  );
  report(`${count} users, images of 451 x 300`, { replies: images, elapsedMs });
  reportRefusals(images);
  report(`${count} users, GraphQL`, { replies: reads, elapsedMs });
  reportRefusals(reads);
  report(`${count} users, events of the training`, { replies: events, elapsedMs });
  const failed = [...images, ...reads].filter(({ status }) => status !== 200).length;
  console.log(`Error share: ${failed + broken.length} of ${images.length + reads.length + events.length}.`);
  if (failed + broken.length > 0 || state !== 'RUNNING') process.exitCode = 1;
  await cancel(session, id);
}

const dataDir = join(folder, 'data');
const onServer = (part: (url: string, session: Session) => Promise<void>) =>
  withServerProcess({ WHETSTONE_DATA_DIR: dataDir }, async ({ url }) => part(url, await bootstrap(url))).finally(() =>
    rmSync(dataDir, { recursive: true, force: true }),
  );

try {
  const busy = (loadavg()[0] as number) > 0.5 ? ' The machine was busy with other work when this began.' : '';
  console.log(`${cpus()[0]?.model}, ${availableParallelism()} cores; ${count} users, ${ms / 1000} s each.${busy}`);
  if (!values.minutes) {
    await inference();
    await onServer(graphql);
  }
  await onServer(together);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit();
