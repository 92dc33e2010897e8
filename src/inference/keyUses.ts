/** API keys that were used, for the server to note: each once a minute, however many requests it sends. */
const repeatMs = 60_000;
/** Keys that are remembered; with more of them, some are reported more often. */
const keysMax = 10_000;

export class KeyUses {
  readonly #reportedMs = new Map<string, number>();
  readonly #fresh = new Set<string>();

  /** `now`: Unix milliseconds. */
  note(secretHash: string, now: number): void {
    const last = this.#reportedMs.get(secretHash);
    if (last !== undefined && now >= last && now - last < repeatMs) return;
    if (this.#reportedMs.size >= keysMax) this.#reportedMs.clear();
    this.#reportedMs.set(secretHash, now);
    this.#fresh.add(secretHash);
  }

  /** Hashes of the secrets of at most `max` keys, each of which is given out once. */
  take(max: number): string[] {
    const taken = [...this.#fresh].slice(0, max);
    for (const secretHash of taken) this.#fresh.delete(secretHash);
    return taken;
  }
}
