/** How long a model's runs take, by the number of items that are computed together. */

/** More items in a run, or more threads, have to make an item this much cheaper. */
export const worthwhile = 0.9;

interface Observed {
  mean: number;
  deviation: number;
  fastest: number;
}

export class RunTimes {
  readonly #byRows = new Map<number, Observed>();

  /** Mean and mean deviation are moving averages with the weights of TCP's round-trip estimator (Jacobson 1988). */
  observe(rows: number, ms: number): void {
    const known = this.#byRows.get(rows);
    if (!known) {
      this.#byRows.set(rows, { mean: ms, deviation: 0, fastest: ms });
      return;
    }
    const error = ms - known.mean;
    known.mean += error / 8;
    known.deviation += (Math.abs(error) - known.deviation) / 4;
    known.fastest = Math.min(known.fastest, ms);
  }

  mean(rows: number): number {
    return this.#at(rows, ({ mean }) => mean);
  }

  /** What nearly every run stays below. */
  cautious(rows: number): number {
    return this.#at(rows, ({ mean, deviation }) => mean + 4 * deviation);
  }

  /** What no run was faster than. */
  fastest(rows: number): number {
    return this.#at(rows, ({ fastest }) => fastest);
  }

  /** A number of items that was never seen is taken to cost in proportion to the nearest that was; nothing is known: nothing is costed. */
  #at(rows: number, value: (observed: Observed) => number): number {
    const exact = this.#byRows.get(rows);
    if (exact) return value(exact);
    let nearest: number | undefined;
    for (const seen of this.#byRows.keys()) {
      if (nearest === undefined || Math.abs(seen - rows) < Math.abs(nearest - rows)) nearest = seen;
    }
    return nearest === undefined ? 0 : (value(this.#byRows.get(nearest) as Observed) * rows) / nearest;
  }
}
