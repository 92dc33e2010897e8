import { randomUUIDv7 } from 'node:crypto';
import { copyFileSync, mkdirSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import type { Actor } from '../../src/accounts/audit.ts';
import { user } from '../../src/accounts/tables.ts';
import type { Job } from '../../src/jobs/tables.ts';
import { type CreatedModelVersion, createModel } from '../../src/models/create.ts';
import { importModel } from '../../src/models/import.ts';
import { findModelVersion } from '../../src/models/models.ts';
import type { ModelVersion } from '../../src/models/tables.ts';
import { stagingDir } from '../../src/storage/blobs.ts';
import { completeUpload, hashOfUpload, openUpload, stagingPath } from '../../src/storage/uploads.ts';
import { type Jobs, withJobs } from './jobs.ts';

export interface Imported {
  job: Job;
  version: ModelVersion;
}

export interface Models extends Jobs {
  actor: Actor & { actorId: string };
  /** A complete upload of a file, as `createModel` takes it. */
  upload(path: string, fileName?: string): Promise<{ uploadId: string; sha256: string }>;
  /** A model version of a file, whose import waits in the queue. */
  create(path: string, input?: object): Promise<CreatedModelVersion>;
  /** The same, when its job has ended. */
  import(path: string, input?: object): Promise<Imported>;
  version(id: string): ModelVersion;
}

/** Runs `use` with the models of a new data folder, without a server; imports run once `start` was called. */
export async function withModels<T>(use: (models: Models) => Promise<T>): Promise<T> {
  return withJobs(
    (jobs) => {
      const { config, db } = jobs;
      const actor = { actorId: randomUUIDv7(), requestId: null };
      db.insert(user).values({ id: actor.actorId, name: 'ann', passwordHash: '', role: 'ENGINEER', createdAt: 0 }).run();
      mkdirSync(stagingDir(config.dataDir), { recursive: true });

      const upload: Models['upload'] = async (path, fileName = basename(path)) => {
        const id = randomUUIDv7();
        const row = openUpload(db, { id, userId: actor.actorId, fileName, sizeBytes: statSync(path).size });
        copyFileSync(path, stagingPath(config.dataDir, id));
        await completeUpload(jobs, row, new AbortController().signal);
        return { uploadId: id, sha256: String(hashOfUpload(db, id)) };
      };
      const create: Models['create'] = async (path, { fileName, ...input }: { fileName?: string } = {}) =>
        createModel(jobs, actor, { name: 'digits', task: 'CLASSIFICATION', ...(await upload(path, fileName)), ...input });
      const version = (id: string) => findModelVersion(db, id) as ModelVersion;
      return use({
        ...jobs,
        actor,
        upload,
        create,
        version,
        async import(path, input) {
          const { id, jobId } = (await create(path, input)).version;
          return { job: await jobs.ended(String(jobId)), version: version(id) };
        },
      });
    },
    { kind: importModel },
  );
}
