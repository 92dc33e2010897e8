/** Lists of jobs. */
import { and, asc, desc, eq, type SQL, type SQLWrapper, sql } from 'drizzle-orm';
import { prepared, type Queryable } from '../db.ts';
import { age } from './jobs.ts';
import type { JobKindName } from './specs.ts';
import { type Job, type JobState, job } from './tables.ts';

/** Everything is meant where a list is null. */
export interface JobFilter {
  kinds?: readonly JobKindName[] | null;
  states?: readonly JobState[] | null;
  createdById?: string | null;
  parentId?: string | null;
}

/** Whether the column is in the list that `jsonList` makes of a compiled query's argument; everything is where that is null. */
const isIn = (column: SQLWrapper, argument: string): SQL => {
  const list = sql.placeholder(argument);
  return sql`(${list} IS NULL OR ${column} IN (SELECT value FROM json_each(${list})))`;
};

const jsonList = (values: readonly string[] | null | undefined) => (values ? JSON.stringify(values) : null);

const jobsBehind = (db: Queryable, isBehind: SQL, order: typeof asc) =>
  db
    .select()
    .from(job)
    .where(
      and(
        sql`(${job.createdAt}, ${job.id}) ${isBehind} (${sql.placeholder('at')}, ${sql.placeholder('id')})`,
        isIn(job.kind, 'kinds'),
        isIn(job.state, 'states'),
        isIn(job.createdById, 'createdByIds'),
        isIn(job.parentId, 'parentIds'),
      ),
    )
    .orderBy(order(job.createdAt), order(job.id))
    .limit(sql.placeholder('limit'))
    .prepare();

/** The jobs behind one in an order, and the key before the first. */
const orders = {
  NEWEST: { start: `${Number.MAX_SAFE_INTEGER} `, query: prepared((db) => jobsBehind(db, sql`<`, desc)) },
  OLDEST: { start: '-1 ', query: prepared((db) => jobsBehind(db, sql`>`, asc)) },
};
export type JobOrder = keyof typeof orders;

/** When a job was made, and its id. */
export const jobKey = ({ createdAt, id }: Job): string => `${createdAt} ${id}`;
export const isJobKey = (key: unknown): key is string => typeof key === 'string' && /^\d{1,15} [\w-]{1,100}$/.test(key);

/** Jobs behind the key `after`. */
export function listJobs(
  db: Queryable,
  { kinds, states, createdById, parentId }: JobFilter,
  order: JobOrder,
  limit: number,
  after: string | null,
): Job[] {
  const { query, start } = orders[order];
  const [at, id = ''] = (after ?? start).split(' ');
  const filter = {
    kinds: jsonList(kinds),
    states: jsonList(states),
    createdByIds: jsonList(createdById ? [createdById] : null),
    parentIds: jsonList(parentId ? [parentId] : null),
  };
  return query(db).all({ at: Number(at), id, limit, ...filter });
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
