/** Two reports beside each other, as of two days or two machines: what was different, and what that changed. */
import { ApiError } from '../errors.ts';
import { type Change, changeBetween } from './deltas.ts';
import { mebibytes, rowName } from './format.ts';
import type { ReportView, RowView } from './report.ts';

/** Something that was not the same when both were measured. */
export interface Difference {
  name: string;
  before: string;
  after: string;
}

/** A configuration that both have measured. Ratios are after ÷ before. */
export interface RowChange extends Change {
  configuration: string;
  before: RowView;
  after: RowView;
}

export interface ReportComparison {
  differences: Difference[];
  rows: RowChange[];
}

const surroundings: [name: string, read: (report: ReportView) => string | number][] = [
  ['processor', ({ machine }) => machine.processor],
  ['cores', ({ machine }) => machine.cores],
  ['memory', ({ machine }) => mebibytes(machine.memoryBytes)],
  ['platform', ({ machine }) => `${machine.platform} ${machine.arch}`],
  ['kernel', ({ machine }) => machine.kernel],
  ['Node', ({ machine }) => machine.node],
  ['Whetstone', ({ codeVersion }) => codeVersion],
  ['engines', ({ rows }) => [...new Set(rows.map(({ engineVersion }) => engineVersion))].sort().join(', ')],
  ['scenario', ({ request }) => request.scenario],
  ['profile', ({ request }) => request.profile],
  ['models', ({ models }) => models.map(({ name, number }) => `${name} version ${number}`).join(', ')],
];

export function compareReports(before: ReportView, after: ReportView): ReportComparison {
  const rows = before.rows.flatMap((row) => {
    const other = sameConfiguration(before, row, after);
    return other ? [changeOf(before, row, after, other)] : [];
  });
  if (rows.length === 0) {
    throw new ApiError(
      'INVALID',
      'These reports have no configuration in common: the same model, precision, engine, batch size, threads and instances.',
    );
  }
  const differences = surroundings
    .map(([name, read]) => ({ name, before: String(read(before)), after: String(read(after)) }))
    .filter((one) => one.before !== one.after);
  return { differences, rows };
}

/** The row of the same file, or else of another version of the same model. */
function sameConfiguration(before: ReportView, row: RowView, after: ReportView): RowView | undefined {
  const model = before.models[row.model];
  const alike = after.rows.filter(
    (other) =>
      other.engine === row.engine &&
      other.precision === row.precision &&
      other.batchSize === row.batchSize &&
      other.intraOpThreads === row.intraOpThreads &&
      other.instances === row.instances,
  );
  return (
    alike.find((other) => after.models[other.model]?.sha256 === model?.sha256) ??
    alike.find((other) => after.models[other.model]?.name === model?.name)
  );
}

function changeOf(before: ReportView, row: RowView, after: ReportView, other: RowView): RowChange {
  const [a, b] = [row.latency?.p50, other.latency?.p50];
  // Rounds of two benchmarks have nothing in common: the interval of the ratio holds that of each.
  const time =
    a?.ns && a.lowNs && a.highNs && b?.ns && b.lowNs && b.highNs
      ? { ratio: b.ns / a.ns, low: b.lowNs / a.highNs, high: b.highNs / a.lowNs }
      : null;
  return {
    configuration: rowName(before, row),
    before: row,
    after: other,
    ...changeBetween(
      { ...row, accuracy: before.models[row.model]?.accuracy },
      { ...other, accuracy: after.models[other.model]?.accuracy },
      time,
    ),
  };
}
