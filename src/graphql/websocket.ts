import { AsyncLocalStorage } from 'node:async_hooks';
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { type ExecutionArgs, GraphQLError, getOperationAST } from 'graphql';
import { CloseCode, handleProtocols, makeServer } from 'graphql-ws';
import { type WebSocket, WebSocketServer } from 'ws';
import { actorOf, authenticate, type Claims, claimsOf, currentViewer } from '../accounts/viewer.ts';
import { clientAddressOf } from '../clientAddress.ts';
import type { Connections } from '../connections.ts';
import { ApiError } from '../errors.ts';
import { pathOf } from '../http.ts';
import { type Log, requestScope } from '../log.ts';
import { watchAccess } from './access.ts';
import type { Context, Services } from './context.ts';
import { type Graphql, isPublic, publicError } from './yoga.ts';

const messageBytesMax = 1024 * 1024;
const socketsMax = 1000;
const operationsPerSocketMax = 100;
/** Bytes that wait for a client who asks for more without reading; beyond, its socket is cut. */
const bufferedBytesMax = 8 * 1024 * 1024;
/** How long a client may take to answer the closing of its socket. */
const closeTimeoutMs = 2000;
/** A client that does not answer a ping before the next one is gone; so is one without a token that asks nothing from one to the next. */
const pingIntervalMs = 12_000;

interface Connection {
  socket: WebSocket;
  request: IncomingMessage;
  /** The token of connection_init: who asks is read again for each operation. */
  token?: string;
  stop?: () => void;
  /** Since the last ping. */
  asked: boolean;
}

/**
 * GraphQL over WebSocket (graphql-transport-ws) at /graphql. A document that does not parse answers only its own operation. The
 * socket is closed with 4403 when the access token is invalid or the viewer's access ends. Returns the function that closes all
 * sockets (1001).
 */
export function serveWebSocket(
  http: Server,
  connections: Connections,
  graphql: Graphql,
  services: Services,
  log: Log,
  originAllowed: (origin: string | undefined) => boolean,
) {
  const options = { noServer: true, maxPayload: messageBytesMax, closeTimeout: closeTimeoutMs, handleProtocols };
  const sockets = new WebSocketServer(options);
  const addressOf = clientAddressOf(services.config.trustedProxies);
  /** Sockets without a valid token, the oldest first. */
  const anonymous = new Set<WebSocket>();

  http.on('upgrade', (request, socket, head) => {
    socket.on('error', () => socket.destroy());
    if (pathOf(request) !== '/graphql') return refuseUpgrade(socket, '404 Not Found');
    if (!originAllowed(request.headers.origin)) return refuseUpgrade(socket, '403 Forbidden');
    if (sockets.clients.size >= socketsMax) {
      const [oldest] = anonymous;
      if (!oldest) return refuseUpgrade(socket, '503 Service Unavailable');
      anonymous.delete(oldest);
      oldest.terminate();
    }
    sockets.handleUpgrade(request, socket, head, (client) => open(client, request));
  });

  // graphql-ws's own binding to ws prints to the console, and lets a client that never reads fill the memory with answers.
  function open(client: WebSocket, request: IncomingMessage): void {
    const connection: Connection = { socket: client, request, asked: true };
    anonymous.add(client);
    const closed = protocol.opened(
      {
        protocol: client.protocol,
        // Resolves when the answer has left; a write that fails is seen as the close of the socket.
        send: (data) => new Promise((resolve) => client.send(data, () => resolve())),
        close: (code, reason) => client.close(code, reason),
        onMessage: (handle) => {
          client.on('message', (data) => {
            if (client.bufferedAmount > bufferedBytesMax) return client.terminate();
            handle(String(data)).catch((error: unknown) => {
              log.error({ err: error }, 'a message failed by a defect');
              client.close(CloseCode.InternalServerError);
            });
          });
        },
      },
      connection,
    );
    let answered = true;
    client.on('pong', () => {
      answered = true;
    });
    const pings = setInterval(() => {
      if (!answered) return client.terminate();
      if (!connection.token && !connection.asked) return client.close(4408, 'A socket without a token is closed when it asks nothing.');
      answered = false;
      connection.asked = false;
      client.ping();
    }, pingIntervalMs);
    client.on('error', (error) => log.info({ err: error }, 'a socket failed'));
    client.once('close', (code, reason) => {
      clearInterval(pings);
      anonymous.delete(client);
      closed(code, String(reason)).catch((error: unknown) => log.error({ err: error }, 'a socket closed by a defect'));
    });
  }

  const masked = (error: unknown): GraphQLError => {
    const cause = error instanceof GraphQLError && error.cause ? error.cause : error;
    return withoutHttp(isPublic(cause) ? cause : publicError(cause, log));
  };

  const protocol = makeServer<Record<string, unknown>, Connection>({
    async onConnect(ctx) {
      const params = ctx.connectionParams ?? {};
      const header = params.authorization ?? params.Authorization;
      if (header === undefined) return true;
      const { socket, request } = ctx.extra;
      if (typeof header !== 'string') {
        socket.close(CloseCode.BadRequest, 'The authorization of connection_init is not a string.');
        return false;
      }
      const token = /^Bearer (.+)$/i.exec(header)?.[1] ?? '';
      const viewer = await authenticate(services, token).catch(() => null);
      if (!viewer || socket.readyState !== socket.OPEN) return false;
      const { signal, stop } = watchAccess(services, viewer);
      signal.addEventListener('abort', () => socket.close(4403, (signal.reason as ApiError).message));
      Object.assign(ctx.extra, { token, stop });
      anonymous.delete(socket);
      connections.trustSocket(request.socket);
      return true;
    },
    onClose(ctx) {
      ctx.extra.stop?.();
    },
    onSubscribe(ctx, _id, params) {
      ctx.extra.asked = true;
      const requestId = crypto.randomUUID();
      return requestScope.run({ requestId }, async () => {
        if (Object.keys(ctx.subscriptions).length > operationsPerSocketMax) {
          return [masked(new ApiError('LIMIT', `One socket carries at most ${operationsPerSocketMax} operations at a time.`))];
        }
        try {
          const { token, request } = ctx.extra;
          const claims: Claims | null = token ? await claimsOf(services, token) : null;
          const viewer = claims && currentViewer(services.db, claims);
          const actor = { ...actorOf(claims), requestId };
          const client = request.headers['user-agent'] ?? null;
          const context: Context = { ...services, viewer, claims: null, actor, client, address: addressOf(request) };
          const enveloped = graphql.getEnveloped({ ...context, params } as never);
          const document = enveloped.parse(params.query);
          const errors = enveloped.validate(enveloped.schema, document);
          if (errors.length > 0) return errors.map(masked);
          if (!getOperationAST(document, params.operationName)) {
            throw new ApiError('INVALID_DOCUMENT', 'The document does not say which of its operations to execute.');
          }
          return {
            schema: enveloped.schema,
            document,
            operationName: params.operationName,
            variableValues: params.variables,
            contextValue: await enveloped.contextFactory(),
            rootValue: { execute: enveloped.execute, subscribe: enveloped.subscribe },
          } satisfies ExecutionArgs;
        } catch (error) {
          return [masked(error)];
        }
      });
    },
    execute: (args) => inScope(args, () => own(args).execute(args)),
    subscribe: (args) =>
      inScope(args, async () => {
        const result = await own(args).subscribe(args);
        return Symbol.asyncIterator in result ? bound(result[Symbol.asyncIterator]()) : result;
      }),
    // An error of graphql-ws itself, or of a stream that failed, has not been masked.
    onError: (_ctx, _id, _payload, errors) => errors.map((e) => masked(e).toJSON()),
    onNext: (_ctx, _id, _payload, _args, result) => ({ ...result, errors: result.errors?.map((e) => withoutHttp(e as GraphQLError)) }),
  });

  return async (): Promise<void> => {
    for (const client of sockets.clients) client.close(1001, 'Going away');
    await new Promise((resolve) => sockets.close(resolve));
  };
}

type Own = Pick<ReturnType<Graphql['getEnveloped']>, 'execute' | 'subscribe'>;

/** Yoga's own functions, which onSubscribe left in the root value. */
const own = (args: ExecutionArgs) => args.rootValue as Own;

function inScope<T>({ contextValue }: ExecutionArgs, run: () => T): T {
  const { viewer, actor } = contextValue as Context;
  return requestScope.run({ requestId: actor.requestId as string, userId: viewer?.user.id }, run);
}

/** The iterator, each step of which runs in the scope of this call: Yoga masks errors in it, and says in which request they were. */
function bound<T>(iterator: AsyncIterator<T>): AsyncIterableIterator<T> {
  const inThisScope = AsyncLocalStorage.snapshot();
  return {
    next: () => inThisScope(() => iterator.next()),
    return: async () => inThisScope(() => iterator.return?.()) ?? { done: true, value: undefined },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/** Yoga's hint for the status of an HTTP answer means nothing here. */
function withoutHttp(error: GraphQLError): GraphQLError {
  const { http: _status, ...extensions } = error.extensions;
  return new GraphQLError(error.message, {
    nodes: error.nodes,
    source: error.source,
    positions: error.positions,
    path: error.path,
    extensions,
  });
}

/** Its client may never close its own side. */
function refuseUpgrade(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () => socket.destroy());
}
