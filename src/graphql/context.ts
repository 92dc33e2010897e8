import type { ServerResponse } from 'node:http';
import type { Actor } from '../accounts/audit.ts';
import type { Throttle } from '../accounts/throttle.ts';
import type { Tokens } from '../accounts/tokens.ts';
import type { Claims, Viewer } from '../accounts/viewer.ts';
import type { Backups } from '../backup/schedule.ts';
import type { Bus } from '../bus.ts';
import type { Config } from '../config.ts';
import type { Db } from '../db.ts';
import type { Supervisor } from '../deployments/supervise.ts';
import type { JobKinds, JobServices } from '../jobs/kinds.ts';
import type { Log } from '../log.ts';
import type { ServerMetrics } from '../metrics.ts';
import type { GpuWatch } from '../system/gpus.ts';
import type { Tracing } from '../tracing.ts';

/** What the server has one of. */
export interface Services {
  config: Config;
  db: Db;
  bus: Bus;
  log: Log;
  progress: JobServices['progress'];
  metrics: ServerMetrics;
  tracing: Tracing | null;
  tokens: Tokens;
  /** Of logins. */
  throttle: Throttle;
  /** Signs the links to files. */
  linkKey: Buffer;
  /** Of the jobs. */
  gpus: GpuWatch;
  jobKinds: JobKinds;
  /** Of the inference host. */
  supervisor: Supervisor;
  backups: Backups;
}

/** What a resolver sees: the services, and who asks. */
export interface Context extends Services {
  viewer: Viewer | null;
  /** Of a valid token or key. Whether it still counts is to be read: GraphQL does it when the body is there, which may come much later. */
  claims: Claims | null;
  actor: Actor;
  /** The client's User-Agent, for the list of sessions. */
  client: string | null;
  /** The network that the request comes from (`clientAddress.ts`). */
  address: string;
  /** Over HTTP: the answer. It is destroyed when its client has gone. */
  res?: ServerResponse;
}

/** The viewer of a field that has a scope. */
export function viewerOf({ viewer }: Context): Viewer {
  if (!viewer) throw new Error('A field for everybody asked for its viewer.');
  return viewer;
}

/** The viewer of a field with the scope `login`. */
export function sessionOf({ viewer }: Context): Extract<Viewer, { by: 'SESSION' }> {
  if (viewer?.by !== 'SESSION') throw new Error('A field without the scope `login` asked for its session.');
  return viewer;
}
