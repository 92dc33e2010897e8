/** The raw metrics of a benchmark's report: a line for each row. */
import type { PercentileName } from '../benchmark/statistics.ts';
import type { Value } from './forms/csv.ts';
import { claimed, type ReportView, type RowView } from './report.ts';

const percentileColumns = (name: PercentileName): [string, (report: ReportView, row: RowView) => Value][] => [
  [`${name}Kind`, (_report, { latency }) => latency?.[name]?.kind],
  [`${name}Ns`, (_report, { latency }) => latency?.[name]?.ns],
  [`${name}LowNs`, (_report, { latency }) => latency?.[name]?.lowNs],
  [`${name}HighNs`, (_report, { latency }) => latency?.[name]?.highNs],
];

export const benchmarkColumns: [string, (report: ReportView, row: RowView) => Value][] = [
  ['n', (_report, { n }) => n],
  ['model', ({ models }, { model }) => models[model]?.name],
  ['modelVersion', ({ models }, { model }) => models[model]?.number],
  ['precision', (_report, { precision }) => precision],
  ['engine', (_report, { engine }) => engine],
  ['engineVersion', (_report, { engineVersion }) => engineVersion],
  ['batchSize', (_report, { batchSize }) => batchSize],
  ['intraOpThreads', (_report, { intraOpThreads }) => intraOpThreads],
  ['instances', (_report, { instances }) => instances],
  ['verdict', (_report, { verdict }) => verdict],
  ['reasons', (_report, { reasons }) => reasons.map(({ code }) => code).join(' ')],
  ['count', (_report, { samples }) => samples?.count],
  ['elapsedNs', (_report, { elapsedNs }) => elapsedNs],
  ['itemsPerSecond', (_report, { itemsPerSecond }) => itemsPerSecond],
  ['meanNs', (_report, { latency }) => latency?.meanNs],
  ['meanLowNs', (_report, { latency }) => latency?.meanLowNs],
  ['meanHighNs', (_report, { latency }) => latency?.meanHighNs],
  ['minNs', (_report, { latency }) => latency?.minNs],
  ['maxNs', (_report, { latency }) => latency?.maxNs],
  ...claimed.FULL.flatMap(percentileColumns),
  ['loadNs', (_report, { cold }) => cold?.loadNs],
  ['firstInferenceNs', (_report, { cold }) => cold?.firstInferenceNs],
  ['memoryBaselineBytes', (_report, { memory }) => memory?.baselineBytes],
  ['memoryPeakBytes', (_report, { memory }) => memory?.peakBytes],
  ['accuracyMetric', ({ models }, { model }) => models[model]?.accuracy?.metric],
  ['accuracy', ({ models }, { model }) => models[model]?.accuracy?.value],
  ['samplesSha256', (_report, { samples }) => samples?.sha256],
];
