import type { AddressInfo } from 'node:net';
import { offerBootstrap } from './accounts/bootstrap.ts';
import { serveAuthSnapshot } from './accounts/serveAuthSnapshot.ts';
import { createThrottle } from './accounts/throttle.ts';
import { createTokens } from './accounts/tokens.ts';
import { startAlerts } from './alerts/watch.ts';
import { startBackups } from './backup/schedule.ts';
import { benchmarkJob } from './benchmark/job.ts';
import { createBus } from './bus.ts';
import type { Config } from './config.ts';
import { serveExport } from './datasets/export/serve.ts';
import { importDataset } from './datasets/import/kind.ts';
import { sweepDatasets } from './datasets/sweep.ts';
import { openDatabase, passingKind, startError } from './db.ts';
import { startSupervisor } from './deployments/supervise.ts';
import { ApiError } from './errors.ts';
import { readDocumentBody } from './graphql/body.ts';
import type { Services } from './graphql/context.ts';
import { serveGraphiql, serveGraphiqlFile, wantsGraphiql } from './graphql/graphiql.ts';
import { serveWebSocket } from './graphql/websocket.ts';
import { createGraphql } from './graphql/yoga.ts';
import { serveHome } from './home.ts';
import { createHttp, originCheck, type Route, sendJson } from './http.ts';
import { killLeftChildren } from './jobs/executor/leftChildren.ts';
import type { JobKinds } from './jobs/kinds.ts';
import { startScheduler } from './jobs/scheduler.ts';
import { serveTensorboard } from './jobs/tensorboard.ts';
import { loadTestJob } from './loadTest/job.ts';
import type { Log } from './log.ts';
import { createServerMetrics } from './metrics.ts';
import { importModel } from './models/import.ts';
import { serverOpenapi } from './openapi.ts';
import { servePackage } from './packages/serve.ts';
import { whyNotReady } from './ready.ts';
import { serveReport } from './reports/serve.ts';
import { keepReserve } from './reserve.ts';
import { retentionSweeps } from './retention/sweep.ts';
import { stopMs, within } from './stopTimes.ts';
import { serveFile } from './storage/files.ts';
import { readLinkKey } from './storage/links.ts';
import { startSweeper } from './storage/sweeper.ts';
import { createUploads } from './storage/tus.ts';
import { watchGpus } from './system/gpus.ts';
import { serviceNames } from './tracingSettings.ts';
import { compressJob } from './training/compress.ts';
import { convertJob } from './training/convert.ts';
import { evaluateJob } from './training/evaluate.ts';
import { trainJob } from './training/train.ts';
import { askJob } from './tuning/ask.ts';
import { tuneJob } from './tuning/coordinate.ts';
import { measureJob } from './tuning/measure.ts';
import { startSender } from './webhooks/sender.ts';

/** Every kind of job. */
const jobKindsOf = (services: Pick<Services, 'supervisor' | 'tokens'>): JobKinds => ({
  IMPORT_DATASET: importDataset,
  IMPORT_MODEL: importModel,
  TRAIN: trainJob,
  CONVERT: convertJob,
  COMPRESS: compressJob,
  EVALUATE: evaluateJob,
  BENCHMARK: benchmarkJob,
  LOAD_TEST: loadTestJob(services),
  TUNE: tuneJob,
  ASK: askJob,
  MEASURE: measureJob,
});

/** What a person can mend is one sentence with the setting's name. */
function listenError(error: NodeJS.ErrnoException, { host, port }: Pick<Config, 'host' | 'port'>): Error {
  const reasons: Record<string, string> = {
    EADDRINUSE: `Port ${port} of ${host} is in use. Stop what listens there, or set WHETSTONE_PORT to another port.`,
    EACCES: `Port ${port} needs more rights than this user has. Set WHETSTONE_PORT to a port from 1024 on.`,
    EADDRNOTAVAIL: `This machine has no address ${host}. Set WHETSTONE_HOST to one that it has, such as 127.0.0.1 or 0.0.0.0.`,
    ENOTFOUND: `There is no address with the name ${host}. Set WHETSTONE_HOST to an address, such as 127.0.0.1 or 0.0.0.0.`,
  };
  const reason = reasons[error.code ?? ''];
  return reason === undefined ? error : new Error(reason);
}

export interface RunningServer {
  /** Where it listens, such as http://127.0.0.1:8080. */
  url: string;
  services: Services;
  /** Paths of its routes. */
  paths: string[];
  /** Stops in the reverse order of the start, each part within its time (stopTimes.ts). */
  stop(): Promise<void>;
}

/** Starts everything in order; what was started is stopped again when a later step fails. */
export async function startServer(config: Config, log: Log, otherKinds?: JobKinds): Promise<RunningServer> {
  const undo: (() => void | Promise<void>)[] = [];
  const stop = async () => {
    for (const step of undo.splice(0).reverse()) {
      // The others must stop all the same: jobs that run, the database.
      try {
        await step();
      } catch (error) {
        log.error({ err: error }, 'a part of the server could not be stopped');
      }
    }
  };
  const inTime = (part: Exclude<keyof typeof stopMs, 'limit'>, ended: Promise<unknown>) =>
    within(stopMs[part], ended, () => log.warn({ part, ms: stopMs[part] }, 'a part of the server did not stop in time'));
  try {
    const tracing = config.tracing && (await import('./otlp.ts')).startTracing(config.tracing, serviceNames.server, log);
    undo.push(() => tracing?.stop(stopMs.tracing));
    const { db, close } = openDatabase(config.dataDir);
    undo.push(close);
    undo.push(keepReserve(config, log));
    await killLeftChildren(config.dataDir, log);
    const tokens = await createTokens(config);
    const supervisor = startSupervisor({ config, db, tokens }, log);
    let hostStopped: Promise<void> | undefined;
    const stopHost = () => {
      hostStopped ??= inTime('inferenceHost', supervisor.stop());
      return hostStopped;
    };
    undo.push(stopHost);
    const stopping = new AbortController();
    const metrics = createServerMetrics({ config, db, supervisor, stopping: stopping.signal });
    undo.push(metrics.stop);
    const kinds = otherKinds ?? jobKindsOf({ supervisor, tokens });
    const gpus = await watchGpus(config.childEnv.PATH ?? '', log);
    undo.push(() => gpus.stop());
    const services: Services = {
      config,
      db,
      bus: createBus(),
      log,
      progress: new Map(),
      metrics,
      tracing,
      tokens,
      throttle: createThrottle(db),
      linkKey: readLinkKey(config.dataDir),
      gpus,
      jobKinds: kinds,
      supervisor,
      backups: startBackups(config, log),
    };
    const tokenPath = offerBootstrap(db, config.dataDir);

    const stopSweeper = await startSweeper(services, log, retentionSweeps(services), { datasets: () => sweepDatasets(services) });
    undo.push(() => inTime('sweeper', stopSweeper()));
    const uploads = createUploads(services, log);
    undo.push(() => inTime('uploads', uploads.stop()));

    const scheduler = startScheduler(services, kinds, log, gpus);
    undo.push(() => scheduler.stop());
    undo.push(() => services.backups.stop());
    undo.push(startAlerts(services, log));
    undo.push(startSender(services, log));

    const graphql = createGraphql(log, stopping.signal);
    const read = ['GET', 'HEAD'];
    const routes: Route[] = [
      { path: '/', methods: read, handle: serveHome },
      {
        path: '/graphql',
        methods: ['GET', 'POST'],
        readsSession: true,
        handle: async (req, res, context) => {
          if (wantsGraphiql(req)) return serveGraphiql(req, res);
          await graphql(req, res, { ...context, body: await readDocumentBody(req) });
        },
      },
      { path: '/graphiql/', methods: read, handle: serveGraphiqlFile },
      { path: '/uploads', methods: ['GET', 'POST', 'OPTIONS'], handle: uploads.handle },
      { path: '/uploads/', methods: ['GET', 'HEAD', 'PATCH', 'DELETE', 'POST', 'OPTIONS'], handle: uploads.handle },
      { path: '/files/curves/', methods: read, handle: (req, res) => serveTensorboard(services, req, res) },
      { path: '/files/datasets/', methods: read, handle: (req, res) => serveExport(services, req, res) },
      { path: '/files/packages/', methods: read, handle: (req, res) => servePackage(services, req, res) },
      { path: '/files/reports/', methods: read, handle: (req, res) => serveReport(services, req, res) },
      { path: '/files/', methods: read, handle: (req, res) => serveFile(services, req, res) },
      {
        path: '/inference/accounts',
        methods: ['GET'],
        ownSecret: true,
        polled: true,
        handle: (req, res) => serveAuthSnapshot(services, req, res),
      },
      {
        path: '/metrics',
        methods: read,
        polled: true,
        handle: async (_req, res) => {
          const text = await metrics.registry.metrics();
          res.writeHead(200, { 'Content-Type': metrics.registry.contentType }).end(text);
        },
      },
      { path: '/openapi.json', methods: read, handle: (_req, res) => sendJson(res, 200, serverOpenapi) },
      { path: '/health', methods: read, polled: true, handle: (_req, res) => sendJson(res, 200, { status: 'ok' }) },
      {
        path: '/ready',
        methods: read,
        polled: true,
        handle: (_req, res) => {
          const reasons = whyNotReady({ config, db, stopping: stopping.signal });
          const inference = supervisor.health().state;
          if (reasons.length === 0) sendJson(res, 200, { status: 'ready', inference });
          else sendJson(res, 503, { status: 'not ready', inference, reasons });
        },
      },
    ];
    const originAllowed = originCheck(config, () => (http.address() as AddressInfo).port);
    const { http, connections } = createHttp(services, log, routes, originAllowed);
    const closeSockets = serveWebSocket(http, connections, graphql, services, log, originAllowed);

    await new Promise<void>((resolve, reject) => {
      http.once('error', (error) => reject(listenError(error, config))).listen(config.port, config.host, resolve);
    });
    undo.push(async () => {
      // Readiness goes first, streams end with an error that says why, sockets with 1001. The port stays open for /ready and
      // for reads while jobs write their checkpoints; who keeps a connection has to open another one.
      stopping.abort(new ApiError('UNAVAILABLE', 'The server is stopping. Subscribe again in a moment.', 1000));
      connections.closeAfterAnswers();
      await Promise.all([inTime('sockets', closeSockets()), scheduler.stop(), stopHost()]);
      const closed = new Promise((resolve) => http.close(resolve));
      http.closeIdleConnections();
      await inTime('lastAnswers', closed);
      connections.closeAll();
      await inTime('connections', closed);
    });

    const { port } = http.address() as AddressInfo;
    const url = `http://${config.host.includes(':') ? `[${config.host}]` : config.host}:${port}`;
    log.info({ url, dataDir: config.dataDir }, 'whetstone is ready');
    if (tokenPath) log.info({ tokenPath }, 'there is no user yet: create the first administrator with the bootstrap token in this file');
    return { url, services, paths: routes.map(({ path }) => path), stop };
  } catch (error) {
    await stop();
    throw passingKind(error) === 'FULL' ? startError(error, config.dataDir) : error;
  }
}
