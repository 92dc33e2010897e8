import { asc, desc, eq } from 'drizzle-orm';
import type { Queryable } from '../db.ts';
import type { ClassificationFindings, DetectionFindings } from '../jobs/results.ts';
import { type EvaluationRow, evaluation, evaluationFindings } from './tables.ts';

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

/** The matrix is a figure of each class: the EVALUATION file has it. Of 1,000 classes it is a million numbers. */
export type Findings = ClassificationFindings | Omit<DetectionFindings, 'confusion'>;

/** What people should look at; nothing of evaluations of earlier versions of the program. */
export function findFindings(db: Queryable, evaluationId: string): Findings | undefined {
  return db.select().from(evaluationFindings).where(eq(evaluationFindings.evaluationId, evaluationId)).get()?.findingsJson as
    | Findings
    | undefined;
}
