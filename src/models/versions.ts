/** Lists of model versions, of one model or of all, read in slices (`slices.ts`). */
import { and, count, eq, inArray, isNull, type SQL, sql } from 'drizzle-orm';
import { limitArgument, type Queryable } from '../db.ts';
import { job } from '../jobs/tables.ts';
import { countInSlices, directions, firstInSlices, inSlices, type Reader, type Slice, sliceRows } from '../slices.ts';
import { hasTags, type TagFilter, wantedTags } from '../tags/filter.ts';
import {
  alongMetric,
  hasMetric,
  hasMetrics,
  inMetricOrder,
  type MeasuredFilter,
  type MetricOrder,
  trainedWith,
} from '../training/search.ts';
import { evaluationMetric } from '../training/tables.ts';
import { inTurn } from '../turns.ts';
import { findModelVersionEver } from './models.ts';
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
      ? sql`+${modelVersion.modelId} IN (SELECT id FROM ${model} WHERE instr(lower(${model.name}), lower(${nameContains})) > 0)`
      : undefined,
    states ? inArray(modelVersion.state, [...states]) : undefined,
    formats ? inArray(modelVersion.format, [...formats]) : undefined,
    // Nothing is known of the precision before.
    precisions ? and(inArray(modelVersion.precision, [...precisions]), eq(modelVersion.state, 'READY')) : undefined,
    wanted ? hasTags(modelVersion.id, wanted) : undefined,
    ...hasMetrics(modelVersion.id, 'modelVersionId', filter),
    ...trainedWith(filter).map(
      (isOne) =>
        sql`(${isOne(modelVersion.jobId)} OR EXISTS (SELECT 1 FROM ${job} WHERE ${job.id} = ${modelVersion.jobId} AND ${isOne(job.parentId)}))`,
    ),
  );
}

/** Ids are UUIDv7: they grow with the time of creation. `last` is behind all of them. */
const orders = {
  NEWEST: { ...directions.DESCENDING, first: '~', last: '' },
  OLDEST: { ...directions.ASCENDING, first: '', last: '~' },
};
export type VersionOrder = keyof typeof orders;

const isBehind = (order: VersionOrder): SQL => sql`${modelVersion.id} ${orders[order].behind} ${sql.placeholder('behind')}`;
const inSlice = (order: VersionOrder): SQL =>
  sql`${isBehind(order)} AND ${modelVersion.id} ${orders[order].upTo} ${sql.placeholder('end')}`;

/** Reads versions behind an id in slices. */
function alongVersions(
  { db, request }: Reader,
  { modelId }: VersionFilter,
  order: VersionOrder,
  after: string | null,
  read: (slice: Slice) => boolean,
) {
  const { first, last } = orders[order];
  const query = versionSliceQuery(db, order);
  return inSlices(
    request,
    after ?? first,
    // Of one model an index has the versions.
    (behind) => (modelId ? null : (query.get({ behind })?.id ?? null)),
    (behind, end) => read({ behind, end: end ?? last }),
  );
}

/** The last version of a slice. */
export function versionSliceQuery(db: Queryable, order: VersionOrder) {
  return db
    .select({ id: modelVersion.id })
    .from(modelVersion)
    .where(and(isNull(modelVersion.deletedAt), isBehind(order)))
    .orderBy(orders[order].by(modelVersion.id))
    .limit(1)
    .offset(sliceRows - 1)
    .prepare();
}

/** Versions behind the one with the id `after`. */
export async function listVersions(
  reader: Reader,
  filter: VersionFilter,
  order: VersionOrder,
  limit: number,
  after: string | null,
): Promise<ModelVersion[]> {
  const query = versionListQuery(reader.db, filter, order);
  const found = await firstInSlices(
    limit,
    (read) => alongVersions(reader, filter, order, after, read),
    (slice) => query.all(slice),
  );
  return rowsOf(reader, found);
}

/** Their rows, each in a turn: one with 10,000 labels takes 4 ms. */
async function rowsOf<Found extends { id: string }>({ db, request }: Reader, found: readonly Found[]): Promise<(Found & ModelVersion)[]> {
  const rows: (Found & ModelVersion)[] = [];
  for (const one of found) rows.push({ ...one, ...((await inTurn(request, () => findModelVersionEver(db, one.id))) as ModelVersion) });
  return rows;
}

export const versionListQuery = (db: Queryable, filter: VersionFilter, order: VersionOrder) =>
  db
    .select({ id: modelVersion.id })
    .from(modelVersion)
    .where(and(inSlice(order), listed(filter)))
    .orderBy(orders[order].by(modelVersion.id))
    .limit(limitArgument)
    .prepare();

/** Versions that have a metric, in the order of the first of their values in it, behind the key `after`. */
export async function listVersionsByMetric(reader: Reader, filter: VersionFilter, order: MetricOrder, limit: number, after: string | null) {
  const query = versionMetricQuery(reader.db, filter, order);
  const found = await firstInSlices(
    limit,
    (read) => alongMetric(reader, order, after, read),
    (slice) => query.all(slice),
  );
  return rowsOf(reader, found);
}

export function versionMetricQuery(db: Queryable, filter: VersionFilter, order: MetricOrder) {
  const { where, isFirst, by } = inMetricOrder(order);
  return db
    .select({ id: modelVersion.id, metricValue: evaluationMetric.value, metricJobId: evaluationMetric.jobId })
    .from(evaluationMetric)
    .innerJoin(modelVersion, eq(modelVersion.id, evaluationMetric.modelVersionId))
    .where(and(where, isFirst, listed(filter)))
    .orderBy(...by)
    .limit(limitArgument)
    .prepare();
}

/** How many there are, at most `countMax`; `metric`: only those that have it. */
export async function countVersions(reader: Reader, filter: VersionFilter, metric: string | null): Promise<number> {
  const query = versionCountQuery(reader.db, filter, metric);
  return countInSlices(
    (read) => alongVersions(reader, filter, 'OLDEST', null, read),
    (slice) => query.get(slice)?.n ?? 0,
  );
}

export const versionCountQuery = (db: Queryable, filter: VersionFilter, metric: string | null) =>
  db
    .select({ n: count() })
    .from(modelVersion)
    .where(and(inSlice('OLDEST'), metric === null ? undefined : hasMetric(modelVersion.id, 'modelVersionId', metric), listed(filter)))
    .prepare();
