import type { Actor } from '../accounts/audit.ts';
import type { Viewer } from '../accounts/login.ts';
import type { Tokens } from '../accounts/tokens.ts';
import type { Bus } from '../bus.ts';
import type { Config } from '../config.ts';
import type { Db } from '../db.ts';
import type { Supervisor } from '../deployments/supervise.ts';
import type { JobKinds } from '../jobs/kinds.ts';

/** What the server has one of. */
export interface Services {
  config: Config;
  db: Db;
  bus: Bus;
  tokens: Tokens;
  /** Signs the links to files. */
  linkKey: Buffer;
  jobKinds: JobKinds;
  /** Of the inference host. */
  supervisor: Supervisor;
}

/** What a resolver sees: the services, and who asks. */
export interface Context extends Services {
  viewer: Viewer | null;
  /** Whether the whole request was there when the viewer was read. */
  complete: boolean;
  actor: Actor;
  /** The client's User-Agent, for the list of sessions. */
  client: string | null;
}

/** The viewer of a field whose scope needs a login. */
export function viewerOf({ viewer }: Context): Viewer {
  if (!viewer) throw new Error('A field without a login scope asked for its viewer.');
  return viewer;
}
