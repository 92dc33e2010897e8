/** The routes of the inference host over `node:http`. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { deflate, gzip } from 'node:zlib';
import type { Log } from '../log.ts';
import { prometheusType } from '../prometheus.ts';
import { refuse } from '../refuse.ts';
import { codeVersion } from '../version.ts';
import type { Found, Image } from '../vision/reading.ts';
import { PredictQuery } from './answers.ts';
import { type Auth, authorize, type Deployments } from './auth.ts';
import { type BodyMemory, readBody } from './body.ts';
import { nowMs } from './clock.ts';
import type { HostConfig } from './config.ts';
import type { Answer, Dispatcher, Request } from './dispatcher.ts';
import { busy, HttpError } from './httpError.ts';
import { metricsText } from './metrics.ts';
import type { ServedModel } from './models.ts';
import { openapi } from './openapi.ts';
import { decodeFeed, labelled, readingOf } from './predict.ts';
import type { Refusal } from './queue.ts';
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
  memory: BodyMemory;
  /** Who may use which deployment; null is everybody everything, or nobody while the `accounts` of the configuration are not there. */
  auth: Auth | null;
  /** When the server last said that these are its accounts (`nowMs`); null where it is not asked. */
  authConfirmedMs: number | null;
  /** Answers with these statuses. */
  authRefusals: Record<401 | 403, number>;
}

/** Bodies below this are not worth compressing. */
const compressedBytesMin = 1024;
const jsonType = { 'content-type': 'application/json' };
const nosniff = { 'x-content-type-options': 'nosniff' };

/** What a request is about: the model of its address, all that its sender may use, and its query. */
interface Asked {
  model(): ServedModel;
  models(): ServedModel[];
  query: URLSearchParams;
}
type Handler = (host: Host, req: IncomingMessage, res: ServerResponse, asked: Asked) => unknown;

/** What comes behind `/v2/models/{m}[/versions/{v}]`. */
export const modelRoutes: Record<string, [method: string, Handler]> = {
  '': ['GET', (host, _, res, { model }) => sendJson(res, 200, v2.modelMetadata(model(), versionsOf(host, model().config.name)))],
  ready: ['GET', (host, _, res, { model }) => model() && sendModelReady(host, res)],
  config: ['GET', (_, __, res, { model }) => sendJson(res, 200, v2.modelConfiguration(model()))],
  stats: ['GET', (_, __, res, { model }) => sendJson(res, 200, { model_stats: [v2.modelStatistics(model())] })],
  infer: ['POST', (host, req, res, { model }) => held(model(), (one) => infer(host, req, res, one))],
  predict: ['POST', (host, req, res, { model, query }) => held(model(), (one) => predict(host, req, res, one, query))],
};

export const routes: Record<string, [method: string, Handler]> = {
  '/v2': ['GET', (_, __, res) => sendJson(res, 200, v2.serverMetadata(codeVersion))],
  '/v2/health/live': ['GET', (_, __, res) => sendJson(res, 200, {})],
  '/v2/health/ready': ['GET', (host, _, res) => sendReady(host, res)],
  '/v2/models/stats': ['GET', (_, __, res, { models }) => sendJson(res, 200, { model_stats: models().map(v2.modelStatistics) })],
  '/v2/repository/index': ['POST', (_, __, res, { models }) => sendJson(res, 200, models().map(v2.repositoryEntry))],
  '/metrics': ['GET', sendMetrics],
  '/openapi.json': ['GET', (_, __, res) => sendJson(res, 200, openapi)],
};

/** Answers a request; never throws. */
export async function serveRequest(host: Host, req: IncomingMessage, res: ServerResponse): Promise<void> {
  if (host.state === 'DRAINING') res.setHeader('connection', 'close');
  try {
    const { pathname, searchParams } = new URL(req.url ?? '/', 'http://host');
    const { name, version, route } = modelPath(pathname);
    const deployments = await deploymentsOf(host, req, pathname, name || null);
    const [table, address] = route === undefined ? [routes, pathname] : [modelRoutes, route];
    const [method, handler] = (Object.hasOwn(table, address) && table[address]) || [];
    if (!handler) throw new HttpError(404, 'There is nothing at this address. docs/serving.md lists the routes.');
    if (req.method !== method) throw new HttpError(405, `This address answers ${method} only.`, { allow: String(method) });
    await handler(host, req, res, {
      model: () => findModel(host, name, version),
      models: () => allModels(host).filter(({ config }) => deployments?.has(config.name) ?? true),
      query: searchParams,
    });
  } catch (error) {
    if (!(error instanceof HttpError)) host.log.error({ err: error }, 'a request failed');
    const { status, message, headers } = error instanceof HttpError ? error : new HttpError(500, 'The host failed. Its log has the cause.');
    if (status === 401 || status === 403) host.authRefusals[status] += 1;
    if (res.headersSent || res.destroyed) res.destroy();
    else refuse(res, status, { ...jsonType, ...nosniff, ...headers }, JSON.stringify({ error: message }));
  }
}

/** What the sender may use. Health, metrics and what the server can do are for everybody; a HttpError refuses the rest. */
async function deploymentsOf({ auth, config }: Host, req: IncomingMessage, pathname: string, name: string | null): Promise<Deployments> {
  if (!/^\/v2\/(models|repository)(\/|$)/.test(pathname)) return null;
  if (!auth && config.accounts) throw new HttpError(503, 'The accounts are being fetched from the server.', { 'retry-after': '1' });
  if (!auth) return null;
  return authorize(auth, req.headers.authorization, name, Date.now());
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

/** While a request holds a model, it is not unloaded. */
async function held(model: ServedModel, work: (model: ServedModel) => Promise<void>): Promise<void> {
  model.users += 1;
  try {
    await work(model);
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
  sendJson(res, 200, {});
}

function sendMetrics(host: Host, _: IncomingMessage, res: ServerResponse): void {
  const { authConfirmedMs, authRefusals } = host;
  const text = metricsText(allModels(host), {
    depth: host.dispatcher.depth,
    bodyBytes: host.memory.used,
    authRefusals,
    accountsAgeMs: authConfirmedMs === null ? null : nowMs() - authConfirmedMs,
  });
  send(res, 200, { 'content-type': prometheusType }, [Buffer.from(text)]);
}

// ------------------------------------------------------------------------------------------------------------- inference

async function infer(host: Host, req: IncomingMessage, res: ServerResponse, model: ServedModel): Promise<void> {
  refuseIfDraining(host.state);
  const body = await readBody(req, host.config.bodyBytesMax, host.memory);
  try {
    const arrivedMs = nowMs();
    const parsed = v2.parseInfer(model, body.bytes, jsonLengthOf(req));
    const deadlineMs = arrivedMs + (parsed.timeoutMs ?? model.config.deadlineMs);
    const answer = await submitted(host, res, {
      model,
      feeds: parsed.feeds,
      outputs: parsed.outputs.map(({ name }) => name),
      rows: parsed.rows,
      batchKey: v2.batchKeyOf(parsed),
      priority: parsed.priority ?? model.config.priority,
      arrivedMs,
      deadlineMs,
    });
    const doneMs = nowMs();
    const { jsonLength, pieces } = v2.makeResponse(model, parsed.id, parsed.outputs, answer.outputs);
    const type =
      jsonLength === undefined
        ? jsonType
        : { 'content-type': 'application/octet-stream', 'inference-header-content-length': String(jsonLength) };
    const sent = await compressed(req, pieces);
    answer.timing.postprocessingMs += nowMs() - doneMs;
    model.stats.answered(parsed.rows, answer.timing);
    host.memory.sending(bytesOf(sent.pieces), res);
    send(res, 200, { ...type, ...sent.headers, ...headersOf(model, answer) }, sent.pieces);
  } finally {
    body.release();
  }
}

async function predict(host: Host, req: IncomingMessage, res: ServerResponse, model: ServedModel, query: URLSearchParams): Promise<void> {
  refuseIfDraining(host.state);
  const asked = PredictQuery.safeParse(Object.fromEntries(query));
  if (!asked.success) throw new HttpError(400, asked.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join(' '));
  const body = await readBody(req, host.config.bodyBytesMax, host.memory);
  try {
    const arrivedMs = nowMs();
    const { priority } = model.config;
    const deadlineMs = arrivedMs + model.config.deadlineMs;
    // An image that is not going to be looked at is not decoded.
    const refusal = host.dispatcher.refusal({ model, rows: 1, batchKey: '', priority, deadlineMs });
    if (refusal) throw refused(model, refusal);
    const feed = await decodeFeed(model, body.bytes);
    const decodedMs = nowMs();
    const answer = await submitted(host, res, {
      model,
      feeds: [feed],
      ...readingOf(model, feed.image as Image, asked.data),
      rows: 1,
      // Images have sizes of their own until the run has made tensors of them: each goes alone.
      batchKey: `image ${arrivedMs}`,
      priority,
      arrivedMs: decodedMs,
      deadlineMs,
    });
    answer.timing.preprocessingMs += decodedMs - arrivedMs;
    const found = answer.found as Found;
    if ('problem' in found) {
      model.stats.failed(nowMs() - arrivedMs);
      throw new HttpError(found.problem.code === 'NOT_NUMBERS' ? 500 : 400, found.problem.message);
    }
    model.stats.answered(1, answer.timing);
    const { name, version } = model.config;
    const said = { model_name: name, model_version: String(version), ...labelled(model, found) };
    sendJson(res, 200, said, headersOf(model, answer));
  } finally {
    body.release();
  }
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

/** The outputs, or a HttpError. Where the client goes before, the request is dropped. */
async function submitted(host: Host, res: ServerResponse, request: Request & { model: ServedModel }): Promise<Done> {
  const { stats } = request.model;
  const answer = await new Promise<Answer>((resolve) => {
    const drop = host.dispatcher.submit(request, resolve);
    res.on('close', drop);
    if (res.destroyed) drop();
  });
  switch (answer.state) {
    case 'done':
      return answer;
    case 'refused':
      throw refused(request.model, answer);
    case 'expired':
      stats.ended.expired += 1;
      throw new HttpError(504, 'The deadline has passed.');
    case 'cancelled':
      stats.ended.cancelled += 1;
      throw new HttpError(499, 'The client has gone.');
    case 'stopped':
      throw new HttpError(503, 'The host is stopping.', { 'retry-after': '1' });
    case 'failed':
      stats.failed(nowMs() - request.arrivedMs);
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
    'whetstone-model-version': String(config.version),
    ...(config.lineageHash ? { 'whetstone-lineage-hash': config.lineageHash } : {}),
    'server-timing': Object.entries(parts)
      .map(([part, ms]) => `${part};dur=${ms.toFixed(3)}`)
      .join(', '),
  };
}

// --------------------------------------------------------------------------------------------------------------- answers

/** As the client asks for, at the level that costs least. */
async function compressed(req: IncomingMessage, pieces: Uint8Array[]): Promise<{ pieces: Uint8Array[]; headers: Record<string, string> }> {
  const encoding = /\b(gzip|deflate)\b/.exec(String(req.headers['accept-encoding'] ?? ''))?.[1];
  if (!encoding || bytesOf(pieces) < compressedBytesMin) return { pieces, headers: {} };
  const packed = await promisify(encoding === 'gzip' ? gzip : deflate)(Buffer.concat(pieces), { level: 1 });
  return { pieces: [packed], headers: { 'content-encoding': encoding } };
}

function sendJson(res: ServerResponse, status: number, value: unknown, headers: Record<string, string> = {}): void {
  send(res, status, { ...jsonType, ...headers }, [Buffer.from(JSON.stringify(value))]);
}

const bytesOf = (pieces: readonly Uint8Array[]): number => pieces.reduce((sum, piece) => sum + piece.length, 0);

function send(res: ServerResponse, status: number, headers: Record<string, string>, pieces: readonly Uint8Array[]): void {
  res.writeHead(status, { ...headers, ...nosniff, 'content-length': String(bytesOf(pieces)) });
  res.cork();
  for (const piece of pieces) res.write(piece);
  res.end();
}
