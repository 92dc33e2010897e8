/**
 * Being a Node child of the protocol (`protocol.ts`), as `whetstone_trainer/events.py` is for Python. Two threads: the job's own
 * counts its steps; `childthread.ts` owns stdin and fd 3, so that heartbeats go out, commands come in and an orphan ends itself
 * also while the job's thread is inside a native call.
 */
import { once } from 'node:events';
import { availableParallelism, cpus } from 'node:os';
import { Worker } from 'node:worker_threads';
import { isDiskFull } from '../diskFull.ts';
import {
  EVENT_LINE_BYTES_MAX,
  type Event,
  exitCodes,
  type Phase,
  PROTOCOL_VERSION,
  SpecLine,
  type TrainerErrorCode,
  trainerErrorCodes,
} from './protocol.ts';
import type { Spec } from './specs.ts';

/** An event without its envelope, which the thread adds. */
export type Said = Event extends infer E ? (E extends Event ? Omit<E, 'v' | 'job' | 'attempt' | 'n' | 't'> : never) : never;

type ArtifactSaid = Extract<Said, { type: 'artifact' }>;

export type ToChildThread = { envelope: Pick<SpecLine, 'v' | 'job' | 'attempt'> } | { say: Said } | { end: true };

/** Places in the memory that both threads share. */
export const stateIndex = { step: 0, stop: 1 } as const;

/** Values of the shared `stop`. */
export const stops = ['none', 'cancel', 'suspend'] as const;

/** What the thread begins with. It gets these as values: the modules of the protocol would take it 0.3 s to load. */
export interface ChildThreadData {
  state: Int32Array;
  stateIndex: typeof stateIndex;
  stops: typeof stops;
}

const tickMs = 250;

/** An expected failure: what is wrong and what to do, without absolute paths. */
export class ChildError extends Error {
  readonly code: TrainerErrorCode;
  readonly details: string[];

  constructor(code: TrainerErrorCode, message: string, details: string[] = []) {
    super(message);
    this.name = 'ChildError';
    this.code = code;
    this.details = details;
  }
}

/** The server told the job to stop, and it did. */
export class Stopped extends Error {
  readonly status: 'cancelled' | 'suspended';

  constructor(status: Stopped['status']) {
    super(`The job was ${status}.`);
    this.status = status;
  }
}

/** What the code of a job sees of its attempt. */
export interface ChildAttempt<S extends Spec = Spec> {
  readonly spec: S;
  readonly workDir: string;
  /** A new phase of `total` units begins. */
  phase(phase: Phase, total: number | null): void;
  /** `count` units of the phase are done; says so at most 4 times a second, with the metrics of the phase that were given last. */
  advance(count?: number, metrics?: Record<string, number>): void;
  /** Throws Stopped after a command. To be called where nothing is lost by stopping. */
  checkStop(): void;
  /** Whether there was a command. */
  stopping(): boolean;
  warn(code: string, message: string): void;
  /** A finished file of the work folder. */
  artifact(kind: ArtifactSaid['kind'], file: MadeFile, meta?: ArtifactSaid['meta']): void;
  /** A finished file of the work folder from which a later attempt continues, with so many complete units in it. */
  checkpoint(file: MadeFile, units: number): void;
}

export interface MadeFile {
  name: string;
  sha256: string;
  sizeBytes: number;
}

export function createChildAttempt<S extends Spec>(
  spec: S,
  workDir: string,
  state: Int32Array,
  say: (event: Said) => void,
): ChildAttempt<S> {
  let current: { phase: Phase; total: number | null; done: number; startedAt: number; metrics: Record<string, number> } = {
    phase: 'start',
    total: null,
    done: 0,
    startedAt: 0,
    metrics: {},
  };
  let tickedAt = Number.NEGATIVE_INFINITY;
  return {
    spec,
    workDir,
    phase(phase, total) {
      current = { phase, total, done: 0, startedAt: performance.now(), metrics: {} };
      Atomics.add(state, stateIndex.step, 1);
      say({ type: 'phase', phase, total });
    },
    advance(count = 1, metrics = current.metrics) {
      current.metrics = metrics;
      const step = Atomics.add(state, stateIndex.step, count) + count;
      current.done += count;
      const now = performance.now();
      if (now - tickedAt < tickMs) return;
      tickedAt = now;
      const { phase, total, done, startedAt } = current;
      const perMs = done / Math.max(1, now - startedAt);
      const etaMs = total === null ? null : Math.round(Math.max(0, total - done) / perMs);
      say({ type: 'batch', phase, step, done, total, epoch: null, epochs: null, metrics, itemsPerSecond: perMs * 1000, etaMs });
    },
    checkStop() {
      const stop = stops[Atomics.load(state, stateIndex.stop)];
      if (stop === 'cancel') throw new Stopped('cancelled');
      if (stop === 'suspend') throw new Stopped('suspended');
    },
    stopping: () => Atomics.load(state, stateIndex.stop) !== 0,
    warn: (code, message) => say({ type: 'warning', code, message: message.slice(0, 4000) }),
    artifact: (kind, { name, sha256, sizeBytes }, meta = {}) => say({ type: 'artifact', kind, file: name, sha256, sizeBytes, meta }),
    checkpoint: ({ name, sha256, sizeBytes }, units) => say({ type: 'checkpoint', file: name, sha256, sizeBytes, epoch: units, batch: 0 }),
  };
}

/** The last event of a job that threw `error`, and the exit code that follows it. */
export function lastEventOf(error: unknown): { event: Said; exitCode: number } {
  if (error instanceof Stopped) return { event: { type: 'done', status: error.status, result: {} }, exitCode: exitCodes.STOPPED };
  const known = knownError(error);
  const details = known.details.slice(0, 50).map((detail) => detail.slice(0, 500));
  while (Buffer.byteLength(JSON.stringify(details)) > EVENT_LINE_BYTES_MAX / 2) details.pop();
  const event = {
    type: 'error',
    code: known.code,
    message: known.message.slice(0, 4000),
    retryable: trainerErrorCodes[known.code] === exitCodes.IO,
    hint: null,
    details,
  } as const;
  return { event, exitCode: trainerErrorCodes[known.code] };
}

function knownError(error: unknown): ChildError {
  if (error instanceof ChildError) return error;
  const { code } = error as NodeJS.ErrnoException;
  if (isDiskFull(error)) return new ChildError('DISK_FULL', 'The disk is full: free some space.');
  if (code === 'EIO' || code === 'EROFS') return new ChildError('IO', `The disk cannot be written or read (${code}).`);
  if (code === 'EFBIG') return new ChildError('LIMIT_EXCEEDED', 'The job would write a larger file than it may.');
  return new ChildError('INTERNAL', 'The job failed by a defect of Whetstone. Its log tells more.');
}

/**
 * Runs `work` as the attempt that stdin specifies, tells its end, and exits. `versions` are those of the packages that do the work,
 * by name; what `work` returns is the result of `done`.
 */
export async function runAsChild<K extends Spec['kind']>(
  kind: K,
  versions: Record<string, string>,
  work: (child: ChildAttempt<Extract<Spec, { kind: K }>>) => Promise<Extract<Said, { type: 'done' }>['result']>,
): Promise<never> {
  const state = new Int32Array(new SharedArrayBuffer(8));
  const thread = new Worker(new URL('./childthread.ts', import.meta.url), {
    workerData: { state, stateIndex, stops } satisfies ChildThreadData,
  });
  const threadEnded = new Promise((resolve) => thread.once('exit', resolve));
  const post = (message: ToChildThread) => thread.postMessage(message);
  const say = (event: Said) => post({ say: event });
  const exit = async (exitCode: number): Promise<never> => {
    post({ end: true });
    await threadEnded;
    process.exit(exitCode);
  };
  const fail = (error: unknown): Promise<never> => {
    if (!(error instanceof Stopped) && !(error instanceof ChildError)) console.error(error);
    const { event, exitCode } = lastEventOf(error);
    say(event);
    return exit(exitCode);
  };
  // Once: an error while the end is reported (a log that nobody reads) must not report it again. Node then ends the process.
  process.once('uncaughtException', fail);

  const [line] = (await once(thread, 'message')) as [string];
  const parsed = SpecLine.safeParse(JSON.parse(line));
  if (!parsed.success || parsed.data.spec.kind !== kind) {
    // Without an envelope there is no event to say it with.
    console.error(parsed.success ? `This program does not run ${parsed.data.spec.kind}.` : parsed.error.message);
    return exit(exitCodes.SPECIFICATION);
  }
  const { job, attempt, workDir } = parsed.data;
  const spec = parsed.data.spec as Extract<Spec, { kind: K }>;
  post({ envelope: { v: PROTOCOL_VERSION, job, attempt } });
  say({
    type: 'hello',
    pid: process.pid,
    device: { type: 'cpu', name: (cpus()[0]?.model ?? process.arch).slice(0, 200), memoryBytes: null },
    versions: { node: process.versions.node, ...versions },
    environment: {
      platform: process.platform,
      arch: process.arch,
      cores: availableParallelism(),
      cpuThreads: spec.cpuThreads,
      codeVersion: spec.codeVersion,
    },
    resumed: null,
  });
  try {
    const result = await work(createChildAttempt(spec, workDir, state, say));
    say({ type: 'done', status: 'ok', result });
  } catch (error) {
    return fail(error);
  }
  return exit(exitCodes.OK);
}
