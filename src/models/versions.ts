/** Lists of model versions, of one model or of all. */
import { and, asc, desc, eq, getTableColumns, gt, inArray, isNull, lt, type SQL, sql } from 'drizzle-orm';
import { countUpTo, type Queryable } from '../db.ts';
import { job } from '../jobs/tables.ts';
import { hasTags, type TagFilter, wantedTags } from '../tags/filter.ts';
import { hasMetrics, inMetricOrder, type MeasuredFilter, type MetricOrder, trainingsWith } from '../training/search.ts';
import { evaluationMetric } from '../training/tables.ts';
import { type ModelVersion, model, modelVersion } from './tables.ts';

/** Everything is meant where a value is null. */
export interface VersionFilter extends MeasuredFilter {
  modelId?: string | null;
  /** Part of the name of the model. */
  nameContains?: string | null;
  states?: readonly ModelVersion['state'][] | null;
  formats?: readonly ModelVersion['format'][] | null;
  precisions?: readonly ModelVersion['precision'][] | null;
  tags?: readonly TagFilter[] | null;
}

function listed(filter: VersionFilter): SQL | undefined {
  const { modelId, nameContains, states, formats, precisions, tags } = filter;
  const wanted = wantedTags(tags);
  return and(
    isNull(modelVersion.deletedAt),
    modelId ? eq(modelVersion.modelId, modelId) : undefined,
    nameContains
      ? sql`${modelVersion.modelId} IN (SELECT id FROM ${model} WHERE instr(lower(${model.name}), lower(${nameContains})) > 0)`
      : undefined,
    states ? inArray(modelVersion.state, [...states]) : undefined,
    formats ? inArray(modelVersion.format, [...formats]) : undefined,
    // Nothing is known of the precision before.
    precisions ? and(inArray(modelVersion.precision, [...precisions]), eq(modelVersion.state, 'READY')) : undefined,
    wanted ? hasTags(modelVersion.id, wanted) : undefined,
    ...hasMetrics(modelVersion.id, 'modelVersionId', filter),
    ...trainingsWith(filter).map(
      (ids) => sql`${modelVersion.jobId} IN (${ids} UNION ALL SELECT ${job.id} FROM ${job} WHERE ${job.parentId} IN (${ids}))`,
    ),
  );
}

/** Ids are UUIDv7: they grow with the time of creation. */
const orders = {
  NEWEST: { behind: (id: string) => lt(modelVersion.id, id), by: desc(modelVersion.id) },
  OLDEST: { behind: (id: string) => gt(modelVersion.id, id), by: asc(modelVersion.id) },
};
export type VersionOrder = keyof typeof orders;

/** Versions behind the one with the id `after`. */
export function listVersions(
  db: Queryable,
  filter: VersionFilter,
  order: VersionOrder,
  limit: number,
  after: string | null,
): ModelVersion[] {
  const { behind, by } = orders[order];
  return db
    .select()
    .from(modelVersion)
    .where(and(after === null ? undefined : behind(after), listed(filter)))
    .orderBy(by)
    .limit(limit)
    .all();
}

/** Versions that have a metric, in the order of the first of their values in it, behind the key `after`. */
export function listVersionsByMetric(db: Queryable, filter: VersionFilter, order: MetricOrder, limit: number, after: string | null) {
  const { where, isFirst, by } = inMetricOrder(order, after);
  return db
    .select({ ...getTableColumns(modelVersion), metricValue: evaluationMetric.value, metricJobId: evaluationMetric.jobId })
    .from(evaluationMetric)
    .innerJoin(modelVersion, eq(modelVersion.id, evaluationMetric.modelVersionId))
    .where(and(where, isFirst, listed(filter)))
    .orderBy(...by)
    .limit(limit)
    .all();
}

/** How many there are, at most `countMax`; `metric`: only those that have it. */
export function countVersions(db: Queryable, filter: VersionFilter, metric: string | null): number {
  const hasIt =
    metric === null
      ? undefined
      : sql`${modelVersion.id} IN (SELECT "modelVersionId" FROM ${evaluationMetric} WHERE ${evaluationMetric.name} = ${metric})`;
  return countUpTo(db, modelVersion, and(hasIt, listed(filter)));
}
