import { asc, desc, eq } from 'drizzle-orm';
import type { Queryable } from '../db.ts';
import { type EvaluationRow, evaluation } from './tables.ts';

export function findEvaluation(db: Queryable, id: string): EvaluationRow | undefined {
  return db.select().from(evaluation).where(eq(evaluation.id, id)).get();
}

/** What a job has measured. */
export function findEvaluationOf(db: Queryable, jobId: string): EvaluationRow | undefined {
  return db.select().from(evaluation).where(eq(evaluation.jobId, jobId)).get();
}

/** What a model version was measured to reach, newest first. */
export function listEvaluations(db: Queryable, modelVersionId: string, limit: number): EvaluationRow[] {
  return db
    .select()
    .from(evaluation)
    .where(eq(evaluation.modelVersionId, modelVersionId))
    .orderBy(desc(evaluation.createdAt), asc(evaluation.id))
    .limit(limit)
    .all();
}
