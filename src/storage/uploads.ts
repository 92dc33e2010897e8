/**
 * Uploads: rows of `upload`, and one file each in the staging folder while they are OPEN. These functions alone move an upload on.
 *
 *   OPEN      bytes are appended to the file `uploads/<id>`; its size is the offset
 *   COMPLETE  all bytes are a blob that an artifact of the upload names. Sequence: fsync → hash → blob's row → link under the blob's name →
 *             fsync of the folder → one transaction (artifact, COMPLETE) → the staging name goes. Killed before the transaction the upload
 *             is OPEN with all its bytes, and completed when its client next asks; killed after it, a name is left that the next start removes.
 *   CONSUMED  `takeUpload`, in the transaction that inserts what it is used for: the blob changes its owner, nothing moves on the disk.
 *             A mutation that is repeated with its idempotency key finds its first result before it comes to take anything.
 *   EXPIRED   nobody wrote to it, or used it, for a day. The row of a CONSUMED or EXPIRED upload goes after a week.
 */
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { and, asc, count, eq, inArray, lte } from 'drizzle-orm';
import type { Actor } from '../accounts/audit.ts';
import { inTransaction, inUrgentTransaction, type Queryable } from '../db.ts';
import { ApiError, notFound, refuse } from '../errors.ts';
import { hashFile } from '../hash.ts';
import {
  dropArtifacts,
  findArtifact,
  insertArtifact,
  placeBlob,
  placingBlobs,
  type StorageServices,
  type StoredBlob,
  stagingDir,
  sync,
} from './blobs.ts';
import { checkFileName } from './fileNames.ts';
import { type Upload, upload } from './tables.ts';

/** An upload that is not used, and not written to, lives this long. */
export const unusedMs = 24 * 3600_000;
/** The row of a used or expired upload is kept this long, so that its id can still be explained. */
const rememberedMs = 7 * 24 * 3600_000;
/** Uploads of one user in each of these states. */
const countMax = { OPEN: 20, COMPLETE: 1000 } as const;
/** Uploads that one run of the sweeper moves on. */
const sweptMax = 1000;

export const stagingPath = (dataDir: string, id: string): string => join(stagingDir(dataDir), id);

/** Registers an upload that is to be received; throws INVALID for a name or size that will not do, LIMIT for too many. */
export function openUpload(
  db: Queryable,
  { id, userId, fileName, sizeBytes }: Pick<Upload, 'id' | 'userId' | 'fileName' | 'sizeBytes'>,
): Upload {
  checkFileName(fileName);
  if (sizeBytes === 0) throw emptyFile();
  for (const state of ['OPEN', 'COMPLETE'] as const) {
    const mine = and(eq(upload.userId, userId), eq(upload.state, state));
    const held = db.select({ n: count() }).from(upload).where(mine).get()?.n ?? 0;
    if (held >= countMax[state]) {
      const what = state === 'OPEN' ? 'unfinished uploads: finish or delete one' : 'unused uploads: use or delete one';
      throw new ApiError('LIMIT', `You have ${held} ${what} (GET /uploads lists them), or wait until one expires.`);
    }
  }
  const createdAt = Date.now();
  return db
    .insert(upload)
    .values({ id, userId, fileName, sizeBytes, state: 'OPEN', createdAt, expiresAt: createdAt + unusedMs })
    .returning()
    .get();
}

const emptyFile = () => new ApiError('INVALID', 'The file is empty.');

/** NOT_FOUND for an upload that has expired, too. */
export function findUpload(db: Queryable, id: string): Upload {
  const row = db.select().from(upload).where(eq(upload.id, id)).get();
  return !row || row.state === 'EXPIRED' ? notFound('upload') : row;
}

/** The user's own upload; NOT_FOUND for everybody else's. */
export function requireUpload(db: Queryable, userId: string, id: string): Upload {
  const row = findUpload(db, id);
  return row.userId === userId ? row : notFound('upload');
}

/** The user's uploads that wait for bytes or for their use, oldest first. */
export function listUploads(db: Queryable, userId: string): Upload[] {
  const waiting = and(eq(upload.userId, userId), inArray(upload.state, ['OPEN', 'COMPLETE']));
  return db.select().from(upload).where(waiting).orderBy(asc(upload.id)).all();
}

/** Bytes received so far. */
export async function offsetOf(dataDir: string, row: Upload): Promise<number> {
  if (row.state !== 'OPEN') return row.sizeBytes;
  return stat(stagingPath(dataDir, row.id)).then(
    ({ size }) => size,
    (error: NodeJS.ErrnoException) => (error.code === 'ENOENT' ? 0 : Promise.reject(error)),
  );
}

/** The upload is in use: its day starts again. */
export function touchUpload(db: Queryable, id: string): void {
  db.update(upload)
    .set({ expiresAt: Date.now() + unusedMs })
    .where(and(eq(upload.id, id), eq(upload.state, 'OPEN')))
    .run();
}

/** OPEN → COMPLETE, when the file holds every byte. Call it for one upload once at a time. */
export async function completeUpload(services: StorageServices, row: Upload, signal: AbortSignal): Promise<Upload> {
  const { config, db } = services;
  const path = stagingPath(config.dataDir, row.id);
  if (row.sizeBytes === 0) throw emptyFile();
  await sync(path);
  const stored = { sha256: await hashFile(path, signal), sizeBytes: row.sizeBytes };
  const complete = await placingBlobs(async () => {
    await placeBlob(services, path, stored);
    return inTransaction(db, (tx) => {
      const isOpen = and(eq(upload.id, row.id), eq(upload.state, 'OPEN'));
      const moved = tx
        .update(upload)
        .set({ state: 'COMPLETE', sizeBytes: row.sizeBytes, expiresAt: Date.now() + unusedMs })
        .where(isOpen)
        .returning()
        .get();
      if (moved) insertArtifact(tx, stored, { ownerType: 'UPLOAD', ownerId: row.id, kind: 'UPLOAD', name: row.fileName });
      return moved;
    });
  });
  await rm(path, { force: true });
  return complete ?? notFound('upload');
}

/** Hash of a COMPLETE upload; null of any other. */
export function hashOfUpload(db: Queryable, id: string): string | null {
  return findArtifact(db, 'UPLOAD', id, 'UPLOAD')?.sha256 ?? null;
}

export interface TakenUpload extends StoredBlob {
  uploadId: string;
  fileName: string;
}

/**
 * COMPLETE → CONSUMED, in the transaction of the mutation that uses the upload: pass the result on to `insertArtifact`, in the same
 * transaction, as the blob that the new owner stores. An InputError names `uploadId` or `sha256` when the upload is not the actor's, is
 * not complete, was used, or has another SHA-256 than the one expected.
 */
export function takeUpload(
  tx: Queryable,
  actor: Actor,
  uploadId: string,
  sha256: string,
  fields = { uploadId: 'uploadId', sha256: 'sha256' },
): TakenUpload {
  const row = tx.select().from(upload).where(eq(upload.id, uploadId)).get();
  if (!row || row.userId !== actor.actorId || row.state === 'EXPIRED') {
    refuse('NOT_FOUND', fields.uploadId, 'You have no upload with this id, or it has expired: upload the file again.');
  }
  if (row.state === 'OPEN') refuse('INVALID', fields.uploadId, 'The upload is not complete: send the rest of the file first.');
  if (row.state === 'CONSUMED') refuse('IN_USE', fields.uploadId, 'The upload has been used already: upload the file again.');
  const actual = hashOfUpload(tx, uploadId) ?? notFound('upload');
  if (actual !== sha256.toLowerCase()) {
    refuse('INVALID', fields.sha256, `The SHA-256 of the uploaded file is ${actual}, not the one given. Compare it with your own file's.`);
  }
  dropArtifacts(tx, 'UPLOAD', uploadId);
  tx.update(upload)
    .set({ state: 'CONSUMED', expiresAt: Date.now() + rememberedMs })
    .where(eq(upload.id, uploadId))
    .run();
  return { uploadId, fileName: row.fileName, sha256: actual, sizeBytes: row.sizeBytes };
}

/** Forgets an upload that is not wanted; false for one that was used. */
export async function removeUpload({ config, db }: StorageServices, id: string): Promise<boolean> {
  const removed = inUrgentTransaction(db, (tx) => {
    const unused = and(eq(upload.id, id), inArray(upload.state, ['OPEN', 'COMPLETE']));
    const { changes } = tx.delete(upload).where(unused).run();
    if (changes > 0) dropArtifacts(tx, 'UPLOAD', id);
    return changes > 0;
  });
  if (removed) await rm(stagingPath(config.dataDir, id), { force: true });
  return removed;
}

/** Expires what nobody used, and forgets what ended a week ago: at most 1,000 of both. Returns how many. */
export async function expireUploads({ config, db }: StorageServices, now: number): Promise<number> {
  const due = db.select().from(upload).where(lte(upload.expiresAt, now)).orderBy(asc(upload.expiresAt)).limit(sweptMax).all();
  for (const { id } of due) {
    const expired = inUrgentTransaction(db, (tx) => {
      const isDue = and(eq(upload.id, id), lte(upload.expiresAt, now));
      const waits = and(isDue, inArray(upload.state, ['OPEN', 'COMPLETE']));
      const { changes } = tx
        .update(upload)
        .set({ state: 'EXPIRED', expiresAt: now + rememberedMs })
        .where(waits)
        .run();
      if (changes > 0) dropArtifacts(tx, 'UPLOAD', id);
      else tx.delete(upload).where(isDue).run();
      return changes > 0;
    });
    if (expired) await rm(stagingPath(config.dataDir, id), { force: true });
  }
  return due.length;
}

/** At start: makes the staging folder, and removes from it what belongs to no OPEN upload. */
export async function cleanStaging({ config, db }: StorageServices): Promise<void> {
  const folder = stagingDir(config.dataDir);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const open = new Set(
    db
      .select({ id: upload.id })
      .from(upload)
      .where(eq(upload.state, 'OPEN'))
      .all()
      .map((row) => row.id),
  );
  for (const name of await readdir(folder)) {
    if (!open.has(name)) await rm(join(folder, name), { recursive: true, force: true });
  }
}
