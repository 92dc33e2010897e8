import { and, eq, isNull } from 'drizzle-orm';
import { z } from 'zod';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import { type Db, inTransaction, inUrgentTransaction, type Queryable } from '../db.ts';
import { notFound, parseInput, refuse } from '../errors.ts';
import { requireUnused } from '../jobs/inUse.ts';
import { Name, Notes } from '../naming.ts';
import { dropArtifacts } from '../storage/blobs.ts';
import { findDataset, findDatasetByName, findDatasetVersion } from './datasets.ts';
import { type Dataset, type DatasetVersion, dataset, datasetVersion } from './tables.ts';

const UpdateDatasetInput = z.object({ name: Name.nullish(), notes: Notes.nullish() });

/** Changes the name or the notes. */
export function updateDataset({ db }: { db: Db }, actor: Actor, id: string, raw: unknown): Dataset {
  const { name, notes } = parseInput(UpdateDatasetInput, raw);
  return inTransaction(db, (tx) => {
    const before = findDataset(tx, id) ?? notFound('dataset');
    const other = name ? findDatasetByName(tx, name) : undefined;
    if (other && other.id !== id) refuse('TAKEN', 'name', 'Another dataset has this name.');
    const after = tx
      .update(dataset)
      .set({ name: name ?? before.name, notes: notes ?? before.notes })
      .where(eq(dataset.id, id))
      .returning()
      .get();
    writeAudit(tx, actor, { action: 'updateDataset', target: { type: 'Dataset', id }, detail: { from: before.name, to: after.name } });
    return after;
  });
}

/** Leaves a tombstone of the dataset and its versions; the name becomes free. IN_USE while a job needs one of them. */
export function deleteDataset({ db }: { db: Db }, actor: Actor, id: string): Dataset {
  return inUrgentTransaction(db, (tx) => {
    const row = findDataset(tx, id) ?? notFound('dataset');
    const versions = tx
      .select()
      .from(datasetVersion)
      .where(and(eq(datasetVersion.datasetId, id), isNull(datasetVersion.deletedAt)))
      .all();
    for (const version of versions) bury(tx, version);
    const detail = { name: row.name, versions: versions.length };
    writeAudit(tx, actor, { action: 'deleteDataset', target: { type: 'Dataset', id }, detail });
    return tx.update(dataset).set({ deletedAt: Date.now() }).where(eq(dataset.id, id)).returning().get();
  });
}

/** Leaves a tombstone of one version: its metadata and hashes stay, its files go. */
export function deleteDatasetVersion({ db }: { db: Db }, actor: Actor, id: string): DatasetVersion {
  return inUrgentTransaction(db, (tx) => {
    const version = findDatasetVersion(tx, id) ?? notFound('dataset version');
    const detail = { datasetId: version.datasetId, number: version.number };
    writeAudit(tx, actor, { action: 'deleteDatasetVersion', target: { type: 'DatasetVersion', id }, detail });
    return bury(tx, version);
  });
}

/** The rows of its items and the extracted images are many: `sweepDatasets` takes them. */
function bury(tx: Queryable, version: DatasetVersion): DatasetVersion {
  const { id, jobId, number } = version;
  requireUnused(tx, { id, jobId, what: `version ${number}` });
  dropArtifacts(tx, 'DATASET_VERSION', id);
  return tx.update(datasetVersion).set({ deletedAt: Date.now() }).where(eq(datasetVersion.id, id)).returning().get();
}
