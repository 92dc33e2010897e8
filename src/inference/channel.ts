/** What the server and the inference host that it supervises say to each other, over Node's IPC channel. */
import type { Config } from '../config.ts';
import type { AuthSnapshot } from './auth.ts';
import type { ModelConfig } from './config.ts';
import type { HostStats } from './stats.ts';

/**
 * Of Node, for a host (`npm run serve:inference` has them too). A body of 602 KB arrives in ten buffers outside of V8's heap: with a young
 * generation of the default 16 MB so many of them pile up between two scavenges that V8 does a full collection every 50 ms, which made P99 17 ms in
 * place of 3 (null model, one connection, Node 24.21).
 */
export const nodeFlags = ['--max-semi-space-size=2'];

export interface ChildSettings {
  logLevel: Config['logLevel'];
  /** A private one, with nothing in it. */
  folder: string;
  /** As in the file of a host that runs by itself. */
  host: { host: string; port: number; permits?: number; memoryBytesMax?: number };
}

export type Command =
  | { type: 'load'; model: ModelConfig }
  | { type: 'unload'; model: Pick<ModelConfig, 'name' | 'version'> }
  /** The names that are deployed. */
  | { type: 'know'; deployments: string[] }
  /** Everything that was to be loaded is. */
  | { type: 'ready' }
  /** From now on these accounts decide. */
  | { type: 'auth'; snapshot: AuthSnapshot }
  | { type: 'stats' };

export type ToHost = Command & { id: number };

/** The first message. */
export interface Start {
  settings: ChildSettings;
  snapshot: AuthSnapshot;
}

export type FromHost =
  /** It could not be started; it ends. */
  | { type: 'failed'; message: string }
  | { type: 'listening'; url: string }
  /** To the command with this id. `refused`: why a model cannot be served. `stats`: to `stats`. */
  | { type: 'answer'; id: number; refused: string | null; stats: HostStats | null };
