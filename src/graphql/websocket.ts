import type { Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { type ExecutionArgs, GraphQLError } from 'graphql';
import { handleProtocols } from 'graphql-ws';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';
import { authenticate, type Viewer } from '../accounts/login.ts';
import { ApiError } from '../errors.ts';
import { type Log, requestScope } from '../log.ts';
import { watchAccess } from './access.ts';
import type { Context, Services } from './context.ts';
import { type Graphql, publicError } from './yoga.ts';

const messageBytesMax = 1024 * 1024;
const socketsMax = 1000;
const operationsPerSocketMax = 100;

interface Connection {
  [key: PropertyKey]: unknown;
  /** The token of connection_init: who asks is read again for each operation. */
  token?: string;
  stop?: () => void;
}

/**
 * GraphQL over WebSocket (graphql-transport-ws) at /graphql. A document that does not parse answers only its own operation. The
 * socket is closed with 4403 when the access token is invalid or the viewer's access ends. Returns the function that closes all
 * sockets (1001).
 */
export function serveWebSocket(
  http: Server,
  graphql: Graphql,
  services: Services,
  log: Log,
  originAllowed: (origin: string | undefined) => boolean,
) {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: messageBytesMax, handleProtocols });

  http.on('upgrade', (request, socket, head) => {
    socket.on('error', () => socket.destroy());
    if (new URL(request.url ?? '/', 'http://localhost').pathname !== '/graphql') return refuse(socket, '404 Not Found');
    if (!originAllowed(request.headers.origin)) return refuse(socket, '403 Forbidden');
    if (sockets.clients.size >= socketsMax) return refuse(socket, '503 Service Unavailable');
    sockets.handleUpgrade(request, socket, head, (client) => sockets.emit('connection', client, request));
  });

  const masked = (error: unknown): GraphQLError => withoutHttp(publicError(error, log));

  const server = useServer<Record<string, unknown>, Connection>(
    {
      async onConnect(ctx) {
        const params = ctx.connectionParams ?? {};
        const header = params.authorization ?? params.Authorization;
        if (header === undefined) return true;
        const token = /^Bearer (.+)$/i.exec(String(header))?.[1] ?? '';
        const viewer = await authenticate(services, token).catch(() => null);
        if (!viewer) return false;
        const { signal, stop } = watchAccess(services.bus, viewer);
        const { socket } = ctx.extra;
        signal.addEventListener('abort', () => socket.close(4403, (signal.reason as ApiError).message));
        Object.assign(ctx.extra, { token, stop });
        return true;
      },
      onDisconnect(ctx) {
        ctx.extra.stop?.();
      },
      onSubscribe(ctx, _id, params) {
        const requestId = crypto.randomUUID();
        return requestScope.run({ requestId }, async () => {
          if (Object.keys(ctx.subscriptions).length > operationsPerSocketMax) {
            return [masked(new ApiError('LIMIT', `One socket carries at most ${operationsPerSocketMax} operations at a time.`))];
          }
          try {
            const { token, request } = ctx.extra;
            const viewer: Viewer | null = token ? await authenticate(services, token) : null;
            const actor = { actorId: viewer?.user.id ?? null, requestId };
            const context: Context = { ...services, viewer, actor, client: request.headers['user-agent'] ?? null };
            const enveloped = graphql.getEnveloped({ ...context, params } as never);
            const document = enveloped.parse(params.query);
            const errors = enveloped.validate(enveloped.schema, document);
            if (errors.length > 0) return errors.map(masked);
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
      execute: (args) => inScope(args, 'execute'),
      subscribe: (args) => inScope(args, 'subscribe'),
      onNext: (_ctx, _id, _payload, _args, result) => ({ ...result, errors: result.errors?.map((e) => withoutHttp(e as GraphQLError)) }),
    },
    sockets as never,
  );

  return () => server.dispose();
}

/** Runs Yoga's own function, which onSubscribe left in the root value, inside the scope of its request. */
function inScope(args: ExecutionArgs, run: 'execute' | 'subscribe'): never {
  const requestId = (args.contextValue as Context).actor.requestId as string;
  return requestScope.run({ requestId }, () => (args.rootValue as Record<typeof run, (a: ExecutionArgs) => never>)[run](args));
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

function refuse(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}
