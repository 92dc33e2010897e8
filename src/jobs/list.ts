/** Lists of jobs. */
import { and, asc, desc, eq, type Placeholder, type SQL, type SQLWrapper, sql } from 'drizzle-orm';
import { user } from '../accounts/tables.ts';
import { dataset, datasetVersion } from '../datasets/tables.ts';
import { prepared, type Queryable } from '../db.ts';
import { model, modelVersion } from '../models/tables.ts';
import { age } from './jobs.ts';
import type { JobKindName } from './specs.ts';
import { type Job, type JobState, job, jobSubject } from './tables.ts';

/** Everything is meant where a value is null. */
export interface JobFilter {
  kinds?: readonly JobKindName[] | null;
  states?: readonly JobState[] | null;
  createdById?: string | null;
  parentId?: string | null;
  /** Ids of models, their versions, datasets or their versions: the job works on each of them, or has made it. */
  subjectIds?: readonly string[];
  /** Part of a name of a model, a dataset or the creator, or of the failure. */
  text?: string | null;
  /** Unix milliseconds; `createdBefore` is not included. */
  createdAfter?: number | null;
  createdBefore?: number | null;
}

/** Whether the column is in the list that `jsonList` makes of a compiled query's argument; everything is where that is null. */
const isIn = (column: SQLWrapper, argument: string): SQL => {
  const list = sql.placeholder(argument);
  return sql`(${list} IS NULL OR ${column} IN (SELECT value FROM json_each(${list})))`;
};

const jsonList = (values: readonly string[] | null | undefined) => (values ? JSON.stringify(values) : null);

/** A model or a dataset stands for its versions too. */
const jobsAbout = (subjectId: SQL | Placeholder): SQL => sql`
  SELECT "jobId" FROM ${jobSubject} WHERE ${jobSubject.subjectId} IN (
    SELECT ${subjectId}
    UNION ALL SELECT id FROM ${modelVersion} WHERE ${modelVersion.modelId} = ${subjectId}
    UNION ALL SELECT id FROM ${datasetVersion} WHERE ${datasetVersion.datasetId} = ${subjectId}
  )`;

/** Whether a job is about every id of the argument. The first one is looked for by `aboutFirst`, which has the index. */
const isAboutAll = (): SQL => {
  const list = sql.placeholder('subjectIds');
  return sql`(${list} IS NULL OR NOT EXISTS (SELECT 1 FROM json_each(${list}) AS wanted WHERE ${job.id} NOT IN (${jobsAbout(sql`wanted.value`)})))`;
};
const aboutFirst = (): SQL => sql`${job.id} IN (${jobsAbout(sql.placeholder('subjectId'))})`;

const hasText = (): SQL => {
  const text = sql.placeholder('text');
  const contains = (column: SQLWrapper) => sql`instr(lower(${column}), lower(${text})) > 0`;
  return sql`(
    ${text} IS NULL
    OR ${contains(sql`coalesce(${job.failureCode} || ': ' || ${job.failureMessage}, '')`)}
    OR ${job.createdById} IN (SELECT id FROM ${user} WHERE ${contains(user.name)})
    OR ${job.id} IN (SELECT "jobId" FROM ${jobSubject} WHERE ${jobSubject.subjectId} IN (
      SELECT id FROM ${model} WHERE ${contains(model.name)}
      UNION ALL SELECT version.id FROM ${modelVersion} AS version JOIN ${model} ON ${model.id} = version."modelId" WHERE ${contains(model.name)}
      UNION ALL SELECT version.id FROM ${datasetVersion} AS version JOIN ${dataset} ON ${dataset.id} = version."datasetId" WHERE ${contains(dataset.name)}
    ))
  )`;
};

/** Whether a job is one that a filter, as `argumentsOf` gives it to a compiled query, lets through. */
const passes = (): SQL | undefined =>
  and(
    sql`${job.createdAt} >= ${sql.placeholder('createdAfter')} AND ${job.createdAt} < ${sql.placeholder('createdBefore')}`,
    isIn(job.kind, 'kinds'),
    isIn(job.state, 'states'),
    isIn(job.createdById, 'createdByIds'),
    isIn(job.parentId, 'parentIds'),
    isAboutAll(),
    hasText(),
  );

const argumentsOf = ({ kinds, states, createdById, parentId, subjectIds = [], text, createdAfter, createdBefore }: JobFilter) => ({
  kinds: jsonList(kinds),
  states: jsonList(states),
  createdByIds: jsonList(createdById ? [createdById] : null),
  parentIds: jsonList(parentId ? [parentId] : null),
  subjectIds: jsonList(subjectIds.length > 0 ? subjectIds : null),
  text: text || null,
  createdAfter: createdAfter ?? 0,
  createdBefore: createdBefore ?? Number.MAX_SAFE_INTEGER,
});

const jobsBehind = (db: Queryable, isBehind: SQL, order: typeof asc, about: SQL | undefined) =>
  db
    .select()
    .from(job)
    .where(and(about, sql`(${job.createdAt}, ${job.id}) ${isBehind} (${sql.placeholder('at')}, ${sql.placeholder('id')})`, passes()))
    .orderBy(order(job.createdAt), order(job.id))
    .limit(sql.placeholder('limit'))
    .prepare();

/** The jobs behind one in an order, in time or first by what they are about, and the key before the first. */
const orders = {
  NEWEST: {
    start: ({ createdBefore }: JobFilter) => `${createdBefore ?? Number.MAX_SAFE_INTEGER} `,
    all: prepared((db) => jobsBehind(db, sql`<`, desc, undefined)),
    about: prepared((db) => jobsBehind(db, sql`<`, desc, aboutFirst())),
  },
  OLDEST: {
    start: ({ createdAfter }: JobFilter) => `${createdAfter ?? 0} `,
    all: prepared((db) => jobsBehind(db, sql`>`, asc, undefined)),
    about: prepared((db) => jobsBehind(db, sql`>`, asc, aboutFirst())),
  },
};
export type JobOrder = keyof typeof orders;

/** When a job was made, and its id. */
export const jobKey = ({ createdAt, id }: Job): string => `${createdAt} ${id}`;
export const isJobKey = (key: unknown): key is string => typeof key === 'string' && /^\d{1,15} [\w-]{1,100}$/.test(key);

/** Jobs behind the key `after`. */
export function listJobs(db: Queryable, filter: JobFilter, order: JobOrder, limit: number, after: string | null): Job[] {
  const { start, all, about } = orders[order];
  const [at, id = ''] = (after ?? start(filter)).split(' ');
  const behind = { at: Number(at), id, limit, ...argumentsOf(filter) };
  const [subjectId] = filter.subjectIds ?? [];
  return subjectId === undefined ? all(db).all(behind) : about(db).all({ ...behind, subjectId });
}

const passesQuery = prepared((db) =>
  db
    .select({ id: job.id })
    .from(job)
    .where(and(eq(job.id, sql.placeholder('id')), passes()))
    .prepare(),
);

/** Whether the filter lets this job through, as it is now. */
export function passesFilter(db: Queryable, filter: JobFilter, id: string): boolean {
  return passesQuery(db).get({ id, ...argumentsOf(filter) }) !== undefined;
}

const childrenQuery = prepared((db) =>
  db
    .select()
    .from(job)
    .where(eq(job.parentId, sql.placeholder('parentId')))
    .orderBy(age)
    .limit(sql.placeholder('limit'))
    .prepare(),
);

/** The jobs that a job has made, first to last. */
export function listChildren(db: Queryable, parentId: string, limit: number): Job[] {
  return childrenQuery(db).all({ parentId, limit });
}
