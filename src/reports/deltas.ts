import type { ModelContext } from '../benchmark/context.ts';
import type { Ratio } from '../benchmark/pairing.ts';
import { type Delta, itemRatioWithin, type Measured, onSameImages, type ReportRow } from './report.ts';

export type Change = Omit<Delta, 'n' | 'rounds'>;

/** Differences below this are not told apart, however small the intervals are. */
export const differenceMin = 0.03;

/** The first version at the smallest batch on the fewest threads and instances, of the rows that have samples. */
export function baselineOf({ rows }: Measured): ReportRow | undefined {
  const order = (row: ReportRow) => [row.model, row.batchSize, row.intraOpThreads, row.instances, row.n];
  return rows.filter((row) => row.samples !== null).toSorted((a, b) => compare(order(a), order(b)))[0];
}

/** Orders lists of numbers by their first difference. */
export function compare(a: readonly number[], b: readonly number[]): number {
  const i = a.findIndex((value, at) => value !== b[at]);
  return i < 0 ? 0 : (a[i] as number) - (b[i] as number);
}

export function deltasOf(measured: Measured, baseline: ReportRow | undefined): Delta[] {
  if (!baseline) return [];
  return measured.rows.filter((row) => row.n !== baseline.n && row.samples !== null).map((row) => deltaOf(measured, baseline, row));
}

function deltaOf(measured: Measured, baseline: ReportRow, row: ReportRow): Delta {
  const time = itemRatioWithin(measured, row, baseline, 'p50');
  const accuracyOf = ({ model }: ReportRow) => measured.models[model]?.accuracy;
  return {
    n: row.n,
    rounds: time?.rounds ?? 0,
    ...changeBetween({ ...baseline, accuracy: accuracyOf(baseline) }, { ...row, accuracy: accuracyOf(row) }, time),
  };
}

type Compared = Pick<ReportRow, 'itemsPerSecond' | 'memory'> & { accuracy: ModelContext['accuracy'] | undefined };

/** What `to` is to `from`; `time` is the ratio of their times. */
export function changeBetween(from: Compared, to: Compared, time: Ratio | null): Change {
  const ratio = (value: number | null | undefined, of: number | null | undefined) => (value && of ? value / of : null);
  const [a, b] = [from.accuracy, to.accuracy];
  return {
    verdict: verdictOf(time),
    timeRatio: time?.ratio ?? null,
    timeRatioLow: time?.low ?? null,
    timeRatioHigh: time?.high ?? null,
    throughputRatio: ratio(to.itemsPerSecond, from.itemsPerSecond),
    memoryRatio: ratio(to.memory?.increaseBytes, from.memory?.increaseBytes),
    accuracyDifference: a && b && onSameImages(a, b) ? b.value - a.value : null,
  };
}

/** Two rows differ when their ratio is beyond 3 % and its interval does not hold 1; they do not where all of the interval is within 3 %. */
export function verdictOf(time: Ratio | null): Delta['verdict'] {
  if (!time) return 'NOT_COMPARABLE';
  const { ratio, low, high } = time;
  if (low >= 1 - differenceMin && high <= 1 + differenceMin) return 'NO_DIFFERENCE';
  if ((low <= 1 && high >= 1) || Math.abs(ratio - 1) < differenceMin) return 'UNDECIDED';
  return ratio < 1 ? 'FASTER' : 'SLOWER';
}
