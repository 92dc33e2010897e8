import { asc, desc, eq } from 'drizzle-orm';
import type { Queryable } from '../db.ts';
import { type EvaluationRow, evaluation } from './tables.ts';

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
