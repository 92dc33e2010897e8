/** The routes of the inference host over `node:http`. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Log } from '../log.ts';
import { refuseRequest } from '../refuseRequest.ts';
import { codeVersion } from '../version.ts';
import type { Found } from '../vision/reading.ts';
import { type Auth, authorize, type Deployments, refuseForeign } from './auth.ts';
import { readBody } from './body.ts';
import { nowMs } from './clock.ts';
import type { HostConfig } from './config.ts';
import type { Answer, Dispatcher, Request, Submitted } from './dispatcher.ts';
import { busy, HttpError } from './httpError.ts';
import type { Json } from './json/json.ts';
import type { KeyUses } from './keyUses.ts';
import type { Holding, Memory } from './memory.ts';
import type { HostMetrics } from './metrics.ts';
import type { ServedModel } from './models.ts';
import { hostOpenapi } from './openapi.ts';
import { decodeFeed, labelled, parseQuery, readHeader, readingOf, readOutputsOf } from './predict.ts';
import type { Refusal } from './queue.ts';
import { answerJson, bytesOf, compressed, isOver, jsonType, nosniff, send, whenOver } from './send.ts';
import * as v2 from './v2.ts';

/** What the routes see of the host. */
export interface Host {
  config: HostConfig;
  log: Log;
  dispatcher: Dispatcher;
  /** By name, then by version. */
  models: Map<string, Map<number, ServedModel>>;
  /** Names that are there, also when nothing of theirs is served. */
  deployments: ReadonlySet<string>;
  /** Why it cannot serve everything that it is to serve. */
  problem(): string | null;
  state: 'LOADING' | 'READY' | 'DRAINING';
  memory: Memory;
  json: Json;
  /** See `Connections`. */
  trust(res: ServerResponse): void;
  /** Decides who may use which deployment. Null: everybody may use all, or nobody while the configured `accounts` have not arrived. */
  auth: Auth | null;
  /** When the server last said that these are its accounts (`nowMs`); null where it is not asked. */
  authConfirmedMs: number | null;
  keyUses: KeyUses;
  /** Answers with these statuses. */
  authRefusals: Record<401 | 403, number>;
  metrics: HostMetrics;
}

/** What a request is about: the model of its address, all that its sender may use, and its query. */
interface Asked {
  model(): ServedModel;
  models(): ServedModel[];
  query: URLSearchParams;
  /** When its head was there. */
  beganMs: number;
}
type Handler = (host: Host, req: IncomingMessage, res: ServerResponse, asked: Asked) => unknown;

/** What comes behind `/v2/models/{m}[/versions/{v}]`. */
export const modelRoutes: Record<string, [method: string, Handler]> = {
  '': ['GET', (host, _, res, { model }) => answerJson(res, 200, v2.modelMetadata(model(), versionsOf(host, model().config.name)))],
  ready: ['GET', (host, _, res, { model }) => model() && sendModelReady(host, res)],
  config: ['GET', (_, __, res, { model }) => answerJson(res, 200, v2.modelConfiguration(model()))],
  stats: ['GET', (_, __, res, { model }) => answerJson(res, 200, { model_stats: [v2.modelStatistics(model())] })],
  infer: ['POST', (host, req, res, asked) => held(host, res, asked.model(), (one, holding) => infer(host, req, res, one, holding, asked))],
  predict: [
    'POST',
    (host, req, res, asked) => held(host, res, asked.model(), (one, holding) => predict(host, req, res, one, holding, asked)),
  ],
};

export const routes: Record<string, [method: string, Handler]> = {
  '/v2': ['GET', (_, __, res) => answerJson(res, 200, v2.serverMetadata(codeVersion))],
  '/v2/health/live': ['GET', (_, __, res) => answerJson(res, 200, {})],
  '/v2/health/ready': ['GET', (host, _, res) => sendReady(host, res)],
  '/v2/models/stats': ['GET', (_, __, res, { models }) => answerJson(res, 200, { model_stats: models().map(v2.modelStatistics) })],
  '/v2/repository/index': ['POST', (_, __, res, { models }) => answerJson(res, 200, models().map(v2.repositoryEntry))],
  '/metrics': ['GET', sendMetrics],
  '/openapi.json': ['GET', (_, __, res) => answerJson(res, 200, hostOpenapi)],
};

/** Answers a request; never throws. */
export async function serveRequest(host: Host, req: IncomingMessage, res: ServerResponse): Promise<void> {
  const beganMs = nowMs();
  try {
    if (!host.auth && !host.config.accounts) refuseForeign(req.headers, host.config.hostNames);
    const { pathname, searchParams } = addressOf(req);
    const { name, version, route } = modelPath(pathname);
    const deployments = await deploymentsOf(host, req, res, pathname, name || null);
    const [table, address] = route === undefined ? [routes, pathname] : [modelRoutes, route];
    const [method, handler] = (Object.hasOwn(table, address) && table[address]) || [];
    if (!handler) throw new HttpError(404, 'There is nothing at this address. docs/serving.md lists the routes.');
    // Node leaves the body of an answer to HEAD out.
    if (req.method !== method && !(req.method === 'HEAD' && method === 'GET'))
      throw new HttpError(405, `This address answers ${method} only.`, { allow: String(method) });
    await handler(host, req, res, {
      model: () => findModel(host, name, version),
      models: () => allModels(host).filter(({ config }) => deployments?.has(config.name) ?? true),
      query: searchParams,
      beganMs,
    });
  } catch (error) {
    if (!(error instanceof HttpError)) host.log.error({ err: error }, 'a request failed');
    const { status, message, headers } = error instanceof HttpError ? error : new HttpError(500, 'The host failed. Its log has the cause.');
    if (status === 401 || status === 403) host.authRefusals[status] += 1;
    if (res.headersSent || isOver(res)) res.destroy();
    else refuseRequest(res, status, { ...jsonType, ...nosniff, ...headers }, JSON.stringify({ error: message }));
  }
}

/** Two slashes at the start are no host. */
function addressOf({ url = '/' }: IncomingMessage): URL {
  const address = URL.parse(url.startsWith('/') ? `http://host${url}` : url);
  if (!address) throw new HttpError(400, `The address ${url.slice(0, 100)} is not one.`);
  return address;
}

/** What the sender may use. Health, metrics and what the server can do are for everybody; a HttpError refuses the rest. */
async function deploymentsOf(
  { auth, config, trust, keyUses }: Host,
  req: IncomingMessage,
  res: ServerResponse,
  pathname: string,
  name: string | null,
): Promise<Deployments> {
  if (!/^\/v2\/(models|repository)(\/|$)/.test(pathname)) return null;
  if (!auth && config.accounts) throw new HttpError(503, 'The accounts are being fetched from the server.', { 'retry-after': '1' });
  if (!auth) return null;
  const now = Date.now();
  const { deployments, secretHash } = await authorize(auth, req.headers.authorization, name, now);
  if (secretHash !== null) keyUses.note(secretHash, now);
  trust(res);
  return deployments;
}

/** `/v2/models/{m}[/versions/{v}][/{route}]`. */
function modelPath(pathname: string): { name: string; version: string | undefined; route: string | undefined } {
  const match = /^\/v2\/models\/([^/]+)(?:\/versions\/([^/]+))?(?:\/([^/]*))?$/.exec(pathname);
  if (!match || pathname === '/v2/models/stats') return { name: '', version: undefined, route: undefined };
  try {
    return { name: decodeURIComponent(match[1] as string), version: match[2], route: match[3] ?? '' };
  } catch {
    throw new HttpError(400, 'The address is not encoded as it should be.');
  }
}

/**
 * While a request holds a model, it is not unloaded. What the request holds of the memory goes back when its work has ended and, where it
 * has an answer, the client has read that or gone: on every way out.
 */
async function held(
  { memory }: Host,
  res: ServerResponse,
  model: ServedModel,
  work: (model: ServedModel, holding: Holding) => Promise<void>,
): Promise<void> {
  const holding = memory.open(model.key);
  model.users += 1;
  try {
    await work(model, holding);
    whenOver(res, () => holding.giveAll());
  } catch (error) {
    holding.giveAll();
    throw error;
  } finally {
    model.users -= 1;
  }
}

/** Without a version the greatest. */
function findModel({ models, deployments, state }: Host, name: string, version: string | undefined): ServedModel {
  const versions = models.get(name);
  if (!versions && state === 'LOADING') throw notLoaded();
  if (!versions && deployments.has(name)) {
    throw new HttpError(503, `No revision of ${name} can be served now: its revisions in GraphQL say why.`, { 'retry-after': '1' });
  }
  if (!versions) throw new HttpError(404, `There is no model ${name.slice(0, 100)}.`);
  const found = versions.get(version === undefined ? Math.max(...versions.keys()) : Number(version));
  if (!found) throw new HttpError(404, `${name} has no version ${version?.slice(0, 100)}; it has ${[...versions.keys()].join(', ')}.`);
  return found;
}

const versionsOf = ({ models }: Host, name: string): number[] => [...(models.get(name)?.keys() ?? [])].sort((a, b) => a - b);
const allModels = ({ models }: Host): ServedModel[] => [...models.values()].flatMap((versions) => [...versions.values()]);

function sendReady(host: Host, res: ServerResponse): void {
  if (host.state === 'LOADING') throw notLoaded();
  const problem = host.problem();
  if (problem !== null) throw new HttpError(503, problem, { 'retry-after': '1' });
  sendModelReady(host, res);
}

/** A model that is loaded serves, whether the others are there or not. */
function sendModelReady({ state }: Host, res: ServerResponse): void {
  refuseIfDraining(state);
  answerJson(res, 200, {});
}

async function sendMetrics({ metrics: { registry } }: Host, _: IncomingMessage, res: ServerResponse): Promise<void> {
  send(res, 200, { 'content-type': registry.contentType }, [Buffer.from(await registry.metrics())]);
}

// ------------------------------------------------------------------------------------------------------------- inference

async function infer(
  host: Host,
  req: IncomingMessage,
  res: ServerResponse,
  model: ServedModel,
  holding: Holding,
  { beganMs }: Asked,
): Promise<void> {
  refuseIfDraining(host.state);
  const gone = () => isOver(res);
  const body = await readBody(req, host.config.bodyBytesMax, holding);
  const arrivedMs = nowMs();
  const parsed = await host.json.parse(gone, model, body, jsonLengthOf(req));
  for (const { pieces } of parsed.feeds) {
    // Binary tensors lie in the body.
    holding.count(bytesOf(pieces.filter(({ buffer }) => buffer !== body.buffer)));
  }
  const deadlineMs = arrivedMs + (parsed.timeoutMs ?? model.config.deadlineMs);
  const submitted = submit(host, res, {
    model,
    feeds: parsed.feeds,
    outputs: parsed.outputs.map(({ name }) => name),
    rows: parsed.rows,
    batchKey: v2.batchKeyOf(parsed),
    // A request can stand back behind others, but push none aside.
    priority: Math.max(parsed.priority ?? 0, model.config.priority),
    arrivedMs,
    deadlineMs,
    copied: () => holding.giveAll(),
  });
  const answer = await doneOf(submitted, model, res, arrivedMs);
  const doneMs = nowMs();
  holding.count(bytesOf(answer.outputs.map(({ data }) => data)));
  const { jsonLength, pieces } = await host.json.print(gone, model, parsed.id, parsed.outputs, answer.outputs);
  holding.count(bytesOf(pieces));
  const type =
    jsonLength === undefined
      ? jsonType
      : { 'content-type': 'application/octet-stream', 'inference-header-content-length': String(jsonLength) };
  const sent = await compressed(req, pieces);
  const endedMs = nowMs();
  answer.timing.postprocessingMs += endedMs - doneMs;
  model.stats.answered(parsed.rows, answer.timing, endedMs - beganMs);
  // From here on only the answer is held, for as long as the client takes to read it.
  holding.giveAll();
  holding.count(bytesOf(sent.pieces));
  send(res, 200, { ...type, ...sent.headers, ...headersOf(model, answer) }, sent.pieces);
}

async function predict(
  host: Host,
  req: IncomingMessage,
  res: ServerResponse,
  model: ServedModel,
  holding: Holding,
  { query, beganMs }: Asked,
): Promise<void> {
  refuseIfDraining(host.state);
  const asked = parseQuery(query);
  if (req.headers['content-type']?.startsWith('multipart/')) {
    const command = `curl --data-binary @image.jpg …/v2/models/${model.config.name}/predict`;
    throw new HttpError(415, `The body is a form (curl -F). Send the image as it is: ${command}`);
  }
  const body = await readBody(req, host.config.bodyBytesMax, holding);
  const arrivedMs = nowMs();
  const { pixelBytes, decodingBytes } = await readHeader(model, body).catch((error: HttpError) => {
    // `curl -d` leaves out line ends. --data-binary has the same type.
    if (error.status !== 400 || req.headers['content-type'] !== 'application/x-www-form-urlencoded') throw error;
    throw new HttpError(400, `${error.message} If it was sent by \`curl -d\`, which changes files: use \`--data-binary @image.jpg\`.`);
  });
  const { priority, deadlineMs } = model.config;
  let pixels: Uint8Array | undefined;
  // It has its place in the queue before it is decoded: an image that is not going to be looked at is not.
  const submitted = submit(host, res, {
    model,
    feeds: null,
    outputs: readOutputsOf(model),
    rows: 1,
    // Images have sizes of their own until the run has made tensors of them: each goes alone.
    batchKey: `image ${arrivedMs}`,
    priority,
    arrivedMs,
    deadlineMs: arrivedMs + deadlineMs,
    copied: () => {
      free(pixels);
      holding.giveAll();
    },
  });
  const done = doneOf(submitted, model, res, arrivedMs);
  try {
    await Promise.race([holding.reserveLater(decodingBytes, submitted.answer), done]);
    const feed = await decodeFeed(model, body);
    [pixels] = feed.pieces;
    holding.count(pixelBytes - decodingBytes);
    const decodedMs = nowMs();
    submitted.ready([feed], readingOf(model, feed.image, asked));
    const answer = await done;
    answer.timing.preprocessingMs += decodedMs - arrivedMs;
    const found = answer.found as Found;
    if ('problem' in found) {
      model.stats.failed(nowMs() - arrivedMs);
      throw new HttpError(found.problem.code === 'NOT_NUMBERS' ? 500 : 422, found.problem.message);
    }
    model.stats.answered(1, answer.timing, nowMs() - beganMs);
    const { name, version } = model.config;
    const said = { model_name: name, model_version: String(version), ...labelled(model, found) };
    holding.giveAll();
    answerJson(res, 200, said, headersOf(model, answer));
  } finally {
    submitted.drop();
    free(pixels);
  }
}

/** At once: the collector lets a burst of images lie for a long time. */
function free(bytes: Uint8Array | undefined): void {
  const buffer = bytes?.buffer as ArrayBuffer | undefined;
  if (buffer && !buffer.detached) buffer.transfer(0);
}

function refuseIfDraining(state: Host['state']): void {
  if (state === 'DRAINING') throw new HttpError(503, 'The host is stopping.', { 'retry-after': '1' });
}

const notLoaded = () => new HttpError(503, 'The models are being loaded.', { 'retry-after': '1' });

function jsonLengthOf(req: IncomingMessage): number | undefined {
  const header = req.headers['inference-header-content-length'];
  if (header === undefined) return undefined;
  if (typeof header !== 'string' || !/^\d{1,12}$/.test(header))
    throw new HttpError(400, 'Inference-Header-Content-Length is a number of bytes.');
  return Number(header);
}

function refused({ stats }: ServedModel, { reason, retryAfterMs }: Refusal): HttpError {
  stats.ended.refused += 1;
  return busy(reason === 'FULL' ? 'The queue is full.' : 'The answer would come after the deadline: too much is waiting.', retryAfterMs);
}

type Done = Extract<Answer, { state: 'done' }>;

/** Where the client goes before the answer is there, the request is dropped. */
function submit({ dispatcher }: Host, res: ServerResponse, request: Request): Submitted {
  const submitted = dispatcher.submit(request);
  whenOver(res, submitted.drop);
  return submitted;
}

/** The outputs, or a HttpError. */
async function doneOf({ answer: coming }: Submitted, model: ServedModel, res: ServerResponse, arrivedMs: number): Promise<Done> {
  const { stats } = model;
  const answer = await coming;
  switch (answer.state) {
    case 'done':
      return answer;
    case 'refused':
      throw refused(model, answer);
    case 'expired':
      stats.ended.expired += 1;
      throw new HttpError(504, 'The deadline has passed.');
    case 'cancelled':
      if (isOver(res)) stats.ended.cancelled += 1;
      throw new HttpError(499, 'The client has gone.');
    case 'stopped':
      throw new HttpError(503, 'The host is stopping.', { 'retry-after': '1' });
    case 'failed':
      stats.failed(nowMs() - arrivedMs);
      throw new HttpError(500, `The model failed on this input: ${answer.message}`);
  }
}

function headersOf({ config }: ServedModel, { timing }: Done): Record<string, string> {
  const parts = {
    queue: timing.queueMs,
    preprocessing: timing.preprocessingMs,
    compute: timing.computeMs,
    postprocessing: timing.postprocessingMs,
  };
  return {
    'whetstone-revision': String(config.version),
    ...(config.modelVersion ? { 'whetstone-model-version': String(config.modelVersion) } : {}),
    ...(config.lineageHash ? { 'whetstone-lineage-hash': config.lineageHash } : {}),
    'server-timing': Object.entries(parts)
      .map(([part, ms]) => `${part};dur=${ms.toFixed(3)}`)
      .join(', '),
  };
}
