/** Lists of jobs. Those with a filter are read in slices (`slices.ts`). */
import { and, count, eq, getTableColumns, gte, lt, type SQL, type SQLWrapper, sql } from 'drizzle-orm';
import { user } from '../accounts/tables.ts';
import { dataset, datasetVersion } from '../datasets/tables.ts';
import { countMax, limitArgument, prepared, type Queryable } from '../db.ts';
import { model, modelVersion } from '../models/tables.ts';
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
import { age } from './jobs.ts';
import type { JobKindName } from './specs.ts';
import { type Job, type JobState, job, jobSubject } from './tables.ts';

/** Everything is meant where a value is null. */
export interface JobFilter extends MeasuredFilter {
  kinds?: readonly JobKindName[] | null;
  states?: readonly JobState[] | null;
  createdById?: string | null;
  parentId?: string | null;
  /** At most 4 ids of models, their versions, datasets or their versions: the job works on each of them, or has made it. */
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

/** Whether a job is about one of the ids in the list `subject<n>`: an id, with those of its versions where it has any. */
const isAbout = (n: number): SQL =>
  sql`EXISTS (SELECT 1 FROM ${jobSubject} WHERE ${jobSubject.jobId} = ${job.id} AND ${isIn(sql`+${jobSubject.subjectId}`, `subject${n}`)})`;

/** A model or a dataset stands for its versions too. */
const idsOfSubject = prepared((db) => {
  const id = sql.placeholder('id');
  const versions = db.select({ id: modelVersion.id }).from(modelVersion).where(eq(modelVersion.modelId, id));
  return versions.unionAll(db.select({ id: datasetVersion.id }).from(datasetVersion).where(eq(datasetVersion.datasetId, id))).prepare();
});

const hasText = (): SQL => {
  const text = sql.placeholder('text');
  const contains = (column: SQLWrapper) => sql`instr(lower(${column}), lower(${text})) > 0`;
  const models = sql`(SELECT id FROM ${model} WHERE ${contains(model.name)})`;
  const datasets = sql`(SELECT id FROM ${dataset} WHERE ${contains(dataset.name)})`;
  // The failure is behind the JSON of its row, and slow to read.
  return sql`(
    (${job.state} = 'FAILED' AND ${contains(sql`coalesce(${job.failureCode} || ': ' || ${job.failureMessage}, '')`)})
    OR ${job.createdById} IN (SELECT id FROM ${user} WHERE ${contains(user.name)})
    OR EXISTS (SELECT 1 FROM ${jobSubject} WHERE ${jobSubject.jobId} = ${job.id} AND (
      ${jobSubject.subjectId} IN ${models}
      OR EXISTS (SELECT 1 FROM ${modelVersion} WHERE ${modelVersion.id} = ${jobSubject.subjectId} AND ${modelVersion.modelId} IN ${models})
      OR EXISTS (SELECT 1 FROM ${datasetVersion} WHERE ${datasetVersion.id} = ${jobSubject.subjectId} AND ${datasetVersion.datasetId} IN ${datasets})
    ))
  )`;
};

/**
 * What a job must be for each part of a filter. Each is a question about one job, since lists are read in slices: a list of all jobs that pass
 * would be made again for each slice. With a `+` SQLite leaves other indexes alone: `job_list` has the order and these columns.
 */
const conditions = {
  kinds: isIn(sql`+${job.kind}`, 'kinds'),
  states: isIn(sql`+${job.state}`, 'states'),
  createdById: sql`+${job.createdById} = ${sql.placeholder('createdById')}`,
  parentId: eq(job.parentId, sql.placeholder('parentId')),
  subject0: isAbout(0),
  subject1: isAbout(1),
  subject2: isAbout(2),
  subject3: isAbout(3),
  tags: hasTags(job.id, sql.placeholder('tags')),
  text: hasText(),
};
type Part = keyof typeof conditions;

/** The filter's parts that are set, and the arguments of a query with their conditions. */
export function partsOf(db: Queryable, { kinds, states, createdById, parentId, subjectIds = [], tags, text }: JobFilter) {
  const about = subjectIds.map((id, n) => [
    `subject${n}`,
    jsonList([
      id,
      ...idsOfSubject(db)
        .all({ id })
        .map((version) => version.id),
    ]),
  ]);
  const values: Partial<Record<Part, string | null>> = {
    kinds: kinds && jsonList(kinds),
    states: states && jsonList(states),
    createdById,
    parentId,
    ...Object.fromEntries(about),
    tags: wantedTags(tags),
    text: text || null,
  };
  const parts = (Object.keys(conditions) as Part[]).filter((part) => (values[part] ?? null) !== null);
  return { parts, values };
}

/** Conditions of a filter that are not compiled: their number and their comparisons differ from list to list. */
export const measured = (filter: JobFilter): SQL[] => [
  ...hasMetrics(job.id, 'jobId', filter),
  ...trainedWith(filter).map((isOne) => isOne(job.id)),
];

/** When a job was made, and its id. */
interface Place {
  at: number;
  id: string;
}

const latest = Number.MAX_SAFE_INTEGER;
/** Behind every id. */
const lastId = '~';

/** `start` is before the first place of a filter, `last` behind its last one. */
const orders = {
  NEWEST: {
    ...directions.DESCENDING,
    start: ({ createdBefore }: JobFilter): Place => ({ at: createdBefore ?? latest, id: '' }),
    last: ({ createdAfter }: JobFilter): Place => ({ at: createdAfter ?? 0, id: '' }),
  },
  OLDEST: {
    ...directions.ASCENDING,
    start: ({ createdAfter }: JobFilter): Place => ({ at: createdAfter ?? 0, id: '' }),
    last: ({ createdBefore }: JobFilter): Place => ({ at: (createdBefore ?? latest) - 1, id: lastId }),
  },
};
export type JobOrder = keyof typeof orders;

const place = sql`(${job.createdAt}, ${job.id})`;
/** Two bounds and no others: SQLite takes each of them from the index. */
const isWithin = (order: JobOrder): SQL => {
  const { behind, upTo } = orders[order];
  const [from, to] = [
    sql`(${sql.placeholder('at')}, ${sql.placeholder('id')})`,
    sql`(${sql.placeholder('endAt')}, ${sql.placeholder('endId')})`,
  ];
  return sql`${place} ${behind} ${from} AND ${place} ${upTo} ${to}`;
};

/** The last place of a slice. */
const slicesOf = (order: JobOrder) =>
  prepared((db) => {
    const { by } = orders[order];
    const places = db.select({ at: job.createdAt, id: job.id }).from(job).where(isWithin(order)).orderBy(by(job.createdAt), by(job.id));
    return places
      .limit(1)
      .offset(sliceRows - 1)
      .prepare();
  });
export const sliceQueries = { NEWEST: slicesOf('NEWEST'), OLDEST: slicesOf('OLDEST') };

/** One for each order and choice of conditions, built when it is first asked for. */
const listQueries = new Map<string, ReturnType<typeof prepared<ReturnType<typeof listQuery>>>>();
function compiledList(order: JobOrder, parts: Part[]) {
  const key = [order, ...parts].join(' ');
  const query = listQueries.get(key) ?? prepared((db) => listQuery(db, order, parts, []));
  listQueries.set(key, query);
  return query;
}

export function listQuery(db: Queryable, order: JobOrder, parts: Part[], more: SQL[]) {
  const { by } = orders[order];
  return db
    .select()
    .from(job)
    .where(and(isWithin(order), ...parts.map((part) => conditions[part]), ...more))
    .orderBy(by(job.createdAt), by(job.id))
    .limit(limitArgument)
    .prepare();
}

export const jobKey = ({ createdAt, id }: Job): string => `${createdAt} ${id}`;
export const isJobKey = (key: unknown): key is string => typeof key === 'string' && /^\d{1,15} [\w-]{1,100}$/.test(key);

/** Whether a list is read in slices. Without conditions its limit is its end, and an index has the few children of a job. */
const isLong = (parts: readonly Part[], more: readonly SQL[]): boolean => parts.length + more.length > 0 && !parts.includes('parentId');

/** Reads jobs behind a place, in slices or at once. */
function alongJobs(
  { db, request }: Reader,
  filter: JobFilter,
  order: JobOrder,
  slices: boolean,
  start: Place,
  read: (slice: Slice) => boolean,
): Promise<void> {
  const last = orders[order].last(filter);
  const slice = (behind: Place, end: Place) => ({ ...behind, endAt: end.at, endId: end.id });
  const endOf = (behind: Place) => (slices ? (sliceQueries[order](db).get(slice(behind, last)) ?? null) : null);
  return inSlices(request, start, endOf, (behind, end) => read(slice(behind, end ?? last)));
}

/** Jobs behind the key `after`. */
export async function listJobs(reader: Reader, filter: JobFilter, order: JobOrder, limit: number, after: string | null): Promise<Job[]> {
  const { db } = reader;
  const [at, id = ''] = after?.split(' ') ?? [];
  const start = at === undefined ? orders[order].start(filter) : { at: Number(at), id };
  const { parts, values } = partsOf(db, filter);
  const more = measured(filter);
  const query = more.length > 0 ? listQuery(db, order, parts, more) : compiledList(order, parts)(db);
  return firstInSlices(
    limit,
    (read) => alongJobs(reader, filter, order, isLong(parts, more), start, read),
    (slice) => query.all({ ...values, ...slice }),
  );
}

const timesOf = ({ createdAfter, createdBefore }: JobFilter) => ({
  createdAfter: createdAfter ?? 0,
  createdBefore: createdBefore ?? latest,
});

/** Jobs that have measured a metric, in its order, behind the key `after`. */
export async function listJobsByMetric(reader: Reader, filter: JobFilter, order: MetricOrder, limit: number, after: string | null) {
  const { parts, values } = partsOf(reader.db, filter);
  const query = metricListQuery(reader.db, filter, order, parts);
  return firstInSlices(
    limit,
    (read) => alongMetric(reader, order, after, read),
    (slice) => query.all({ ...values, ...timesOf(filter), ...slice }),
  );
}

export function metricListQuery(db: Queryable, filter: JobFilter, order: MetricOrder, parts: Part[]) {
  const { where, by } = inMetricOrder(order);
  const within = sql`+${job.createdAt} >= ${sql.placeholder('createdAfter')} AND +${job.createdAt} < ${sql.placeholder('createdBefore')}`;
  return db
    .select({ ...getTableColumns(job), metricValue: evaluationMetric.value, metricJobId: evaluationMetric.jobId })
    .from(evaluationMetric)
    .innerJoin(job, eq(job.id, evaluationMetric.jobId))
    .where(and(where, within, ...parts.map((part) => conditions[part]), ...measured(filter)))
    .orderBy(...by)
    .limit(limitArgument)
    .prepare();
}

/** How many jobs there are, at most `countMax`; `metric`: only those that have it. */
export async function countListed(reader: Reader, filter: JobFilter, metric: string | null): Promise<number> {
  const { db } = reader;
  const { parts, values } = partsOf(db, filter);
  const more = [...(metric === null ? [] : [hasMetric(job.id, 'jobId', metric)]), ...measured(filter)];
  const query = countQuery(db, parts, more);
  return countInSlices(
    (read) => alongJobs(reader, filter, 'OLDEST', isLong(parts, more), orders.OLDEST.start(filter), read),
    (slice) => query.get({ ...values, ...slice, limit: countMax })?.n ?? 0,
  );
}

export function countQuery(db: Queryable, parts: Part[], more: SQL[]) {
  const found = db
    .select({ one: sql`1`.as('one') })
    .from(job)
    .where(and(isWithin('OLDEST'), ...parts.map((part) => conditions[part]), ...more))
    .limit(limitArgument)
    .as('found');
  return db.select({ n: count() }).from(found).prepare();
}

/** Whether the filter lets this job through, as it is now. */
export function passesFilter(db: Queryable, filter: JobFilter, id: string): boolean {
  const { parts, values } = partsOf(db, filter);
  const { createdAfter, createdBefore } = timesOf(filter);
  const within = and(eq(job.id, id), gte(job.createdAt, createdAfter), lt(job.createdAt, createdBefore));
  const one = db
    .select({ id: job.id })
    .from(job)
    .where(and(within, ...parts.map((part) => conditions[part]), ...measured(filter)));
  return one.prepare().get(values) !== undefined;
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
