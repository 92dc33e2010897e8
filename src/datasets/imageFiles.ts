/**
 * The files that a READY version's images are read from: `imageTable.ts` has their form. Versions of before there was such a table get theirs
 * when they are first used.
 */
import { existsSync } from 'node:fs';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { inUrgentTransaction } from '../db.ts';
import { attemptLimits } from '../jobs/attempt.ts';
import { recordChild } from '../jobs/executor/leftChildren.ts';
import { startChild } from '../jobs/executor/local.ts';
import { requireJob } from '../jobs/jobs.ts';
import { AttemptCrash, JobFailure, type JobServices } from '../jobs/kinds.ts';
import { PROTOCOL_VERSION, parseEventLine } from '../jobs/protocol.ts';
import { diskFullCode } from '../jobs/record.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import { blobPath, findArtifact, insertArtifact, placingBlobs, storeFile } from '../storage/blobs.ts';
import { diskFull, hasRoom } from '../storage/disk.ts';
import { findDatasetVersion } from './datasets.ts';
import type { ImageFiles } from './imageTable.ts';
import { importCommand } from './import/launch.ts';
import { files } from './import/outputs.ts';
import { ImportDatasetRequest, specOf } from './import/request.ts';
import type { DatasetVersion } from './tables.ts';

/** Folders in which tables are made, by the version's id. Earlier versions of Whetstone kept the unpacked images of datasets here. */
const cacheDir = (dataDir: string): string => join(dataDir, 'cache');

/** By the version's id, for all who wait for the same. */
const indexing = new Map<string, Promise<void>>();

/** For reading. When its table cannot be made: throws DISK_FULL, or a JobFailure. */
export async function imageFiles(services: JobServices, version: DatasetVersion): Promise<ImageFiles> {
  if (version.state !== 'READY') throw new Error('Only a READY version has images.');
  const { id } = version;
  const pathOf = (kind: 'DATASET_ZIP' | 'IMAGES' | 'MANIFEST'): string | undefined => {
    const found = findArtifact(services.db, 'DATASET_VERSION', id, kind);
    return found && blobPath(services.config.dataDir, found.sha256);
  };
  const zip = pathOf('DATASET_ZIP');
  if (!zip) throw new Error('A READY version has no zip.');
  if (!pathOf('IMAGES')) {
    const manifest = pathOf('MANIFEST');
    if (!manifest) throw new Error('A READY version has no manifest.');
    const made = indexing.get(id) ?? indexImages(services, version, manifest).finally(() => indexing.delete(id));
    indexing.set(id, made);
    await made;
  }
  const images = pathOf('IMAGES');
  if (!images) throw new JobFailure('DATASET_UNAVAILABLE', 'The dataset version was deleted.');
  return { zip, images };
}

async function indexImages(services: JobServices, { id, jobId }: DatasetVersion, manifest: string): Promise<void> {
  const { config, db } = services;
  const job = requireJob(db, jobId as string);
  // The settings may be smaller today: what was imported stays.
  const unlimited = { ...config, importFilesMax: Number.MAX_SAFE_INTEGER, importBytesMax: undefined };
  const spec = specOf(unlimited, ImportDatasetRequest.parse(storedSpec(job)));
  const workDir = join(cacheDir(config.dataDir), id);
  await rm(workDir, { recursive: true, force: true });
  await mkdir(workDir, { recursive: true });
  try {
    const { env, ...command } = importCommand(spec, workDir, manifest);
    const specLine = { v: PROTOCOL_VERSION, job: jobId as string, attempt: 1, workDir, spec } as const;
    let failure = { code: 'INTERNAL', message: 'its process ended without saying why.' };
    const child = startChild(
      { ...command, cwd: workDir, env: { ...config.childEnv, ...env }, specLine, lastLinesMs: attemptLimits.lastLinesMs },
      {
        async events(lines) {
          for (const event of lines.map(parseEventLine)) if ('type' in event && event.type === 'error') failure = event;
        },
        log() {},
      },
    );
    const { exitCode, signal } = await child.ended.finally(recordChild(config.dataDir, child.pid));
    if (exitCode !== 0) {
      // What it dies of on a full disk (a signal, a defect of a library) does not say so.
      const isFull = failure.code === diskFullCode || ((signal !== null || failure.code === 'INTERNAL') && !hasRoom({ config }));
      if (isFull) throw diskFull('the images of the dataset could not be found in its zip');
      if (signal !== null) throw new AttemptCrash(`The process that finds the images of the dataset in its zip was killed by ${signal}.`);
      throw new JobFailure('DATASET_UNAVAILABLE', `The images of the dataset cannot be read from its zip: ${failure.message}`);
    }
    await placingBlobs(async () => {
      const stored = await storeFile(services, join(workDir, files.images));
      inUrgentTransaction(db, (tx) => {
        if (findDatasetVersion(tx, id))
          insertArtifact(tx, stored, { ownerType: 'DATASET_VERSION', ownerId: id, kind: 'IMAGES', name: files.images });
      });
    });
  } finally {
    await rm(workDir, { recursive: true, force: true });
  }
}

/** What a dead server left unfinished, and what earlier versions have unpacked. */
export async function leftInCache(dataDir: string): Promise<string[]> {
  const folder = cacheDir(dataDir);
  const names = existsSync(folder) ? await readdir(folder) : [];
  return names.filter((name) => !indexing.has(name)).map((name) => join(folder, name));
}

/** Removes them. */
export async function sweepCache(dataDir: string): Promise<void> {
  for (const path of await leftInCache(dataDir)) await rm(path, { recursive: true, force: true });
}
