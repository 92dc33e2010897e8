import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { actorOf, type Claims, claimsOf, currentViewer } from './accounts/viewer.ts';
import { clientAddressOf } from './clientAddress.ts';
import { type Connections, guardedServer, type RefusedHead } from './connections.ts';
import { ApiError, type ErrorCode, errorCodes } from './errors.ts';
import type { Context, Services } from './graphql/context.ts';
import { describeError } from './graphql/yoga.ts';
import { type Log, requestScope } from './log.ts';
import { refuseRequest } from './refuseRequest.ts';
import { activeSpan, endRequest, traceRequest } from './tracing.ts';

/** Answers the requests whose path is `path` or, when that ends with a slash, lies below it; `/` is that path alone. */
export interface Route {
  path: string;
  /** Others are 405. What is read can also be asked for by HEAD. */
  methods: readonly string[];
  /** It has a secret of its own in the Authorization header, which it checks: no access token is looked for. */
  ownSecret?: true;
  /** It reads the session of the token itself, which is all that is checked before. */
  readsSession?: true;
  /** Machines ask it again and again: only what is not answered well is worth a log line at level info. */
  polled?: true;
  handle(req: IncomingMessage, res: ServerResponse, context: Context): void | Promise<void>;
}

/** Connections of all kinds. */
const connectionsMax = 2000;

/**
 * The HTTP server: origin check, bearer token, security headers, request id and log line around the routes. A token that is not
 * valid is 401 here, before any route that has no secret of its own.
 */
export function createHttp(
  services: Services,
  log: Log,
  routes: Route[],
  originAllowed: (origin: string | undefined) => boolean,
): { http: Server; connections: Connections } {
  const addressOf = clientAddressOf(services.config.trustedProxies);
  const { http, connections } = guardedServer({ max: connectionsMax, requestMs: 0 }, bodyOf, (req, res) => {
    // A client's own id is taken over so that its logs and ours meet, if it is harmless to print.
    const given = req.headers['x-request-id'];
    const requestId = typeof given === 'string' && /^[\w.-]{1,64}$/.test(given) ? given : crypto.randomUUID();
    const scope: { requestId: string; userId?: string } = { requestId };
    requestScope.run(scope, () => {
      const startedAt = performance.now();
      const path = pathOf(req);
      const route = routes.find((r) => r.path === path || (r.path !== '/' && r.path.endsWith('/') && path.startsWith(r.path)));
      const traced = services.tracing && !route?.polled ? services.tracing : null;
      const span = traced && traceRequest(traced, req, route?.path, { 'whetstone.request.id': requestId });
      res.on('close', () => {
        if (span) endRequest(span, res);
        const tell = () => {
          const ms = performance.now() - startedAt;
          const level = route?.polled && res.statusCode < 400 ? 'debug' : 'info';
          log[level]({ method: req.method, path, status: res.statusCode, latencyMs: Math.round(ms) }, 'request');
          // A stream lasts for as long as its client wants.
          if (!String(res.getHeader('content-type')).startsWith('text/event-stream'))
            services.metrics.answered(route?.path, res, ms / 1000);
        };
        requestScope.run(scope, span ? () => activeSpan.run(span, tell) : tell);
      });
      const run = () => answer(req, res, path, route, scope).catch((error: unknown) => sendError(res, error, log));
      if (span) activeSpan.run(span, run);
      else run();
    });
  });

  function bodyOf({ status, message }: RefusedHead): string {
    const requestId = crypto.randomUUID();
    log.info({ requestId, status, message }, 'request that is not HTTP');
    const code: ErrorCode = status === 400 ? 'INVALID' : status === 408 ? 'UNAVAILABLE' : 'LIMIT';
    return jsonText({ errors: [{ message, extensions: { code, retryable: errorCodes[code].retryable, requestId } }] });
  }

  async function answer(
    req: IncomingMessage,
    res: ServerResponse,
    path: string,
    route: Route | undefined,
    scope: { requestId: string; userId?: string },
  ): Promise<void> {
    res.setHeader('X-Request-Id', scope.requestId);
    res.setHeader('X-Content-Type-Options', 'nosniff');
    res.setHeader('Referrer-Policy', 'no-referrer');
    res.setHeader('Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'");
    const { origin } = req.headers;
    if (!originAllowed(origin)) {
      throw new ApiError(
        'FORBIDDEN',
        `The origin ${origin} may not call this server: name it in WHETSTONE_ALLOWED_ORIGINS or WHETSTONE_PUBLIC_URL.`,
      );
    }
    if (origin) {
      res.setHeader('Access-Control-Allow-Origin', origin);
      res.setHeader('Access-Control-Expose-Headers', '*');
      res.appendHeader('Vary', 'Origin');
    }
    if (origin && req.method === 'OPTIONS' && req.headers['access-control-request-method']) {
      res.setHeader('Access-Control-Allow-Methods', 'GET, POST, PATCH, HEAD, DELETE');
      res.setHeader(
        'Access-Control-Allow-Headers',
        'authorization, content-type, x-request-id, tus-resumable, upload-length, upload-offset, upload-metadata',
      );
      res.setHeader('Access-Control-Max-Age', '600');
      res.writeHead(204).end();
      return;
    }
    if (!route) throw new ApiError('NOT_FOUND', 'There is nothing at this path. The API is at /graphql.');
    if (!route.methods.includes(req.method ?? '')) {
      const allowed = route.methods.join(', ');
      res.setHeader('Allow', allowed);
      throw new ApiError('METHOD_NOT_ALLOWED', `${path} is not for ${req.method}, but for ${allowed}.`);
    }
    const claims = route.ownSecret ? null : await claimsIn(req);
    const viewer = claims && !route.readsSession ? currentViewer(services.db, claims) : null;
    if (claims) connections.trust(res);
    scope.userId = claims?.userId;
    const actor = { ...actorOf(claims), requestId: scope.requestId };
    const client = req.headers['user-agent'] ?? null;
    await route.handle(req, res, { ...services, viewer, claims, actor, client, address: addressOf(req) });
  }

  async function claimsIn(req: IncomingMessage): Promise<Claims | null> {
    const { authorization } = req.headers;
    if (authorization === undefined) return null;
    const token = /^Bearer (.+)$/i.exec(authorization)?.[1];
    if (!token) throw new ApiError('UNAUTHENTICATED', 'The Authorization header is not of the form `Bearer <access token or API key>`.');
    return claimsOf(services, token);
  }

  return { http, connections };
}

export function pathOf(req: IncomingMessage): string {
  return (req.url ?? '/').split('?', 1)[0] as string;
}

const jsonHeaders = { 'Content-Type': 'application/json; charset=utf-8', 'Cache-Control': 'no-store' };
const jsonText = (body: unknown): string => `${JSON.stringify(body)}\n`;

export function sendJson(res: ServerResponse, status: number, body: unknown): void {
  res.writeHead(status, jsonHeaders).end(jsonText(body));
}

/** An error outside GraphQL, in GraphQL's form. */
function sendError(res: ServerResponse, error: unknown, log: Log): void {
  if (!(error instanceof ApiError)) log.error({ err: error }, 'a request failed by a defect');
  const known = error instanceof ApiError ? error : new ApiError('INTERNAL', 'Something went wrong inside Whetstone.');
  if (res.headersSent) {
    res.destroy();
    return;
  }
  const { message, http, ...extensions } = describeError(known);
  const headers = (http as { headers?: Record<string, string> }).headers ?? {};
  refuseRequest(res, errorCodes[known.code].status, { ...jsonHeaders, ...headers }, jsonText({ errors: [{ message, extensions }] }));
}

/**
 * Whether a browser page of this origin may call the server: the server's own addresses, the public one, and those that are
 * configured. Programs send no origin.
 */
export function originCheck(
  { publicUrl, allowedOrigins }: Services['config'],
  portOf: () => number,
): (origin: string | undefined) => boolean {
  const configured = new Set([...(publicUrl ? [publicUrl] : []), ...allowedOrigins].map((url) => new URL(url).origin));
  return (origin) => {
    if (origin === undefined || configured.has(origin)) return true;
    return ['localhost', '127.0.0.1', '[::1]'].some((host) => origin === `http://${host}:${portOf()}`);
  };
}
