/** What the server and the inference host that it supervises say to each other, over Node's IPC channel. */
import type { Config } from '../config.ts';
import type { HostEngine } from '../engine/hostEngine.ts';
import type { AuthSnapshot } from './auth.ts';
import type { ModelConfig } from './config.ts';
import type { Stuck } from './pool.ts';
import type { HostStats } from './stats.ts';

/**
 * Of Node, for a host (`npm run serve:inference` has them too). A body of 602 KB arrives in ten buffers outside of V8's heap, which V8 counts
 * against the limits of that heap: 16 MB, and a full collection at 16 MB more. So it did one every 50 ms, and P99 was 16.5 ms at 505 requests
 * a second. A young generation of 1 MB frees such buffers at its collections, and the old one may grow to five times what it holds: no full
 * collection in 6 s, and 2.1 ms at 1,130 (null model beside three others, one connection, Node 24.21, V8 13.6).
 */
export const nodeFlags = ['--max-semi-space-size=1', '--heap-growing-percent=400'];

export interface ChildSettings {
  logLevel: Config['logLevel'];
  /** A private one, with nothing in it. */
  folder: string;
  /** As in the file of a host that runs by itself. */
  host: { host: string; port: number; engine: HostEngine; permits?: number; memoryBytesMax?: number };
}

/** A name that is deployed, with the ids of its models, of which there are none while nothing of it can be served. */
export interface DeploymentRoute {
  name: string;
  ids: readonly string[];
}

export type Command =
  /** An id is what tells a model from every other, also from a later one with its name and version. */
  | { type: 'load'; id: string; model: ModelConfig }
  | { type: 'unload'; id: string }
  /** What takes the requests from now on. */
  | { type: 'serve'; deployments: DeploymentRoute[] }
  /** Only its answer counts. */
  | { type: 'ping' }
  /** Everything that was to be loaded was tried. */
  | { type: 'ready' }
  /** From now on these accounts decide. */
  | { type: 'auth'; snapshot: AuthSnapshot }
  | { type: 'stats' };

export type ToHost = Command & { n: number };

/** The first message. */
export interface Start {
  settings: ChildSettings;
  snapshot: AuthSnapshot;
}

export type FromHost =
  /** It could not be started; it ends. */
  | { type: 'failed'; message: string }
  | { type: 'listening'; url: string }
  /** It has to be ended. */
  | ({ type: 'stuck' } & Stuck)
  /**
   * To the command with this number. `refused`: why a model cannot be served; `diskFull`: later it may be. `stats`: to `stats`. `problem`: why it
   * cannot serve everything. `keysUsed`: API keys that were used meanwhile, by the hashes of their secrets.
   */
  | {
      type: 'answer';
      n: number;
      refused: string | null;
      diskFull: boolean;
      stats: HostStats | null;
      problem: string | null;
      keysUsed: string[];
    };
