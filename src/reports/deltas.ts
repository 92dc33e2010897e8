import { number } from './format.ts';
import { type Delta, type Measured, type ReportRow, timePerItem } from './report.ts';

/** Differences below this are not told apart, however small the intervals are. */
const differenceMin = 0.03;

/** The first version at the smallest batch on the fewest threads, of the rows that have samples. */
export function baselineOf({ rows }: Measured): ReportRow | undefined {
  const order = (row: ReportRow) => [row.model, row.batchSize, row.intraOpThreads, row.n];
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
  const ratio = (value: number | null | undefined, of: number | null | undefined) => (value && of ? value / of : null);
  return {
    n: row.n,
    ...verdictOf(baseline, row),
    timeRatio: ratio(timePerItem(row)?.ns, timePerItem(baseline)?.ns),
    throughputRatio: ratio(row.itemsPerSecond, baseline.itemsPerSecond),
    memoryRatio: ratio(row.memory?.increaseBytes, baseline.memory?.increaseBytes),
    accuracyDifference: accuracyDifference(measured, baseline, row),
  };
}

/**
 * Two rows differ when the intervals of their medians do not meet and the medians are 3 % apart. The rows were measured one after the
 * other: what changed on the machine between them counts as a difference too, where it did not change within one of them.
 */
function verdictOf(baseline: ReportRow, row: ReportRow): Pick<Delta, 'verdict' | 'says'> {
  const [a, b] = [timePerItem(baseline), timePerItem(row)];
  if (!a || !b) return { verdict: 'NOT_COMPARABLE', says: 'There are too few samples for a median with an interval.' };
  const apart = a.highNs < b.lowNs || b.highNs < a.lowNs;
  const difference = b.ns / a.ns - 1;
  if (!apart || Math.abs(difference) < differenceMin) {
    return { verdict: 'NO_DIFFERENCE', says: 'The medians do not differ measurably, or by less than 3 %.' };
  }
  const faster = difference < 0;
  return {
    verdict: faster ? 'FASTER' : 'SLOWER',
    says: `One item takes ${number(100 * Math.abs(difference))} % ${faster ? 'less' : 'more'} time, and the intervals of the medians do not meet.`,
  };
}

function accuracyDifference({ models }: Measured, baseline: ReportRow, row: ReportRow): number | null {
  const [a, b] = [models[baseline.model]?.accuracy, models[row.model]?.accuracy];
  return a && b && a.datasetHash === b.datasetHash && a.split === b.split ? b.value - a.value : null;
}
