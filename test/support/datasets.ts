import { randomUUIDv7 } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import type Sqlite from 'better-sqlite3';
import type { Actor } from '../../src/accounts/audit.ts';
import { user } from '../../src/accounts/tables.ts';
import { type CreatedDatasetVersion, createDataset } from '../../src/datasets/create.ts';
import { findDatasetVersion } from '../../src/datasets/datasets.ts';
import { importDataset } from '../../src/datasets/import/kind.ts';
import type { DatasetVersion } from '../../src/datasets/tables.ts';
import type { Job } from '../../src/jobs/tables.ts';
import { stagingDir } from '../../src/storage/blobs.ts';
import { completeUpload, hashOfUpload, openUpload, stagingPath } from '../../src/storage/uploads.ts';
import { type Files, zipOf } from './images.ts';
import { type Jobs, withJobs } from './jobs.ts';

/** Datasets are as versions of Whetstone have left them that unpacked images: no table says where these are in the zips. */
export const forgetImages = (client: Sqlite.Database): void => void client.exec("DELETE FROM artifact WHERE kind = 'IMAGES'");

export interface Datasets extends Jobs {
  actor: Actor & { actorId: string };
  /** A complete upload of a zip, as `createDataset` takes it. */
  upload(zip: Buffer | Files): Promise<{ uploadId: string; sha256: string }>;
  /** A dataset version of a zip, whose import waits in the queue. */
  create(zip: Buffer | Files, input?: object): Promise<CreatedDatasetVersion>;
  /** The same, when its job has ended: the version that the job's result names, or its own. */
  import(zip: Buffer | Files, input?: object): Promise<{ job: Job; version: DatasetVersion }>;
  version(id: string): DatasetVersion;
}

/** Runs `use` with the datasets of a new data folder, without a server; imports run once `start` was called. */
export async function withDatasets<T>(use: (datasets: Datasets) => Promise<T>): Promise<T> {
  return withJobs(
    (jobs) => {
      const { config, db } = jobs;
      const actor = { actorId: randomUUIDv7(), requestId: null };
      db.insert(user).values({ id: actor.actorId, name: 'ann', passwordHash: '', role: 'ENGINEER', createdAt: 0 }).run();
      mkdirSync(stagingDir(config.dataDir), { recursive: true });

      const upload: Datasets['upload'] = async (zip) => {
        const bytes = Buffer.isBuffer(zip) ? zip : zipOf(zip);
        const id = randomUUIDv7();
        const row = openUpload(db, { id, userId: actor.actorId, fileName: 'digits.zip', sizeBytes: bytes.length });
        writeFileSync(stagingPath(config.dataDir, id), bytes);
        await completeUpload(jobs, row, new AbortController().signal);
        return { uploadId: id, sha256: String(hashOfUpload(db, id)) };
      };
      const create: Datasets['create'] = async (zip, input = {}) =>
        createDataset(jobs, actor, { name: 'digits', task: 'CLASSIFICATION', ...(await upload(zip)), ...input });
      const version = (id: string) => findDatasetVersion(db, id) as DatasetVersion;
      return use({
        ...jobs,
        actor,
        upload,
        create,
        version,
        async import(zip, input) {
          const { version: made } = await create(zip, input);
          const job = await jobs.ended(made.jobId as string);
          return { job, version: version(String(job.resultJson?.datasetVersionId ?? made.id)) };
        },
      });
    },
    { kind: importDataset },
  );
}
