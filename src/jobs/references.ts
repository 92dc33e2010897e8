/** What specifications and results of jobs name by id. The database keeps its own ids; the API shows those that `node(id)` takes. */
import type { Queryable } from '../db.ts';
import { jobHyperparameter, jobSubject } from './tables.ts';

/** Keys that hold an id or a list of ids, and the type of what they name. */
const typeOf: Record<string, string> = {
  modelId: 'Model',
  modelVersionId: 'ModelVersion',
  modelVersionIds: 'ModelVersion',
  datasetVersionId: 'DatasetVersion',
  evaluationId: 'Evaluation',
  reportId: 'Report',
  conversionJobId: 'Job',
  deploymentId: 'Deployment',
  studyId: 'Study',
  resumeOfJobId: 'Job',
};
const subjectTypes = ['Model', 'ModelVersion', 'DatasetVersion'];

/** A copy of `value` in which each id is what `replace` makes of it. */
export function replaceIds(value: unknown, replace: (type: string, id: string) => unknown, type?: string): unknown {
  if (typeof value === 'string') return type === undefined ? value : replace(type, value);
  if (Array.isArray(value)) return value.map((one) => replaceIds(one, replace, type));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key, replaceIds(one, replace, Object.hasOwn(typeOf, key) ? typeOf[key] : undefined)]),
  );
}

/** The ids of this type in `values`, each once. */
export function idsIn(values: readonly unknown[], wanted: string): string[] {
  const ids = new Set<string>();
  replaceIds(values, (type, id) => type === wanted && ids.add(id));
  return [...ids];
}

/** Remembers what a job works on or has made, so that `jobs` finds it by that. */
export function insertSubjects(tx: Queryable, jobId: string, value: unknown): void {
  const rows = subjectTypes.flatMap((type) => idsIn([value], type)).map((subjectId) => ({ subjectId, jobId }));
  if (rows.length > 0) tx.insert(jobSubject).values(rows).onConflictDoNothing().run();
}

/** As `job_hyperparameter` has a value: SQLite has no booleans. */
export const searchable = (value: unknown): unknown => (typeof value === 'boolean' ? String(value) : value);

/** Remembers the hyperparameters of a training, so that `jobs` and `modelVersions` find it by them. */
export function insertHyperparameters(tx: Queryable, jobId: string, spec: unknown): void {
  const { hyperparameters = {} } = spec as { hyperparameters?: Record<string, unknown> };
  const rows = Object.entries(hyperparameters).flatMap(([name, said]) => {
    const value = searchable(said);
    return typeof value === 'number' || typeof value === 'string' ? [{ jobId, name, value }] : [];
  });
  if (rows.length > 0) tx.insert(jobHyperparameter).values(rows).run();
}
