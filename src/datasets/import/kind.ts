import { createReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setImmediate } from 'node:timers/promises';
import { and, eq, isNull, ne } from 'drizzle-orm';
import { withCheckpoints } from '../../checkpoints.ts';
import { type Db, inUnsyncedTransaction, type Queryable, rowInsert } from '../../db.ts';
import { refuse } from '../../errors.ts';
import type { JobKind } from '../../jobs/kinds.ts';
import { isInputFault } from '../../jobs/states.ts';
import { storedSpec } from '../../jobs/storedSpec.ts';
import { type Job, job } from '../../jobs/tables.ts';
import { dropArtifacts, findArtifact, insertArtifact, storeFile } from '../../storage/blobs.ts';
import { findContent, findDatasetVersion, findVersionEver } from '../datasets.ts';
import { removeItems } from '../sweep.ts';
import { type DatasetItemRow, type DatasetVersion, dataset, datasetItem, datasetItemLabel, datasetVersion } from '../tables.ts';
import { importCommand, importTimeLimitMs } from './launch.ts';
import { classesOf, createContentHash, DatasetSummary, files, ImportedItem } from './outputs.ts';
import { ImportDatasetRequest, specOf } from './request.ts';

/** Images that were left out of a version, of which the names are stored. */
const leftOutStored = 100;

/** Items and boxes of a transaction: 500 items keep the event loop for about 10 ms. */
const chunkSize = 500;
/** Transactions between two checkpoints: their pages are fewer than those from which a commit would wait for the disk. */
const checkpointEvery = 8;

const requestOf = (job: Job): ImportDatasetRequest => ImportDatasetRequest.parse(storedSpec(job));

/** An uploaded zip becomes a dataset version. */
export const importDataset: JobKind = {
  timeLimitMs: importTimeLimitMs,

  launch({ config }, attempt) {
    const spec = specOf(config, requestOf(attempt.job));
    return { ...importCommand(spec, attempt.workDir), spec };
  },

  async finish(services, { job, workDir }, { artifacts }) {
    const { db } = services;
    const { datasetVersionId: id } = requestOf(job);
    const version = findDatasetVersion(db, id);
    if (!version) throw new Error('The version of an import is gone.');
    const summary = DatasetSummary.parse(JSON.parse(await readFile(join(workDir, files.summary), 'utf8')));
    if (findContent(db, version.datasetId, summary.contentHash)) return (tx) => register(tx, version, summary, () => {});

    const manifest = await storeFile(services, join(workDir, files.manifest));
    const thumbnails = await storeFile(services, join(workDir, files.thumbnails));
    const images = await storeFile(services, join(workDir, files.images));
    for (const stored of [manifest, thumbnails, images]) {
      if (!artifacts.some(({ sha256 }) => sha256 === stored.sha256)) throw new Error('A file is not the one that the import has made.');
    }
    await insertItems(db, id, join(workDir, files.items), summary);
    return (tx) =>
      register(tx, version, summary, () => {
        const owner = { ownerType: 'DATASET_VERSION', ownerId: id } as const;
        insertArtifact(tx, manifest, { ...owner, kind: 'MANIFEST', name: files.manifest });
        insertArtifact(tx, thumbnails, { ...owner, kind: 'THUMBNAILS', name: files.thumbnails });
        insertArtifact(tx, images, { ...owner, kind: 'IMAGES', name: files.images });
      });
  },

  undo(tx, failed) {
    const { datasetVersionId } = requestOf(failed);
    tx.update(datasetVersion).set({ state: 'FAILED' }).where(eq(datasetVersion.id, datasetVersionId)).run();
    const failure = tx.select({ code: job.failureCode }).from(job).where(eq(job.id, failed.id)).get();
    if (!isInputFault(failure?.code)) return;
    dropArtifacts(tx, 'DATASET_VERSION', datasetVersionId);
    freeName(tx, datasetVersionId);
  },

  redo(tx, retried) {
    const { datasetVersionId: id } = requestOf(retried);
    const kept = findArtifact(tx, 'DATASET_VERSION', id, 'DATASET_ZIP');
    if (!findDatasetVersion(tx, id) || !kept) refuse('INVALID', 'jobId', 'The file is not stored any more: upload it again.');
    tx.update(datasetVersion).set({ state: 'IMPORTING', jobId: retried.id }).where(eq(datasetVersion.id, id)).run();
  },
};

/** A dataset whose only imports were refused gives its name back: the next one may have another task. */
function freeName(tx: Queryable, versionId: string): void {
  const { datasetId } = findVersionEver(tx, versionId) as DatasetVersion;
  const alive = and(eq(datasetVersion.datasetId, datasetId), isNull(datasetVersion.deletedAt), ne(datasetVersion.state, 'FAILED'));
  const other = tx.select({ id: datasetVersion.id }).from(datasetVersion).where(alive).get();
  if (!other) tx.update(dataset).set({ deletedAt: Date.now() }).where(eq(dataset.id, datasetId)).run();
}

/** Makes the version READY, or removes it when the dataset has its content already; the result names the one that has it. */
function register(
  tx: Queryable,
  { id, datasetId }: DatasetVersion,
  summary: DatasetSummary,
  insertFiles: () => void,
): Record<string, unknown> {
  const { contentHash, classes, sizeBytes, leftOut, ...counts } = summary;
  const existing = findContent(tx, datasetId, contentHash);
  if (existing) {
    dropArtifacts(tx, 'DATASET_VERSION', id);
    tx.delete(datasetVersion).where(eq(datasetVersion.id, id)).run();
    return { datasetVersionId: existing.id, contentHash, existing: true };
  }
  insertFiles();
  tx.update(datasetVersion)
    .set({
      state: 'READY',
      contentHash,
      classesJson: classes,
      countsJson: { ...counts, leftOut: { count: leftOut.length, first: leftOut.slice(0, leftOutStored) } },
      sizeBytes,
    })
    .where(eq(datasetVersion.id, id))
    .run();
  return { datasetVersionId: id, contentHash, existing: false };
}

const insertItem = rowInsert(datasetItem);
const insertLabel = rowInsert(datasetItemLabel);

/**
 * Inserts the items of a version that is not READY yet, so that nobody sees them, in transactions that leave others their turn.
 * What an attempt that was lost has inserted goes first. Throws when the items are not those of the summary.
 */
export async function insertItems(db: Db, versionId: string, path: string, summary: DatasetSummary): Promise<void> {
  await removeItems(db, versionId);
  await withCheckpoints(db, (checkpoint) => insertAll(db, versionId, path, summary, checkpoint));
}

async function insertAll(db: Db, versionId: string, path: string, summary: DatasetSummary, checkpoint: () => Promise<void>): Promise<void> {
  const hash = createContentHash(summary.boxesBySplit ? 'DETECTION' : 'CLASSIFICATION', summary.classes);
  let n = 0;
  let rows: DatasetItemRow[] = [];
  let labels: (typeof datasetItemLabel.$inferSelect)[] = [];
  let size = 0;
  let flushed = 0;
  const flush = async () => {
    inUnsyncedTransaction(db, (tx) => {
      for (const row of rows) insertItem(tx, row);
      for (const row of labels) insertLabel(tx, row);
    });
    [rows, labels, size] = [[], [], 0];
    flushed += 1;
    await (flushed % checkpointEvery === 0 ? checkpoint() : setImmediate());
  };
  for await (const line of createInterface({ input: createReadStream(path) })) {
    const item = ImportedItem.parse(JSON.parse(line));
    const shown = classesOf(item);
    if (item.n !== n || shown.some((label) => label >= summary.classes.length)) throw new Error('The items of an import are not in order.');
    hash.add(item);
    n += 1;
    const { boxes, ...row } = item;
    rows.push({ versionId, ...row, boxesJson: boxes });
    for (const label of shown) labels.push({ versionId, n: item.n, label });
    size += 1 + (boxes?.length ?? 0);
    if (size >= chunkSize) await flush();
  }
  await flush();
  await checkpoint();
  if (n !== summary.items || hash.digest(summary.leftOut) !== summary.contentHash) {
    throw new Error('The items of an import are not those of its summary.');
  }
}
