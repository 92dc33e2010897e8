/** Conditions of lists on what was measured, and on the hyperparameters of trainings. */
import { and, eq, type SQL, type SQLWrapper, sql } from 'drizzle-orm';
import { ApiError } from '../errors.ts';
import { jobHyperparameter } from '../jobs/tables.ts';
import { evaluationMetric } from './tables.ts';

const operators = { EQUAL: '=', NOT_EQUAL: '<>', LESS: '<', AT_MOST: '<=', GREATER: '>', AT_LEAST: '>=' } as const;
export type Operator = keyof typeof operators;

export interface MetricFilter {
  name: string;
  operator: Operator;
  value: number;
}

/** `value`: a number or a text. */
export interface HyperparameterFilter {
  name: string;
  operator: Operator;
  value?: unknown;
}

export interface MetricOrder {
  name: string;
  descending: boolean;
}

export interface MeasuredFilter {
  metrics?: readonly MetricFilter[] | null;
  hyperparameters?: readonly HyperparameterFilter[] | null;
}

/** Of each kind, in one list. */
const filtersMax = 5;

function checked<T extends MetricFilter | HyperparameterFilter>(what: string, filters: readonly T[] | null | undefined): readonly T[] {
  if (filters && filters.length > filtersMax)
    throw new ApiError('LIMIT', `\`${what}\` has at most ${filtersMax} conditions; it has ${filters.length}.`);
  return filters ?? [];
}

const compares = (column: SQLWrapper, operator: Operator, value: unknown): SQL => sql`${column} ${sql.raw(operators[operator])} ${value}`;

/** Whether `id` is the job, or the model version, of an evaluation with this metric, for each of the filters. */
export function hasMetrics(id: SQLWrapper, of: 'jobId' | 'modelVersionId', { metrics }: MeasuredFilter): SQL[] {
  return checked('metrics', metrics).map(
    ({ name, operator, value }) => sql`${id} IN (SELECT ${evaluationMetric[of]} FROM ${evaluationMetric}
      WHERE ${evaluationMetric.name} = ${name} AND ${compares(evaluationMetric.value, operator, value)})`,
  );
}

/** For each of the filters: the ids of trainings with this hyperparameter. */
export function trainingsWith({ hyperparameters }: MeasuredFilter): SQL[] {
  return checked('hyperparameters', hyperparameters).map(({ name, operator, value }) => {
    if (typeof value !== 'number' && (typeof value !== 'string' || !/EQUAL$/.test(operator))) {
      throw new ApiError(
        'INVALID',
        `The value of the hyperparameter ${name} is ${JSON.stringify(value)}: compare with a number, or with a text by EQUAL or NOT_EQUAL.`,
      );
    }
    return sql`SELECT ${jobHyperparameter.jobId} FROM ${jobHyperparameter}
      WHERE ${jobHyperparameter.name} = ${name} AND ${compares(jobHyperparameter.value, operator, value)}`;
  });
}

/** The rows of one metric behind a key, in an order: the first of a model version is its best, or its worst. */
export function inMetricOrder({ name, descending }: MetricOrder, after: string | null) {
  const direction = sql.raw(descending ? 'DESC' : 'ASC');
  const [value, jobId] = after?.split(' ') ?? [];
  const key = sql`(${evaluationMetric.value}, ${evaluationMetric.jobId})`;
  const behind = value === undefined ? undefined : sql`${key} ${sql.raw(descending ? '<' : '>')} (${Number(value)}, ${jobId})`;
  const isFirst = sql`NOT EXISTS (SELECT 1 FROM ${evaluationMetric} AS other WHERE other."modelVersionId" = ${evaluationMetric.modelVersionId}
    AND other.name = ${name} AND (other.value, other."jobId") ${sql.raw(descending ? '>' : '<')} ${key})`;
  return {
    where: and(eq(evaluationMetric.name, name), behind) as SQL,
    isFirst,
    by: [sql`${evaluationMetric.value} ${direction}`, sql`${evaluationMetric.jobId} ${direction}`],
  };
}

/** Of a row in the order of a metric. */
export const metricKey = ({ metricValue, metricJobId }: { metricValue: number; metricJobId: string }): string =>
  `${metricValue} ${metricJobId}`;
export const isMetricKey = (key: unknown): key is string => typeof key === 'string' && /^-?[\d.e+-]{1,30} [\w-]{1,100}$/.test(key);
