import { eq } from 'drizzle-orm';
import { canonicalHash } from '../canonical.ts';
import { datasetVersion } from '../datasets/tables.ts';
import type { Queryable } from '../db.ts';
import { codeVersion } from '../version.ts';
import { type ModelVersion, modelVersion } from './tables.ts';

/** More generations than anybody trains in a row; keeps a walk over the parents bounded. */
const generationsMax = 100;

/** What a version was made from: its parent, the parent's parent, and so on up to the root. Deleted ones are among them. */
export function parentsOf(db: Queryable, version: Pick<ModelVersion, 'parentId'>): ModelVersion[] {
  const parents: ModelVersion[] = [];
  let id = version.parentId;
  while (id !== null && parents.length < generationsMax) {
    const parent = db.select().from(modelVersion).where(eq(modelVersion.id, id)).get();
    if (!parent) break;
    parents.push(parent);
    id = parent.parentId;
  }
  return parents;
}

/**
 * Says how a version came about: two versions with the same hash were made from the same bytes in the same way by the same code.
 * `spec` is what was asked for, without ids and paths, which differ each time.
 */
export function lineageHashOf(
  db: Queryable,
  { sha256, spec, parentId, datasetVersionId }: { sha256: string; spec: unknown } & Pick<ModelVersion, 'parentId' | 'datasetVersionId'>,
): string {
  const parent = parentId && db.select().from(modelVersion).where(eq(modelVersion.id, parentId)).get();
  const dataset = datasetVersionId && db.select().from(datasetVersion).where(eq(datasetVersion.id, datasetVersionId)).get();
  return canonicalHash({
    artifact: sha256,
    spec,
    parents: parent ? [parent.lineageHash] : [],
    dataset: dataset ? dataset.contentHash : null,
    codeVersion,
  });
}
