/** What the pool and its threads say to each other. */
import type { Reading } from '../../vision/reading.ts';
import type { Feed, PictureTrial, RunResult, ServedSignature, WarmRun } from '../pool.ts';
import type { StagedFeed } from '../staging.ts';

/** Of a slot, in shared memory: whoever moves it away from STAGED decides whether the run takes place. */
export const slotStates = { staged: 0, running: 1, cancelled: 2 } as const;

export interface EngineThreadData {
  /** One state for each slot. */
  states: Int32Array;
  runningFile: string;
  /** Of this thread, from 0. */
  n: number;
}

export type ToEngineThread =
  | { type: 'load'; key: string; file: string; intraOpThreads: number }
  | { type: 'warm'; key: string; inputs: readonly Pick<Feed, 'name' | 'datatype' | 'shape'>[]; outputs: readonly string[] }
  | ({ type: 'try'; key: string } & PictureTrial)
  | { type: 'unload'; key: string }
  /** `memory` goes over, and comes back with the end of the run. */
  | {
      type: 'run';
      slot: number;
      memory: ArrayBuffer;
      key: string;
      feeds: StagedFeed[];
      outputs: readonly string[];
      readings?: readonly Reading[];
    }
  | { type: 'close' };

/** To `load`, `warm`, `try` and `unload`. */
export type EngineReply =
  | { type: 'loaded'; signature: ServedSignature }
  | ({ type: 'warmed' } & WarmRun)
  /** Why `predict` would answer with nonsense; null where it would not. */
  | { type: 'tried'; problem: string | null }
  | { type: 'unloaded' }
  | { type: 'refused'; message: string };

export type FromEngineThread =
  | EngineReply
  | { type: 'cancelled'; slot: number; memory: ArrayBuffer; ranMs: 0 }
  | { type: 'failed'; slot: number; memory: ArrayBuffer; message: string }
  | ({ type: 'done'; slot: number; memory: ArrayBuffer } & RunResult);
