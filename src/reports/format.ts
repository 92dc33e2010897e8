/** Numbers and names as people read them: the same in every locale. */
import type { ModelContext } from '../benchmark/context.ts';
import type { PercentileName } from '../benchmark/statistics.ts';
import { engines } from '../engine/engines.ts';
import type { Measured, ReportRow } from './report.ts';

/** Three significant digits, never an exponent. */
export function number(value: number): string {
  if (value === 0) return '0';
  const digits = 2 - Math.floor(Math.log10(Math.abs(value)));
  return value.toFixed(Math.min(6, Math.max(0, digits)));
}

export const ms = (ns: number): string => `${number(ns / 1e6)} ms`;
export const seconds = (ns: number): string => `${number(ns / 1e9)} s`;
/** `3 h 5 min`, `4 min 12 s`, `12.3 s`. */
export function duration(milliseconds: number): string {
  const whole = Math.round(milliseconds / 1000);
  if (whole < 60) return `${number(milliseconds / 1000)} s`;
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}
export const mebibytes = (bytes: number): string => `${number(bytes / 2 ** 20)} MiB`;
/** Two decimals: accuracies differ in the third digit. */
export const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;
/** What is right, by the metric of the task. */
export const accuracyText = ({ metric, value }: Pick<NonNullable<ModelContext['accuracy']>, 'metric' | 'value'>): string =>
  metric === 'TOP1' ? `${percent(value)} top-1` : `mAP50-95 ${value.toFixed(4)}`;
export const percentileTitles: Record<PercentileName, string> = { p50: 'P50', p95: 'P95', p99: 'P99', p999: 'P99.9' };
export const plural = (n: number, one: string, many = `${one}s`): string => `${n} ${n === 1 ? one : many}`;

export const modelName = ({ models }: Pick<Measured, 'models'>, { model }: Pick<ReportRow, 'model'>): string => {
  const { name, number: version } = models[model] as Measured['models'][number];
  return `${name} version ${version}`;
};

type Configuration = Pick<ReportRow, 'n' | 'model' | 'engine' | 'batchSize' | 'intraOpThreads' | 'instances'>;

/** What was measured in a row. */
export const rowName = (measured: Pick<Measured, 'models'>, row: Omit<Configuration, 'n'>): string =>
  [
    modelName(measured, row),
    engines[row.engine].title,
    `batch ${row.batchSize}`,
    plural(row.intraOpThreads, 'thread'),
    ...(row.instances > 1 ? [`${row.instances} instances`] : []),
  ].join(', ');

/** In what a row differs from others; '' where it is the only one. */
export function distinctionOf(report: Pick<Measured, 'models'> & { rows: Configuration[] }, row: Configuration): string {
  const model = report.models[row.model];
  const hasNames = new Set(report.models.map(({ name }) => name)).size > 1;
  const parts: [string, (row: Configuration) => unknown][] = [
    [`${hasNames ? `${model?.name} ` : ''}v${model?.number}`, (one) => one.model],
    [engines[row.engine].title, ({ engine }) => engine],
    [`batch ${row.batchSize}`, ({ batchSize }) => batchSize],
    [plural(row.intraOpThreads, 'thread'), ({ intraOpThreads }) => intraOpThreads],
    [plural(row.instances, 'instance'), ({ instances }) => instances],
  ];
  return parts
    .filter(([, of]) => new Set(report.rows.map(of)).size > 1)
    .map(([text]) => text)
    .join(', ');
}
