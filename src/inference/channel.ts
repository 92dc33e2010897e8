/** What the server and the inference host that it supervises say to each other, over Node's IPC channel. */
import type { Config } from '../config.ts';
import type { AuthSnapshot } from './auth.ts';
import type { ModelConfig } from './config.ts';
import type { HostStats } from './stats.ts';

export interface ChildSettings {
  logLevel: Config['logLevel'];
  /** A private one, with nothing in it. */
  folder: string;
  /** As in the file of a host that runs by itself. */
  host: { host: string; port: number };
}

export type Command =
  | { type: 'load'; model: ModelConfig }
  | { type: 'unload'; model: Pick<ModelConfig, 'name' | 'version'> }
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
