/** Which configurations deserve more rounds: those that may be the best one, until the rounds tell. */
import type { BenchmarkSpec } from '../jobs/specs.ts';
import type { PlannedCell } from './cells.ts';
import { pairedRatio, perItem, type Rounds, type Statistic } from './pairing.ts';

type Target = BenchmarkSpec['target'];

/** What of a round tells how a configuration serves its target; memory is no matter of rounds. */
const statistics: Record<Target, Statistic | null> = { LATENCY: 'p95', THROUGHPUT: 'mean', MEMORY: null };

/** A configuration that takes so much longer than the best one is beaten. */
const beatenRatio = 1.3;
/** One that takes so much longer is another one, however wide the interval. */
const otherRatio = 1.03;

export type Contender = Pick<PlannedCell, 'n' | 'model' | 'engine' | 'batchSize' | 'intraOpThreads' | 'instances'> & { rounds: Rounds };

/** Numbers of the configurations that the rounds have beaten, and of those that more rounds would tell apart. */
export interface Contest {
  beaten: Set<number>;
  open: Set<number>;
}

/** `precision`: half of an interval of the ratio to the best one that is narrow enough. */
export function contestOf(contenders: Contender[], target: Target, precision: number): Contest {
  const contest: Contest = { beaten: new Set(), open: new Set() };
  const statistic = statistics[target];
  const rivals = target === 'LATENCY' ? smallestBatchesOf(contenders) : contenders;
  const [first] = rivals;
  if (statistic === null || !first) return contest;
  const itemRatio = (of: Contender, to: Contender) => {
    const found = pairedRatio(to.rounds, of.rounds, statistic);
    return found && target !== 'LATENCY' ? perItem(found, of, to) : found;
  };
  const costs = new Map(rivals.map((rival) => [rival, itemRatio(rival, first)?.ratio ?? 1]));
  const best = rivals.reduce((a, b) => ((costs.get(b) as number) < (costs.get(a) as number) ? b : a));
  for (const rival of rivals) {
    if (rival === best) continue;
    const found = itemRatio(rival, best);
    if (found && found.low > beatenRatio) contest.beaten.add(rival.n);
    else if (!found || (found.low <= otherRatio && (found.high - found.low) / 2 > precision)) contest.open.add(rival.n).add(best.n);
  }
  for (const { n } of contenders) if (!rivals.some((rival) => rival.n === n)) contest.beaten.add(n);
  return contest;
}

/** The latency that counts is that of one request: a larger batch of the same configuration cannot answer it sooner, whatever was measured. */
export function smallestBatchesOf<T extends Omit<Contender, 'rounds'>>(rows: T[]): T[] {
  return rows.filter((row) =>
    rows.every(
      ({ model, engine, intraOpThreads, instances, batchSize }) =>
        model !== row.model ||
        engine !== row.engine ||
        intraOpThreads !== row.intraOpThreads ||
        instances !== row.instances ||
        row.batchSize <= batchSize,
    ),
  );
}
