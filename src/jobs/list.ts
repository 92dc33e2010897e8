/** Lists of jobs. */
import { and, asc, desc, eq, getTableColumns, gte, lt, type Placeholder, type SQL, type SQLWrapper, sql } from 'drizzle-orm';
import { user } from '../accounts/tables.ts';
import { dataset, datasetVersion } from '../datasets/tables.ts';
import { countUpTo, limitArgument, prepared, type Queryable } from '../db.ts';
import { model, modelVersion } from '../models/tables.ts';
import { hasTags, type TagFilter, wantedTags } from '../tags/filter.ts';
import { hasMetrics, inMetricOrder, type MeasuredFilter, type MetricOrder, trainingsWith } from '../training/search.ts';
import { evaluationMetric } from '../training/tables.ts';
import { age } from './jobs.ts';
import type { JobKindName } from './specs.ts';
import { type Job, type JobState, job, jobSubject } from './tables.ts';

/** Everything is meant where a value is null. */
export interface JobFilter extends MeasuredFilter {
  id?: string;
  kinds?: readonly JobKindName[] | null;
  states?: readonly JobState[] | null;
  createdById?: string | null;
  parentId?: string | null;
  /** Ids of models, their versions, datasets or their versions: the job works on each of them, or has made it. */
  subjectIds?: readonly string[];
  tags?: readonly TagFilter[] | null;
  /** Part of a name of a model, a dataset or the creator, or of the failure. */
  text?: string | null;
  /** Unix milliseconds; `createdBefore` is not included. */
  createdAfter?: number | null;
  createdBefore?: number | null;
}

/** Whether the column is in the list that `jsonList` makes of a compiled query's argument. */
const isIn = (column: SQLWrapper, argument: string): SQL => sql`${column} IN (SELECT value FROM json_each(${sql.placeholder(argument)}))`;

const jsonList = (values: readonly string[]) => JSON.stringify(values);

/** Jobs about an id. A model or a dataset stands for its versions too. */
const jobsAbout = (subjectId: SQL | Placeholder): SQL => sql`
  SELECT "jobId" FROM ${jobSubject} WHERE ${jobSubject.subjectId} IN (
    SELECT ${subjectId}
    UNION ALL SELECT id FROM ${modelVersion} WHERE ${modelVersion.modelId} = ${subjectId}
    UNION ALL SELECT id FROM ${datasetVersion} WHERE ${datasetVersion.datasetId} = ${subjectId}
  )`;

/** Whether a job is about every id of the argument: the index finds those about the first, and the others are looked for among these. */
const isAboutAll = (): SQL => sql`
  ${job.id} IN (${jobsAbout(sql.placeholder('subjectId'))})
  AND NOT EXISTS (SELECT 1 FROM json_each(${sql.placeholder('subjectIds')}) AS wanted WHERE ${job.id} NOT IN (${jobsAbout(sql`wanted.value`)}))`;

const hasText = (): SQL => {
  const text = sql.placeholder('text');
  const contains = (column: SQLWrapper) => sql`instr(lower(${column}), lower(${text})) > 0`;
  return sql`(
    ${contains(sql`coalesce(${job.failureCode} || ': ' || ${job.failureMessage}, '')`)}
    OR ${job.createdById} IN (SELECT id FROM ${user} WHERE ${contains(user.name)})
    OR ${job.id} IN (SELECT "jobId" FROM ${jobSubject} WHERE ${jobSubject.subjectId} IN (
      SELECT id FROM ${model} WHERE ${contains(model.name)}
      UNION ALL SELECT version.id FROM ${modelVersion} AS version JOIN ${model} ON ${model.id} = version."modelId" WHERE ${contains(model.name)}
      UNION ALL SELECT version.id FROM ${datasetVersion} AS version JOIN ${dataset} ON ${dataset.id} = version."datasetId" WHERE ${contains(dataset.name)}
    ))
  )`;
};

/** What a job must be for each part of a filter. */
const conditions = {
  id: eq(job.id, sql.placeholder('id')),
  kinds: isIn(job.kind, 'kinds'),
  states: isIn(job.state, 'states'),
  createdById: eq(job.createdById, sql.placeholder('createdById')),
  parentId: eq(job.parentId, sql.placeholder('parentId')),
  subjectIds: isAboutAll(),
  tags: hasTags(job.id, sql.placeholder('tags')),
  text: hasText(),
  createdAfter: gte(job.createdAt, sql.placeholder('createdAfter')),
  createdBefore: lt(job.createdAt, sql.placeholder('createdBefore')),
};

/** The filter's parts that are set, and the arguments of a query with their conditions. */
function partsOf({ id, kinds, states, createdById, parentId, subjectIds = [], tags, text, createdAfter, createdBefore }: JobFilter) {
  const values = {
    id,
    kinds: kinds && jsonList(kinds),
    states: states && jsonList(states),
    createdById,
    parentId,
    subjectIds: subjectIds.length > 0 ? jsonList(subjectIds) : null,
    tags: wantedTags(tags),
    text: text || null,
    createdAfter,
    createdBefore,
  };
  const parts = (Object.keys(conditions) as (keyof typeof conditions)[]).filter((part) => (values[part] ?? null) !== null);
  return { parts, values: { ...values, subjectId: subjectIds[0] } };
}

/** Conditions of a filter that are not compiled: their number and their comparisons differ from list to list. */
const measured = (filter: JobFilter): SQL[] => [
  ...hasMetrics(job.id, 'jobId', filter),
  ...trainingsWith(filter).map((ids) => sql`${job.id} IN (${ids})`),
];

/** `start` is the key before the first job. */
const orders = {
  NEWEST: { isBehind: sql`<`, of: desc, start: ({ createdBefore }: JobFilter) => `${createdBefore ?? Number.MAX_SAFE_INTEGER} ` },
  OLDEST: { isBehind: sql`>`, of: asc, start: ({ createdAfter }: JobFilter) => `${createdAfter ?? 0} ` },
};
export type JobOrder = keyof typeof orders;

/** One for each order and choice of conditions, built when it is first asked for. */
const listQueries = new Map<string, ReturnType<typeof prepared<ReturnType<typeof listQuery>>>>();
function listQuery(db: Queryable, order: JobOrder, parts: (keyof typeof conditions)[], more: SQL[]) {
  const { isBehind, of } = orders[order];
  const behind = sql`(${job.createdAt}, ${job.id}) ${isBehind} (${sql.placeholder('behindAt')}, ${sql.placeholder('behindId')})`;
  return db
    .select()
    .from(job)
    .where(and(behind, ...parts.map((part) => conditions[part]), ...more))
    .orderBy(of(job.createdAt), of(job.id))
    .limit(limitArgument)
    .prepare();
}

/** When a job was made, and its id. */
export const jobKey = ({ createdAt, id }: Job): string => `${createdAt} ${id}`;
export const isJobKey = (key: unknown): key is string => typeof key === 'string' && /^\d{1,15} [\w-]{1,100}$/.test(key);

/** Jobs behind the key `after`. */
export function listJobs(db: Queryable, filter: JobFilter, order: JobOrder, limit: number, after: string | null): Job[] {
  const [behindAt, behindId = ''] = (after ?? orders[order].start(filter)).split(' ');
  const { parts, values } = partsOf(filter);
  const wanted = { ...values, behindAt: Number(behindAt), behindId, limit };
  const more = measured(filter);
  if (more.length > 0) return listQuery(db, order, parts, more).all(wanted);
  const key = [order, ...parts].join(' ');
  const query = listQueries.get(key) ?? prepared((database) => listQuery(database, order, parts, []));
  listQueries.set(key, query);
  return query(db).all(wanted);
}

/** Jobs that have measured a metric, in its order, behind the key `after`. */
export function listJobsByMetric(db: Queryable, filter: JobFilter, order: MetricOrder, limit: number, after: string | null) {
  const { parts, values } = partsOf(filter);
  const { where, by } = inMetricOrder(order, after);
  return db
    .select({ ...getTableColumns(job), metricValue: evaluationMetric.value, metricJobId: evaluationMetric.jobId })
    .from(evaluationMetric)
    .innerJoin(job, eq(job.id, evaluationMetric.jobId))
    .where(and(where, ...parts.map((part) => conditions[part]), ...measured(filter)))
    .orderBy(...by)
    .limit(limit)
    .prepare()
    .all(values);
}

/** How many jobs there are, at most `countMax`; `metric`: only those that have it. */
export function countListed(db: Queryable, filter: JobFilter, metric: string | null): number {
  const { parts, values } = partsOf(filter);
  const hasIt =
    metric === null ? undefined : sql`${job.id} IN (SELECT "jobId" FROM ${evaluationMetric} WHERE ${evaluationMetric.name} = ${metric})`;
  const conditionsOf = [hasIt, ...parts.map((part) => conditions[part]), ...measured(filter)];
  return countUpTo(db, job, and(...conditionsOf), values);
}

/** Whether the filter lets this job through, as it is now. */
export function passesFilter(db: Queryable, filter: JobFilter, id: string): boolean {
  return listJobs(db, { ...filter, id }, 'NEWEST', 1, null).length > 0;
}

const childrenQuery = prepared((db) =>
  db
    .select()
    .from(job)
    .where(eq(job.parentId, sql.placeholder('parentId')))
    .orderBy(age)
    .limit(limitArgument)
    .prepare(),
);

/** The jobs that a job has made, first to last. */
export function listChildren(db: Queryable, parentId: string, limit: number): Job[] {
  return childrenQuery(db).all({ parentId, limit });
}
