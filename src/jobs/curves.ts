/** The metrics of a job over its steps. */
import { and, asc, eq, sql } from 'drizzle-orm';
import { type Db, prepared } from '../db.ts';
import { inTurn } from '../turns.ts';
import { metricPoint } from './tables.ts';

export interface Curve {
  name: string;
  points: { step: number; epoch: number | null; value: number }[];
}

const isOfJob = eq(metricPoint.jobId, sql.placeholder('jobId'));

const namesQuery = prepared((db) =>
  db.selectDistinct({ name: metricPoint.name }).from(metricPoint).where(isOfJob).orderBy(asc(metricPoint.name)).prepare(),
);

const pointsQuery = prepared((db) =>
  db
    .select({ step: metricPoint.step, epoch: metricPoint.epoch, value: metricPoint.value })
    .from(metricPoint)
    .where(and(isOfJob, eq(metricPoint.name, sql.placeholder('name'))))
    .orderBy(asc(metricPoint.step))
    .prepare(),
);

/**
 * The curves of a job by name, of these names only where there are some. One that has more than `maxPoints` is thinned evenly, its last
 * point kept. A curve has at most 1,000 points and is read in a turn of its own (`request` as in `inTurn`).
 */
export async function readCurves(
  db: Db,
  request: object,
  jobId: string,
  names: readonly string[] | null | undefined,
  maxPoints: number,
): Promise<Curve[]> {
  const wanted = names && new Set(names);
  const curves: Curve[] = [];
  for (const { name } of namesQuery(db).all({ jobId })) {
    if (wanted && !wanted.has(name)) continue;
    curves.push({ name, points: thinned(await inTurn(request, () => pointsQuery(db).all({ jobId, name })), maxPoints) });
  }
  return curves;
}

function thinned<T>(points: T[], most: number): T[] {
  if (points.length <= most) return points;
  return Array.from({ length: most }, (_, i) => points[Math.round((i * (points.length - 1)) / (most - 1))] as T);
}
