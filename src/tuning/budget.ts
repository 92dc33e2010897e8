/** What ends a study before it has made all its trials. Part of the specification of its TUNE job: one that extends the study has none. */
import { z } from 'zod';
import { type ObjectiveName, objectives } from './objectives.ts';
import type { Ranked } from './ranking.ts';

export const Budget = z.object({
  /** Hours after the start of the job in which a generation may begin. */
  hoursMax: z.number().gt(0).max(100_000).nullish(),
  /** Value of the first objective that is good enough. */
  target: z.number().nullish(),
});
export type Budget = z.infer<typeof Budget>;

/** Asked when a generation has ended. `best` is the best trial by the first objective. */
export function isSpent({ hoursMax, target }: Budget, first: ObjectiveName, best: Ranked | undefined, elapsedMs: number): boolean {
  const value = best?.values?.[0];
  const isReached =
    target != null && value !== undefined && (objectives[first].direction === 'MAXIMIZE' ? value >= target : value <= target);
  return isReached || (hoursMax != null && elapsedMs >= hoursMax * 3_600_000);
}
