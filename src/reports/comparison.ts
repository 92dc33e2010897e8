/** Two reports beside each other, as of two days or two machines: what was different, and what that changed. */
import type { Machine } from '../benchmark/cells.ts';
import type { Ratio } from '../benchmark/pairing.ts';
import type { Percentile } from '../benchmark/statistics.ts';
import { ApiError } from '../errors.ts';
import { type Change, changeBetween } from './deltas.ts';
import { mebibytes, rowName } from './format.ts';
import type { Report, ReportRow, ReportView, RowView } from './report.ts';

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

type Property<T> = [name: string, read: (of: T) => string | number];

const machineProperties: Property<Machine>[] = [
  ['processor', ({ processor }) => processor],
  ['cores', ({ cores }) => cores],
  ['memory', ({ memoryBytes }) => mebibytes(memoryBytes)],
  ['platform', ({ platform, arch }) => `${platform} ${arch}`],
  ['kernel', ({ kernel }) => kernel],
  ['Node', ({ node }) => node],
];

/** In what a measurement was made. */
export interface Surroundings {
  machine: Machine;
  codeVersion: string;
  /** The libraries of the engines with their versions. */
  engines: string[];
  scenario: string;
  profile: string;
}

const otherProperties: Property<Surroundings>[] = [
  ['Whetstone', ({ codeVersion }) => codeVersion],
  ['engines', ({ engines }) => [...new Set(engines)].sort().join(', ')],
  ['scenario', ({ scenario }) => scenario],
  ['profile', ({ profile }) => profile],
];

const surroundingsOf = ({
  machine,
  codeVersion,
  rows,
  request,
}: Pick<Report, 'machine' | 'codeVersion' | 'request'> & { rows: Pick<ReportRow, 'engineVersion'>[] }): Surroundings => ({
  machine,
  codeVersion,
  engines: rows.map(({ engineVersion }) => engineVersion),
  scenario: request.scenario,
  profile: request.profile,
});

const differing = <T>(properties: Property<T>[], before: T, after: T): Difference[] =>
  properties
    .map(([name, read]) => ({ name, before: String(read(before)), after: String(read(after)) }))
    .filter((one) => one.before !== one.after);

/** Empty for the same machine. */
export const machineDifferences = (before: Machine, after: Machine): Difference[] => differing(machineProperties, before, after);

export const differencesBetween = (before: Surroundings, after: Surroundings): Difference[] => [
  ...machineDifferences(before.machine, after.machine),
  ...differing(otherProperties, before, after),
];

/** Whether two rows have measured the same, whatever the model. */
export const isSameSetting = (a: Setting, b: Setting): boolean =>
  a.engine === b.engine && a.batchSize === b.batchSize && a.intraOpThreads === b.intraOpThreads && a.instances === b.instances;
export type Setting = Pick<ReportRow, 'engine' | 'batchSize' | 'intraOpThreads' | 'instances'>;

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
  const names = ({ models }: ReportView) => models.map(({ name, number }) => `${name} version ${number}`).join(', ');
  const differences = [
    ...differencesBetween(surroundingsOf(before), surroundingsOf(after)),
    ...differing([['models', names]], before, after),
  ];
  return { differences, rows };
}

/** The row of the same file, or else of another version of the same model. */
function sameConfiguration(before: ReportView, row: RowView, after: ReportView): RowView | undefined {
  const model = before.models[row.model];
  const alike = after.rows.filter((other) => other.precision === row.precision && isSameSetting(other, row));
  return (
    alike.find((other) => after.models[other.model]?.sha256 === model?.sha256) ??
    alike.find((other) => after.models[other.model]?.name === model?.name)
  );
}

function changeOf(before: ReportView, row: RowView, after: ReportView, other: RowView): RowChange {
  return {
    configuration: rowName(before, row),
    before: row,
    after: other,
    ...changeBetween(
      { ...row, accuracy: before.models[row.model]?.accuracy },
      { ...other, accuracy: after.models[other.model]?.accuracy },
      ratioApart(row.latency?.p50, other.latency?.p50),
    ),
  };
}

/** Rounds of two benchmarks have nothing in common: the interval of the ratio holds that of each. Null where one has no interval. */
export const ratioApart = (a: Percentile | undefined, b: Percentile | undefined): Ratio | null =>
  a?.ns && a.lowNs && a.highNs && b?.ns && b.lowNs && b.highNs
    ? { ratio: b.ns / a.ns, low: b.lowNs / a.highNs, high: b.highNs / a.lowNs }
    : null;
