import type { AddressInfo } from 'node:net';
import { sql } from 'drizzle-orm';
import { offerBootstrap } from './accounts/bootstrap.ts';
import { createTokens } from './accounts/tokens.ts';
import { createBus } from './bus.ts';
import type { Config } from './config.ts';
import { openDatabase } from './db.ts';
import { ApiError } from './errors.ts';
import type { Services } from './graphql/context.ts';
import { serveWebSocket } from './graphql/websocket.ts';
import { createGraphql } from './graphql/yoga.ts';
import { createHttp, originCheck, type Route, sendJson } from './http.ts';
import type { Log } from './log.ts';

export interface RunningServer {
  /** Where it listens, such as http://127.0.0.1:8080. */
  url: string;
  /** Stops in the reverse order of the start; answers that are under way get 10 seconds. */
  stop(): Promise<void>;
}

/** How long answers may take that were under way when the server was told to stop. */
const lastAnswersMs = 10_000;

/** Starts everything in order; what was started is stopped again when a later step fails. */
export async function startServer(config: Config, log: Log): Promise<RunningServer> {
  const undo: (() => void | Promise<void>)[] = [];
  const stop = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const { db, close } = openDatabase(config.dataDir);
    undo.push(close);
    const services: Services = { config, db, bus: createBus(), tokens: await createTokens(config) };
    const tokenPath = offerBootstrap(db, config.dataDir);

    const stopping = new AbortController();
    const graphql = createGraphql(log, stopping.signal);
    const ready = (): boolean => !stopping.signal.aborted && db.get(sql`SELECT 1`) !== undefined;
    const routes: Route[] = [
      { path: '/graphql', handle: (req, res, context) => graphql(req, res, context) as Promise<void> },
      { path: '/health', handle: (_req, res) => sendJson(res, 200, { status: 'ok' }) },
      {
        path: '/ready',
        handle: (_req, res) => (ready() ? sendJson(res, 200, { status: 'ready' }) : sendJson(res, 503, { status: 'not ready' })),
      },
    ];
    const originAllowed = originCheck(config, () => (http.address() as AddressInfo).port);
    const http = createHttp(services, log, routes, originAllowed);
    const closeSockets = serveWebSocket(http, graphql, services, log, originAllowed);

    await new Promise<void>((resolve, reject) => {
      http.once('error', reject).listen(config.port, config.host, resolve);
    });
    undo.push(async () => {
      // Readiness goes first, streams end with an error that says why, sockets with 1001; then nothing keeps the port open.
      stopping.abort(new ApiError('UNAVAILABLE', 'The server is stopping. Subscribe again in a moment.', 1000));
      await closeSockets();
      const closed = new Promise((resolve) => http.close(resolve));
      http.closeIdleConnections();
      const timer = setTimeout(() => http.closeAllConnections(), lastAnswersMs);
      await closed;
      clearTimeout(timer);
    });

    const { port } = http.address() as AddressInfo;
    const url = `http://${config.host.includes(':') ? `[${config.host}]` : config.host}:${port}`;
    log.info({ url, dataDir: config.dataDir }, 'whetstone is ready');
    if (tokenPath) log.info({ tokenPath }, 'there is no user yet: create the first administrator with the token in this file');
    return { url, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
