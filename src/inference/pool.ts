/** What runs models. Everything above it (queue, protocol) knows only this, so that an engine with threads of its own can take the place of `threads/`. */

import type { Datatype } from '../engine/datatypes.ts';
import type { Found, Image, Reading } from '../vision/reading.ts';

/** An input or output that can be served: a string is a symbolic dimension. */
export interface ServedPort {
  name: string;
  datatype: Datatype;
  shape: readonly (number | string)[];
}

export interface ServedSignature {
  inputs: readonly ServedPort[];
  outputs: readonly ServedPort[];
}

/** An input of one run. Its bytes (little-endian, row-major) are the pieces one after the other. */
export interface Feed {
  name: string;
  datatype: Datatype;
  shape: readonly number[];
  pieces: readonly Uint8Array[];
  /** The pieces are no tensor yet but an upright image, height × width × RGB, of which the run makes one first. */
  image?: Image;
}

export interface OutputTensor {
  name: string;
  datatype: Datatype;
  shape: readonly number[];
  data: Uint8Array;
}

/** Times are of `nowMs`: the run began, its tensors were there, its outputs were there, they were read. */
export interface RunResult {
  outputs: OutputTensor[];
  found: Found | null;
  startedMs: number;
  preparedMs: number;
  endedMs: number;
  readMs: number;
}

export type RunEnd = ({ state: 'done' } & RunResult) | { state: 'failed'; message: string } | { state: 'cancelled' };

export interface Run {
  /** Never rejects. */
  ended: Promise<RunEnd>;
  /** A run that has not begun is dropped; one that has begun runs to its end. */
  cancel(): void;
}

/** Zeros to run a new model on, for so many items. */
export interface WarmUp {
  rows: number;
  inputs: readonly Pick<Feed, 'name' | 'datatype' | 'shape'>[];
}

/** A picture to run a new model on, and how what it says of it is read. */
export interface Trial {
  feed: Pick<Feed, 'name' | 'datatype' | 'shape'>;
  outputs: readonly string[];
  reading: Reading;
}

export interface ModelFile {
  /** Under which it is run. */
  key: string;
  file: string;
  intraOpThreads: number;
  warmUps(signature: ServedSignature): WarmUp[];
  /** Of `predict`; null where the model has none. */
  trial(signature: ServedSignature): Trial | null;
}

export interface WarmRun {
  runMs: number;
  outputs: Pick<OutputTensor, 'name' | 'shape'>[];
}

export interface LoadedModel {
  signature: ServedSignature;
  /** Of the warm-up; the first runs are not in it: they take memory and build kernels. */
  runs: (WarmRun & { rows: number })[];
}

/** A model whose run or load does not end. JavaScript cannot stop it: only the end of the process does. */
export interface Stuck {
  key: string;
  message: string;
}

export interface Pool {
  /**
   * Loads a model and runs it on zeros and on a picture, on one thread after the other. A thread that loads gets no runs; another takes
   * them. Throws an Error with what the engine says, or what is wrong with what the model says of the picture.
   */
  load(model: ModelFile): Promise<LoadedModel>;
  /** Frees a model's memory when the runs that were started before have ended. */
  unload(key: string): Promise<void>;
  /** Whether `start` can be called: IDLE, a run would begin at once; STAGED, it would be ready when the one before it ends. */
  room(): 'IDLE' | 'STAGED' | null;
  /** Calls `listener` when there is room again for another reason than the end of a run. */
  onRoom(listener: () => void): void;
  /**
   * Copies the feeds and runs the model for the named outputs, and reads those of an image. Only where there is room. A run that computes
   * for longer than `msMax` is overdue.
   */
  start(key: string, feeds: readonly Feed[], outputs: readonly string[], msMax: number, reading?: Reading): Run;
  /** Every run that computes is overdue: nothing else can be computed. */
  stalled(): boolean;
  /** Resolves when a run is overdue by 10 s, or a thread has loaded a model for 120 s. */
  stuck: Promise<Stuck>;
  /** Ends the threads when their runs have ended. */
  close(): Promise<void>;
}
