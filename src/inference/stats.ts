/** What is counted for each model version: behind `/stats` (NVIDIA's field names), behind `/metrics`. */

/** How requests end. */
export const outcomes = ['ok', 'refused', 'expired', 'cancelled', 'failed'] as const;
export type RequestOutcome = (typeof outcomes)[number];

/** Parts of the time of an answered request. */
export const parts = ['queue', 'preprocessing', 'compute', 'postprocessing'] as const;
export type Part = (typeof parts)[number];

export type Timing = Record<`${Part}Ms`, number>;

/** Takes the seconds of an answered request. */
export interface Observe {
  part(part: Part, seconds: number): void;
  request(seconds: number): void;
}

/** Steps of `deadlineShares`: the last one counts what took longer than the deadline. */
export const deadlineSteps = 20;

export class ModelStats {
  readonly ended: Record<RequestOutcome, number> = { ok: 0, refused: 0, expired: 0, cancelled: 0, failed: 0 };
  /** Of the requests that are `ok`. */
  readonly partMs: Record<Part, number> = { queue: 0, preprocessing: 0, compute: 0, postprocessing: 0 };
  /** Runs and their compute time, by the number of items in them. */
  readonly runs = new Map<number, { count: number; computeMs: number }>();
  /** Answered requests by how much of the deployment's deadline they took, in steps of a twentieth. */
  readonly deadlineShares: number[] = Array(deadlineSteps + 1).fill(0);
  inferences = 0;
  failedMs = 0;
  totalMs = 0;
  lastAt = 0;
  readonly #deadlineMs: number;
  readonly #observe: Observe;

  constructor(deadlineMs: number, observe: Observe) {
    this.#deadlineMs = deadlineMs;
    this.#observe = observe;
  }

  ran(rows: number, computeMs: number): void {
    const run = this.runs.get(rows) ?? { count: 0, computeMs: 0 };
    run.count += 1;
    run.computeMs += computeMs;
    this.runs.set(rows, run);
  }

  /** `requestMs`: from the head of the request to its answer. */
  answered(rows: number, timing: Timing, requestMs: number): void {
    this.ended.ok += 1;
    this.inferences += rows;
    this.lastAt = Date.now();
    for (const part of parts) {
      const ms = timing[`${part}Ms`];
      this.totalMs += ms;
      this.partMs[part] += ms;
      this.#observe.part(part, ms / 1000);
    }
    this.#observe.request(requestMs / 1000);
    const step = Math.min(deadlineSteps, Math.floor((deadlineSteps * requestMs) / this.#deadlineMs));
    this.deadlineShares[step] = (this.deadlineShares[step] ?? 0) + 1;
  }

  failed(ms: number): void {
    this.ended.failed += 1;
    this.failedMs += ms;
  }

  get executions(): number {
    return [...this.runs.values()].reduce((sum, { count }) => sum + count, 0);
  }
}

/** What a host has done since its start. */
export interface HostStats {
  queuedRequests: number;
  /** Runs that compute or are staged. */
  dispatchedRuns: number;
  models: ({
    name: string;
    version: number;
    inferences: number;
    /** Unix milliseconds of the last answer; null before the first. */
    lastAt: number | null;
    meanMs: Record<Part, number | null>;
    deadlineShares: readonly number[];
  } & Record<RequestOutcome, number>)[];
}

/** `meanMs`: of the answered requests; null before the first. */
export function summaryOf({
  ended,
  inferences,
  lastAt,
  partMs,
  deadlineShares,
}: ModelStats): Omit<HostStats['models'][number], 'name' | 'version'> {
  const meanMs = Object.fromEntries(parts.map((part) => [part, ended.ok > 0 ? partMs[part] / ended.ok : null]));
  return { ...ended, inferences, lastAt: lastAt || null, meanMs: meanMs as Record<Part, number | null>, deadlineShares };
}
