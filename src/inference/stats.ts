/** What is counted for each model version: behind `/stats` (NVIDIA's field names), behind `/metrics`. */

/** How requests end. */
export const outcomes = ['ok', 'refused', 'expired', 'cancelled', 'failed'] as const;
export type Outcome = (typeof outcomes)[number];

/** Parts of the time of an answered request. */
export const parts = ['queue', 'preprocessing', 'compute', 'postprocessing'] as const;
export type Part = (typeof parts)[number];

/** Upper bounds in seconds. */
export const bounds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];

export class Histogram {
  /** One for each bound, and what is above the last. */
  readonly counts = new Array<number>(bounds.length + 1).fill(0);
  sumMs = 0;
  count = 0;

  observe(ms: number): void {
    const above = bounds.filter((bound) => ms > 1000 * bound).length;
    this.counts[above] = (this.counts[above] as number) + 1;
    this.sumMs += ms;
    this.count += 1;
  }
}

export interface Timing {
  queueMs: number;
  preprocessingMs: number;
  computeMs: number;
  postprocessingMs: number;
}

export class ModelStats {
  readonly ended: Record<Outcome, number> = { ok: 0, refused: 0, expired: 0, cancelled: 0, failed: 0 };
  readonly parts: Record<Part, Histogram> = {
    queue: new Histogram(),
    preprocessing: new Histogram(),
    compute: new Histogram(),
    postprocessing: new Histogram(),
  };
  /** Runs and their compute time, by the number of items in them. */
  readonly runs = new Map<number, { count: number; computeMs: number }>();
  inferences = 0;
  failedMs = 0;
  totalMs = 0;
  lastAt = 0;

  ran(rows: number, computeMs: number): void {
    const run = this.runs.get(rows) ?? { count: 0, computeMs: 0 };
    run.count += 1;
    run.computeMs += computeMs;
    this.runs.set(rows, run);
  }

  answered(rows: number, { queueMs, preprocessingMs, computeMs, postprocessingMs }: Timing): void {
    this.ended.ok += 1;
    this.inferences += rows;
    this.lastAt = Date.now();
    this.totalMs += queueMs + preprocessingMs + computeMs + postprocessingMs;
    this.parts.queue.observe(queueMs);
    this.parts.preprocessing.observe(preprocessingMs);
    this.parts.compute.observe(computeMs);
    this.parts.postprocessing.observe(postprocessingMs);
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
  models: ({ name: string; version: number; inferences: number; meanMs: Record<Part, number | null> } & Record<Outcome, number>)[];
}

/** `meanMs`: of the answered requests; null before the first. */
export function summaryOf({ ended, inferences, parts: of }: ModelStats): Omit<HostStats['models'][number], 'name' | 'version'> {
  const meanMs = Object.fromEntries(parts.map((part) => [part, of[part].count > 0 ? of[part].sumMs / of[part].count : null]));
  return { ...ended, inferences, meanMs: meanMs as Record<Part, number | null> };
}
