import { createHash } from 'node:crypto';
import type { Split } from './layout.ts';

export interface Shares {
  val: number;
  test: number;
}

/**
 * Splits by seed, in the order of `images`: of each class these shares, rounded, go to val and test, with at least one image in
 * each while the class has enough. Which ones is decided by SHA-256 of (seed, file hash), so that it depends neither on names nor
 * on the order, and mostly stays when images are added; the same bytes are never in two splits. Images of a detection dataset, which
 * have no class of their own, are divided as if they were one class.
 */
export function splitBySeed(images: readonly { sha256: string; label: number | null }[], seed: number, shares: Shares): Split[] {
  const classes = new Map<number, Set<string>>();
  for (const { label, sha256 } of images) {
    const members = classes.get(label ?? 0) ?? new Set();
    classes.set(label ?? 0, members.add(sha256));
  }
  const splitOf = new Map<string, Split>();
  for (const [, members] of [...classes].sort(([a], [b]) => a - b)) {
    // What a class before this one holds too is settled already.
    const ranked = [...members]
      .filter((sha256) => !splitOf.has(sha256))
      .map((sha256) => ({ sha256, rank: createHash('sha256').update(`${seed}:${sha256}`).digest('hex') }))
      .sort((a, b) => (a.rank < b.rank ? -1 : 1));
    const val = share(ranked.length, shares.val, ranked.length - 1);
    const test = share(ranked.length, shares.test, ranked.length - 1 - val);
    ranked.forEach(({ sha256 }, i) => {
      splitOf.set(sha256, i < val ? 'val' : i < val + test ? 'test' : 'train');
    });
  }
  return images.map(({ sha256 }) => splitOf.get(sha256) as Split);
}

/** `share` of `count`, rounded, at least 1 and at most `max`. */
function share(count: number, share: number, max: number): number {
  if (share === 0) return 0;
  return Math.max(0, Math.min(max, Math.max(1, Math.round(count * share))));
}
