/** The routes of the inference host over `node:http`. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Log } from '../log.ts';
import { refuseRequest } from '../refuseRequest.ts';
import { endRequest, type Tracing, traceRequest } from '../tracing.ts';
import { codeVersion } from '../version.ts';
import { type Auth, authorize, type Deployments, refuseForeign } from './auth.ts';
import { nowMs } from './clock.ts';
import { HttpError } from './httpError.ts';
import { answerInfer, answerPredict, type Inferring, type OneAsked, refuseIfDraining } from './infer.ts';
import type { KeyUses } from './keyUses.ts';
import type { HostMetrics } from './metrics.ts';
import type { ServedModel } from './models.ts';
import { hostOpenapi } from './openapi.ts';
import { answerJson, isOver, jsonType, nosniff, send, whenOver } from './send.ts';
import * as v2 from './v2.ts';

/** What the routes see of the host. */
export interface Host extends Inferring {
  log: Log;
  /** By name, then by version. */
  models: Map<string, Map<number, ServedModel>>;
  /** Names that are there, also when nothing of theirs is served. */
  deployments: ReadonlySet<string>;
  /** Why it cannot serve everything that it is to serve. One permit that hangs among others is no reason. */
  unready(): string | null;
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
  /** Null where nobody asks for traces. */
  tracing: Tracing | null;
}

interface Asked extends OneAsked {
  /** All that its sender may use. */
  models(): ServedModel[];
}
type Handler = (host: Host, req: IncomingMessage, res: ServerResponse, asked: Asked) => unknown;

/** What comes behind `/v2/models/{m}[/versions/{v}]`. */
export const modelRoutes: Record<string, [method: string, Handler]> = {
  '': ['GET', (host, _, res, { model }) => answerJson(res, 200, v2.modelMetadata(model(), versionsOf(host, model().config.name)))],
  ready: ['GET', (host, _, res, { model }) => model() && sendModelReady(host, res)],
  config: ['GET', (_, __, res, { model }) => answerJson(res, 200, v2.modelConfiguration(model()))],
  stats: ['GET', (_, __, res, { model }) => answerJson(res, 200, { model_stats: [v2.modelStatistics(model())] })],
  infer: ['POST', answerInfer],
  predict: ['POST', answerPredict],
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
    const traced = route === 'infer' || route === 'predict' ? host.tracing : null;
    const span = traced && traceRequest(traced, req, `/v2/models/{model}/${route}`);
    // What of its time the four parts are, it gets with the answer (`infer.ts`).
    if (span) whenOver(res, () => endRequest(span, res));
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
      span,
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

/** Without a version the greatest. */
function findModel({ models, deployments, state }: Host, name: string, version: string | undefined): ServedModel {
  const versions = models.get(name);
  if (!versions && state === 'LOADING') throw notLoaded();
  if (!versions && deployments.has(name)) {
    throw new HttpError(503, `No revision of ${name} can be served now: its revisions in GraphQL say why.`, { 'retry-after': '1' });
  }
  if (!versions)
    throw new HttpError(
      404,
      `There is no deployment or model ${name.slice(0, 100)}: POST /v2/repository/index lists those that there are.`,
    );
  const found = versions.get(version === undefined ? Math.max(...versions.keys()) : Number(version));
  if (!found) throw new HttpError(404, `${name} has no version ${version?.slice(0, 100)}; it has ${[...versions.keys()].join(', ')}.`);
  return found;
}

const versionsOf = ({ models }: Host, name: string): number[] => [...(models.get(name)?.keys() ?? [])].sort((a, b) => a - b);
const allModels = ({ models }: Host): ServedModel[] => [...models.values()].flatMap((versions) => [...versions.values()]);

function sendReady(host: Host, res: ServerResponse): void {
  if (host.state === 'LOADING') throw notLoaded();
  const reason = host.unready();
  if (reason !== null) throw new HttpError(503, reason, { 'retry-after': '1' });
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

const notLoaded = () => new HttpError(503, 'The models are being loaded.', { 'retry-after': '1' });
