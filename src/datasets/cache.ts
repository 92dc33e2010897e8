/**
 * The images of READY versions, unpacked for trainings: `cache/images/<content hash>`, made whole under another name and then moved
 * there, so that a folder with that name is complete. It can always be made again from the version's zip.
 */
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { attemptLimits } from '../jobs/attempt.ts';
import { recordChild } from '../jobs/executor/leftChildren.ts';
import { startChild } from '../jobs/executor/local.ts';
import { requireJob } from '../jobs/jobs.ts';
import { AttemptCrash, JobFailure, type JobServices } from '../jobs/kinds.ts';
import { PROTOCOL_VERSION, parseEventLine } from '../jobs/protocol.ts';
import { diskFullCode } from '../jobs/record.ts';
import { storedSpec } from '../jobs/storedSpec.ts';
import { blobPath, findArtifact } from '../storage/blobs.ts';
import { diskFull, hasRoom } from '../storage/disk.ts';
import { importCommand } from './import/launch.ts';
import { files } from './import/outputs.ts';
import { ImportDatasetRequest, specOf } from './import/request.ts';
import type { DatasetVersion } from './tables.ts';

export const cacheDir = (dataDir: string): string => join(dataDir, 'cache', 'images');

/** Where a version is unpacked before the folder gets its name. */
const unfinished = (dataDir: string, contentHash: string): string => join(cacheDir(dataDir), `.${contentHash}`);

/** By content hash, for all who wait for the same. */
const unpacking = new Map<string, Promise<void>>();

/** Moves what an import has unpacked into the cache, unless it is there. */
export async function keepExtracted(dataDir: string, folder: string, contentHash: string): Promise<void> {
  await mkdir(cacheDir(dataDir), { recursive: true });
  await rename(folder, join(cacheDir(dataDir), contentHash)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
  });
}

/** The folder of a READY version's images, for reading. When it cannot be made again: throws DISK_FULL, or a JobFailure. */
export async function extractedFolder(services: JobServices, version: DatasetVersion): Promise<string> {
  const hash = version.contentHash;
  if (version.state !== 'READY' || hash === null) throw new Error('Only a READY version has images.');
  const folder = join(cacheDir(services.config.dataDir), hash);
  if (!existsSync(folder)) {
    const made = unpacking.get(hash) ?? unpack(services, version, hash).finally(() => unpacking.delete(hash));
    unpacking.set(hash, made);
    await made;
  }
  return folder;
}

async function unpack({ config, db }: JobServices, { id, jobId }: DatasetVersion, hash: string): Promise<void> {
  const manifest = findArtifact(db, 'DATASET_VERSION', id, 'MANIFEST');
  if (!manifest) throw new Error('A READY version has no manifest.');
  const job = requireJob(db, jobId as string);
  // The settings may be smaller today: what was imported stays.
  const unlimited = { ...config, importFilesMax: Number.MAX_SAFE_INTEGER, importBytesMax: undefined };
  const spec = specOf(unlimited, ImportDatasetRequest.parse(storedSpec(job)));
  const workDir = unfinished(config.dataDir, hash);
  await rm(workDir, { recursive: true, force: true });
  await mkdir(workDir, { recursive: true });
  try {
    const { env, ...command } = importCommand(spec, workDir, blobPath(config.dataDir, manifest.sha256));
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
      if (isFull) throw diskFull('the images of the dataset could not be unpacked again');
      if (signal !== null) throw new AttemptCrash(`The process that unpacks the images of the dataset was killed by ${signal}.`);
      throw new JobFailure('DATASET_UNAVAILABLE', `The images of the dataset could not be unpacked again: ${failure.message}`);
    }
    await keepExtracted(config.dataDir, join(workDir, files.extracted), hash);
  } finally {
    await rm(workDir, { recursive: true, force: true });
  }
}

/** Folders whose content hash is not needed, what a dead server left unfinished, and those of earlier versions. */
export async function uselessExtracts(dataDir: string, isNeeded: (contentHash: string) => boolean): Promise<string[]> {
  const folder = cacheDir(dataDir);
  const names = existsSync(folder) ? await readdir(folder) : [];
  const useless = names.filter((name) => !(name.startsWith('.') ? unpacking.has(name.slice(1)) : isNeeded(name)));
  // Earlier versions kept files there as they were uploaded, also those that not every reader decodes alike.
  return [join(dataDir, 'cache', 'datasets'), ...useless.map((name) => join(folder, name))];
}

/** Removes them. A version that becomes READY meanwhile may lose its folder: it is made again when it is used. */
export async function sweepCache(dataDir: string, isNeeded: (contentHash: string) => boolean): Promise<void> {
  for (const path of await uselessExtracts(dataDir, isNeeded)) {
    // Gone at once under its name, then file by file.
    const trash = join(dirname(path), `.${basename(path).replace(/^\./, '')}`);
    if (trash !== path && existsSync(path)) await rename(path, trash);
    await rm(trash, { recursive: true, force: true });
  }
}
