import { randomUUIDv7 } from 'node:crypto';
import { eq, max } from 'drizzle-orm';
import { z } from 'zod';
import { type Actor, writeAudit } from '../accounts/audit.ts';
import { inTransaction, type Queryable } from '../db.ts';
import { parseInput, refuse } from '../errors.ts';
import { announceJob, enqueue, findByIdempotencyKey, type NewJob } from '../jobs/enqueue.ts';
import type { JobServices } from '../jobs/kinds.ts';
import { cpuThreadsOf } from '../jobs/python.ts';
import { NameEncoding } from '../jobs/specs.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import type { Job } from '../jobs/tables.ts';
import { Name, Notes } from '../naming.ts';
import { insertArtifact } from '../storage/blobs.ts';
import { takeUpload } from '../storage/uploads.ts';
import { findDatasetByName } from './datasets.ts';
import { ImportDatasetRequest } from './import/request.ts';
import { type Dataset, type DatasetVersion, dataset, datasetVersion, tasks } from './tables.ts';

const share = z.number('A share is a number.').min(0, 'A share is at least 0.').max(0.9, 'A share is at most 0.9.');

const CreateDatasetInput = z
  .object({
    name: Name,
    task: z.enum(tasks),
    uploadId: z.string(),
    sha256: z.string().regex(/^[0-9a-f]{64}$/i, 'A SHA-256 has 64 hexadecimal digits.'),
    nameEncoding: NameEncoding.nullish(),
    onProblem: z.enum(['REFUSE', 'LEAVE_OUT']).default('REFUSE'),
    leftOutShareMax: z.number().min(0, 'The share is at least 0.').max(1, 'The share is at most 1.').default(0.05),
    splitSeed: z.int().min(0, 'The seed is at least 0.').max(0xffff_ffff, 'The seed is at most 4294967295.').default(0),
    valShare: share.default(0.2),
    testShare: share.default(0),
    notes: Notes.nullish(),
    idempotencyKey: z.string().max(200).nullish(),
  })
  .refine(({ valShare, testShare }) => valShare + testShare <= 0.9, {
    path: ['valShare'],
    message: 'At least a tenth of the images must be left to train on.',
  });

export interface CreatedDatasetVersion {
  dataset: Dataset;
  version: DatasetVersion;
}

/**
 * Makes a version of an uploaded zip, in a new dataset or as the next version of the one that has the name, and puts its import
 * into the queue. An import that finds content that the dataset has already ends with that version, and this one goes.
 */
export function createDataset({ config, db, bus }: JobServices, actor: Actor, raw: unknown): CreatedDatasetVersion {
  const input = parseInput(CreateDatasetInput, raw);
  const { name, task, uploadId, sha256, nameEncoding, onProblem, leftOutShareMax, splitSeed, valShare, testShare, notes } = input;
  const wanted = { kind: 'IMPORT_DATASET', input } as const;
  let queued: Job | undefined;
  const created = inTransaction(db, (tx): CreatedDatasetVersion => {
    const earlier = createdBy(tx, actor, wanted);
    if (earlier) return earlier;
    const { fileName, ...stored } = takeUpload(tx, actor, uploadId, sha256);
    const found = findDatasetByName(tx, name);
    if (found && found.task !== task) refuse('INVALID', 'task', `The dataset ${name} is for ${found.task}.`);
    const row = found ?? insertDataset(tx, { name, task, notes: notes ?? '', createdById: actor.actorId });
    const id = randomUUIDv7();
    insertArtifact(tx, stored, { ownerType: 'DATASET_VERSION', ownerId: id, kind: 'DATASET_ZIP', name: fileName });
    const spec: ImportDatasetRequest = {
      datasetVersionId: id,
      sha256: stored.sha256,
      fileName,
      task,
      nameEncoding: nameEncoding ?? null,
      onProblem,
      leftOutShareMax,
      splitSeed,
      splitShares: { val: valShare, test: testShare },
      cpuThreads: cpuThreadsOf(config),
    };
    queued = enqueue(tx, actor, { ...wanted, spec });
    const last = tx
      .select({ number: max(datasetVersion.number) })
      .from(datasetVersion)
      .where(eq(datasetVersion.datasetId, row.id))
      .get();
    const number = (last?.number ?? 0) + 1;
    const version = tx
      .insert(datasetVersion)
      .values({ id, datasetId: row.id, number, state: 'IMPORTING', splitSeed, jobId: queued.id, createdAt: Date.now() })
      .returning()
      .get();
    writeAudit(tx, actor, { action: 'createDataset', target: { type: 'DatasetVersion', id }, detail: { name, number } });
    return { dataset: row, version };
  });
  if (queued) announceJob(bus, queued);
  return created;
}

/** What an earlier request with this idempotency key has made. */
function createdBy(tx: Queryable, actor: Actor, wanted: Omit<NewJob, 'spec'>): CreatedDatasetVersion | undefined {
  const made = findByIdempotencyKey(tx, actor, wanted);
  if (!made) return undefined;
  // An import of known content has put the version that it found into its result.
  const id = made.resultJson?.datasetVersionId ?? ImportDatasetRequest.parse(storedSpec(made)).datasetVersionId;
  return tx
    .select({ version: datasetVersion, dataset })
    .from(datasetVersion)
    .innerJoin(dataset, eq(dataset.id, datasetVersion.datasetId))
    .where(eq(datasetVersion.id, String(id)))
    .get();
}

function insertDataset(tx: Queryable, values: Pick<Dataset, 'name' | 'task' | 'notes' | 'createdById'>): Dataset {
  return tx
    .insert(dataset)
    .values({ id: randomUUIDv7(), createdAt: Date.now(), ...values })
    .returning()
    .get();
}
