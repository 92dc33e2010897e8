/** What runs models. Everything above it (queue, protocol) knows only this, so that an engine with threads of its own can take the place of `threads/`. */

import type { Datatype } from '../engine/datatypes.ts';
import type { Port } from '../engine/engine.ts';
import type { ModelEngine } from '../engine/hostEngine.ts';
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
  /** The pieces are no tensors yet but upright images, height × width × RGB, of which the run makes one tensor first: an item of each. */
  images?: readonly Image[];
}

/** Throws where tensors of its type are not run. */
export function servable({ name, type, datatype, shape }: Port): ServedPort {
  if (!datatype || !shape) throw new Error(`${name} is ${shape ? `of type ${type}` : type}, which cannot be served.`);
  return { name, datatype, shape };
}

export interface OutputTensor {
  name: string;
  datatype: Datatype;
  shape: readonly number[];
  data: Uint8Array;
}

/** Times are of `nowMs`: the run began, its tensors were there, its outputs were there, they were read. */
export interface RunResult {
  /** None where they were read. */
  outputs: OutputTensor[];
  /** For each image; null where the outputs were not to be read, or cannot be divided among the images. */
  found: Found[] | null;
  startedMs: number;
  preparedMs: number;
  endedMs: number;
  readMs: number;
}

export type RunEnd = ({ state: 'done' } & RunResult) | { state: 'failed'; message: string } | Cancelled;

export interface Cancelled {
  state: 'cancelled';
  /** For how long it had computed; 0 where it had not begun. */
  ranMs: number;
}

export interface Run {
  /** Bytes of the feeds that it has copied; 0 where it reads them where they lie until it has ended. */
  copiedBytes: number;
  /** Never rejects. */
  ended: Promise<RunEnd>;
  /** A run that has not begun is dropped. One that has begun ends at once where the engine can stop it, otherwise by itself. */
  cancel(): void;
}

/** Zeros to run a new model on, for so many items. */
export interface WarmUp {
  rows: number;
  inputs: readonly Pick<Feed, 'name' | 'datatype' | 'shape'>[];
}

/** A picture to run a new model on, and how what it says of it is read. */
export interface PictureTrial {
  feed: Pick<Feed, 'name' | 'datatype' | 'shape'>;
  outputs: readonly string[];
  reading: Reading;
}

export interface ModelFile {
  /** Under which it is run. */
  key: string;
  file: string;
  /** AUTO: that of the host. */
  engine: ModelEngine;
  intraOpThreads: number;
  warmUps(signature: ServedSignature): WarmUp[];
  /** Of `predict`; null where the model has none. */
  trial(signature: ServedSignature): PictureTrial | null;
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

/** Of the runs for each permit, one computes and one is ready behind it. */
export const givenMax = 2;
/** The first does not count. */
export const warmUpRounds = 4;

export interface PoolSettings {
  /** Runs that compute at the same time. */
  permits: number;
  /** Sets of buffers: runs between dispatch and their end. */
  workers: number;
  /** A private folder, for `runningFile.ts`. */
  folder: string;
  /** Longest that one model may load and warm up. */
  loadSecondsMax: number;
}

/** A model whose run or load does not end and cannot be stopped: only the end of the process does. */
export interface Stuck {
  key: string;
  message: string;
}

export interface Pool {
  /** Sessions that it has of each model. */
  copies: number;
  /**
   * Loads a model and runs it on zeros and on a picture, once for each copy. Runs of other models continue meanwhile. Throws an Error with what the engine says, or what is wrong with what the model says of the picture.
   */
  load(model: ModelFile): Promise<LoadedModel>;
  /** Frees a model's memory when the runs that were started before have ended. */
  unload(key: string): Promise<void>;
  /** Whether `start` can be called: IDLE, a run would begin at once; STAGED, it would be ready when the one before it ends. */
  room(): 'IDLE' | 'STAGED' | null;
  /** Calls `listener` when there is room again for another reason than the end of a run. */
  onRoom(listener: () => void): void;
  /**
   * Runs the model for the named outputs, and reads them for each image as its reading says. Only where there is room. A run that computes for
   * longer than `msMax` is overdue.
   */
  start(key: string, feeds: readonly Feed[], outputs: readonly string[], msMax: number, readings?: readonly Reading[]): Run;
  /** Permits that are held by overdue runs. */
  overdue(): number;
  /** Every run that computes is overdue: nothing else can be computed. */
  stalled(): boolean;
  /** Resolves when a run is overdue by some seconds, or a model has been loaded for `loadSecondsMax` and cannot be stopped. */
  stuck: Promise<Stuck>;
  /** Ends the threads when their runs have ended. */
  close(): Promise<void>;
}
