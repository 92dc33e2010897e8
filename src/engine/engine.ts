/** What an engine is: it opens a model file as a session. One file for each engine's library has `open`; `engines.ts` is the table. */
import type { Datatype, Values } from './datatypes.ts';

/** An input or output as the model declares it. */
export interface Port {
  name: string;
  /** As the engine names it; `no tensor` for what is none. */
  type: string;
  /** Null where tensors of its type are not run: text, and what is no tensor. */
  datatype: Datatype | null;
  /** A string is a symbolic dimension, '' or '?' one without a name. Null for what is no tensor. */
  shape: readonly (number | string)[] | null;
}

export interface Signature {
  inputs: readonly Port[];
  outputs: readonly Port[];
}

export interface Tensor {
  datatype: Datatype;
  shape: readonly number[];
  /** Row-major; an array of the class that `datatypes` has for the type. */
  data: Values;
}

export interface OpenOptions {
  /** Threads of one run; the calling one is among them. */
  intraOpThreads: number;
  /** Without: the graph is computed as it stands in the file, as a reference. */
  optimized?: boolean;
}

export interface RunOutputs {
  outputs: Map<string, Tensor>;
  /** How long the engine's library computed, in nanoseconds. */
  runNs: number;
}

/** The inputs of a run by name. */
export type Feeds = ReadonlyMap<string, Tensor>;

/** Runs one after the other. They end at the first limit. */
export interface SeriesAsked {
  /** Of the first run; the others follow in turn. */
  firstFeed: number;
  /** Bounds the memory: 16 bytes each. */
  runsMax: number;
  /** Of `process.hrtime.bigint`: the run that computes then is the last. */
  untilNs: bigint;
  /** Runs that several sessions share: how many are taken, one value in memory that their threads share. The series ends when none is left. */
  share: { taken: BigInt64Array; total: number } | null;
}

/** A loaded model. An engine without threads of its own does one thing after the other, on the thread that calls it. */
export interface EngineSession {
  signature: Signature;
  /** Every output, or the named ones; those of no `datatype` are left out. Rejects with what the engine says. */
  run(inputs: Feeds, outputs?: readonly string[]): Promise<RunOutputs>;
  /**
   * Runs with every output, which are dropped: as little as the engine can lies between two. Gives when each began and ended, by turns, in
   * nanoseconds of `process.hrtime.bigint`. Rejects with what the engine says of the first run that fails.
   */
  series(feeds: readonly Feeds[], asked: SeriesAsked): Promise<BigInt64Array>;
  /** Frees its memory. */
  close(): Promise<void>;
}

/** Rejects with what the engine says of the file. */
export type Open = (file: string, options: OpenOptions) => Promise<EngineSession>;

export interface Engine {
  title: string;
  /** Of its library. */
  version: string;
  /** What its runs compute on. */
  device: 'cpu' | 'cuda';
  /** What it computes models of FP32 in, where that is not FP32. */
  computesIn?: 'FP16';
  /** Why it cannot be used on this machine; null when it can. `path` is the PATH that programs are looked for in. */
  missing(path: string): Promise<string | null>;
  /** Loads its library into this process, before a measurement begins. */
  load(): Promise<Open>;
}
