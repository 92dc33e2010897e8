/** Conditions of lists on what was measured, and on the hyperparameters of trainings. */
import { type SQL, type SQLWrapper, sql } from 'drizzle-orm';
import { alias } from 'drizzle-orm/sqlite-core';
import type { Queryable } from '../db.ts';
import { ApiError } from '../errors.ts';
import { searchable } from '../jobs/references.ts';
import { jobHyperparameter } from '../jobs/tables.ts';
import { directions, inSlices, type Reader, type Slice, sliceRows } from '../slices.ts';
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
  return checked('metrics', metrics).map(({ name, operator, value }) => hasMetric(id, of, name, compares(measure.value, operator, value)));
}

/** Lists that are in the order of a metric have this table too. */
const measure = alias(evaluationMetric, 'measure');

/** The same for one metric; without `is` whatever its value. */
export const hasMetric = (id: SQLWrapper, of: 'jobId' | 'modelVersionId', name: string, is: SQL = sql`1`): SQL =>
  sql`EXISTS (SELECT 1 FROM ${evaluationMetric} AS ${sql.identifier('measure')} WHERE ${measure[of]} = ${id} AND ${measure.name} = ${name} AND ${is})`;

/** For each of the filters, whether the job with an id is a training with this hyperparameter. */
export function trainedWith({ hyperparameters }: MeasuredFilter): ((jobId: SQLWrapper) => SQL)[] {
  return checked('hyperparameters', hyperparameters).map(({ name, operator, value: said }) => {
    const value = searchable(said);
    if (typeof value !== 'number' && (typeof value !== 'string' || !/EQUAL$/.test(operator))) {
      throw new ApiError(
        'INVALID',
        `The value of the hyperparameter ${name} is ${JSON.stringify(value)}: compare with a number, or with a text or a boolean by EQUAL or NOT_EQUAL.`,
      );
    }
    return (jobId) => sql`EXISTS (SELECT 1 FROM ${jobHyperparameter} WHERE ${jobHyperparameter.jobId} = ${jobId}
      AND ${jobHyperparameter.name} = ${name} AND ${compares(jobHyperparameter.value, operator, value)})`;
  });
}

const place = sql`(${evaluationMetric.value}, ${evaluationMetric.jobId})`;
const behindPlace = sql`(${sql.placeholder('value')}, ${sql.placeholder('metricJobId')})`;
const endPlace = sql`(${sql.placeholder('endValue')}, ${sql.placeholder('endJobId')})`;

/** The rows of one metric in a slice of its order (`alongMetric`): the first of a model version is its best, or its worst. */
export function inMetricOrder({ name, descending }: MetricOrder) {
  const { behind, upTo, by } = directions[descending ? 'DESCENDING' : 'ASCENDING'];
  const isFirst = sql`NOT EXISTS (SELECT 1 FROM ${evaluationMetric} AS other WHERE other."modelVersionId" = ${evaluationMetric.modelVersionId}
    AND other.name = ${name} AND (other.value, other."jobId") ${sql.raw(descending ? '>' : '<')} ${place})`;
  const isBehind = sql`${evaluationMetric.name} = ${name} AND ${place} ${behind} ${behindPlace}`;
  return {
    isBehind,
    where: sql`${isBehind} AND ${place} ${upTo} ${endPlace}`,
    isFirst,
    by: [by(evaluationMetric.value), by(evaluationMetric.jobId)],
  };
}

/** Reads the rows of a metric behind the key `after` in slices: `read` gets the arguments of `inMetricOrder`. */
export function alongMetric(
  { db, request }: Reader,
  order: MetricOrder,
  after: string | null,
  read: (slice: Slice) => boolean,
): Promise<void> {
  const [value, metricJobId = ''] = after?.split(' ') ?? [];
  const [first, last] = order.descending
    ? [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
    : [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
  const query = metricSliceQuery(db, order);
  return inSlices(
    request,
    { value: value === undefined ? first : Number(value), metricJobId },
    (behind) => query.get(behind) ?? null,
    (behind, end) => read({ ...behind, endValue: end?.value ?? last, endJobId: end?.metricJobId ?? '' }),
  );
}

/** The last place of a slice. */
export function metricSliceQuery(db: Queryable, order: MetricOrder) {
  const { isBehind, by } = inMetricOrder(order);
  return db
    .select({ value: evaluationMetric.value, metricJobId: evaluationMetric.jobId })
    .from(evaluationMetric)
    .where(isBehind)
    .orderBy(...by)
    .limit(1)
    .offset(sliceRows - 1)
    .prepare();
}

/** Of a row in the order of a metric. */
export const metricKey = ({ metricValue, metricJobId }: { metricValue: number; metricJobId: string }): string =>
  `${metricValue} ${metricJobId}`;
export const isMetricKey = (key: unknown): key is string => typeof key === 'string' && /^-?[\d.e+-]{1,30} [\w-]{1,100}$/.test(key);
