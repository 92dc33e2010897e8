/**
 * Content-addressed bytes: the file `blobs/<first two digits>/<sha256>` and a row of `blob`.
 *
 * A blob comes into being in this order, so that a crash at any moment neither loses bytes nor leaves any behind:
 *   1. its row is written, or made young again when it is there already;
 *   2. its bytes are brought to the disk under their final name;
 *   3. the transaction of whatever owns it inserts an artifact.
 * A blob that no artifact names is garbage. `collectBlobs` takes it once its row is a day old, and once an artifact of it was dropped.
 * It stays away from what is between 1 and 3, which `placingBlobs` knows: the same content may come again while its last owner is
 * deleted. It looks, deletes the row and moves the file away without a pause in between, and 1 is one statement. So either the
 * collector comes first and 2 finds no file, or it stays away.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUIDv7 } from 'node:crypto';
import { renameSync } from 'node:fs';
import { link, mkdir, open, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { and, asc, eq, gt, lte, notExists, sql } from 'drizzle-orm';
import type { Config } from '../config.ts';
import { type Db, inUrgentTransaction, type Queryable } from '../db.ts';
import { hashFile } from '../hash.ts';
import { type Artifact, artifact, blob } from './tables.ts';

export interface StorageServices {
  config: Pick<Config, 'dataDir'>;
  db: Db;
}

/** How long a blob stays that no artifact has named yet. */
const graceMs = 24 * 3600_000;
/** Blobs that one run of the collector removes. */
const removedMax = 1000;
const pageRows = 500;

export const blobPath = (dataDir: string, sha256: string): string => join(dataDir, 'blobs', sha256.slice(0, 2), sha256);

/** Files that are being received or thrown away: nothing in it has a name that anybody else chose. */
export const stagingDir = (dataDir: string): string => join(dataDir, 'uploads');

export interface StoredBlob {
  sha256: string;
  sizeBytes: number;
}

const placing = new AsyncLocalStorage<Set<string>>();
/** The blobs that each unfinished `placingBlobs` has placed. One server uses a data folder, so no other process places any. */
const underWay = new Set<Set<string>>();
const isUnderWay = (sha256: string): boolean => [...underWay].some((placed) => placed.has(sha256));

/** Stores blobs and registers their owners: until `work` has ended, `collectBlobs` stays away from what it has placed. */
export async function placingBlobs<T>(work: () => Promise<T>): Promise<T> {
  const placed = new Set<string>();
  underWay.add(placed);
  try {
    return await placing.run(placed, work);
  } finally {
    underWay.delete(placed);
  }
}

/** Moves a file of the data folder into the store (steps 1 and 2 above) and returns its hash, inside `placingBlobs`. `insertArtifact` is the third step. */
export async function storeFile(services: StorageServices, path: string): Promise<StoredBlob> {
  const stored = { sha256: await hashFile(path), sizeBytes: (await stat(path)).size };
  await placeBlob(services, path, stored);
  await rm(path);
  return stored;
}

/** Steps 1 and 2 for a file whose hash is known; the file keeps its own name too. */
export async function placeBlob({ config, db }: StorageServices, path: string, stored: StoredBlob): Promise<void> {
  const placed = placing.getStore();
  if (!placed) throw new Error('A blob is placed inside placingBlobs.');
  placed.add(stored.sha256);
  const createdAt = Date.now();
  db.insert(blob)
    .values({ ...stored, createdAt })
    .onConflictDoUpdate({ target: blob.sha256, set: { createdAt } })
    .run();
  const target = blobPath(config.dataDir, stored.sha256);
  await mkdir(dirname(target), { recursive: true });
  await sync(path);
  await link(path, target).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  await sync(dirname(target));
}

/** Waits until a file, or the names in a folder, are on the disk. */
export async function sync(path: string): Promise<void> {
  const file = await open(path);
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Names a stored blob for its owner, in the transaction that registers the owner. The same content of a kind stays one artifact. */
export function insertArtifact(
  tx: Queryable,
  { sha256 }: StoredBlob,
  values: Pick<Artifact, 'ownerType' | 'ownerId' | 'kind' | 'name'> & { metaJson?: Record<string, unknown> },
): Artifact {
  return (
    tx
      .insert(artifact)
      .values({ id: randomUUIDv7(), sha256, createdAt: Date.now(), ...values })
      // Sets what is there already, so that the row is returned.
      .onConflictDoUpdate({ target: [artifact.ownerType, artifact.ownerId, artifact.kind, artifact.sha256], set: { sha256 } })
      .returning()
      .get()
  );
}

/** Databases with blobs that `collectBlobs` can take at once, or could soon. */
const collectable = new WeakSet<Queryable>();
/**
 * Whether there are any since the last call. Ask before the first sweep of a round: what is deleted later in the round is for the next one,
 * also where this round still takes its blobs.
 */
export const takeCollectable = (db: Queryable): boolean => collectable.delete(db);

/** Forgets every file of an owner: its bytes go when nothing else names them, and rows that point to an artifact then point to none. */
export function dropArtifacts(tx: Queryable, ownerType: Artifact['ownerType'], ownerId: string): void {
  const dropped = tx
    .delete(artifact)
    .where(and(eq(artifact.ownerType, ownerType), eq(artifact.ownerId, ownerId)))
    .returning({ sha256: artifact.sha256 })
    .all();
  for (const { sha256 } of dropped) tx.update(blob).set({ createdAt: 0 }).where(eq(blob.sha256, sha256)).run();
  if (dropped.length > 0) collectable.add(tx);
}

export function findArtifact(
  db: Queryable,
  ownerType: Artifact['ownerType'],
  ownerId: string,
  kind: Artifact['kind'],
): Artifact | undefined {
  return db
    .select()
    .from(artifact)
    .where(and(eq(artifact.ownerType, ownerType), eq(artifact.ownerId, ownerId), eq(artifact.kind, kind)))
    .get();
}

/** Removes blobs that are garbage at `now`, at most 1,000, and returns how many. It goes in pages, so that requests come in between. */
export async function collectBlobs(services: StorageServices, now: number): Promise<number> {
  const { db } = services;
  let removed = removedMax;
  try {
    removed = await removeGarbage(services, now);
  } finally {
    // There may be more; or a locked database or a full disk has kept it, which passes.
    if (removed === removedMax) collectable.add(db);
  }
  return removed;
}

/** Whether a blob has no owner, and has had none for long enough. */
export const isGarbage = (db: Queryable, now: number) =>
  and(lte(blob.createdAt, now - graceMs), notExists(db.select({ id: artifact.id }).from(artifact).where(eq(artifact.sha256, blob.sha256))));

async function removeGarbage({ config, db }: StorageServices, now: number): Promise<number> {
  const garbage = isGarbage(db, now);
  let removed = 0;
  for (let after: string | undefined = ''; after !== undefined && removed < removedMax; ) {
    const page: { sha256: string; isGarbage: unknown }[] = db
      .select({ sha256: blob.sha256, isGarbage: sql`${garbage}` })
      .from(blob)
      .where(gt(blob.sha256, after))
      .orderBy(asc(blob.sha256))
      .limit(pageRows)
      .all();
    for (const { sha256 } of page.filter((row) => row.isGarbage).slice(0, removedMax - removed)) {
      if (isUnderWay(sha256)) {
        collectable.add(db);
        continue;
      }
      const trash = join(stagingDir(config.dataDir), `${sha256}.trash`);
      const gone = inUrgentTransaction(db, (tx) => {
        const { changes } = tx
          .delete(blob)
          .where(and(eq(blob.sha256, sha256), garbage))
          .run();
        if (changes > 0) moveIfThere(blobPath(config.dataDir, sha256), trash);
        return changes > 0;
      });
      // Removing a large file takes the system a while; the move above does not.
      if (gone) await rm(trash, { force: true });
      if (gone) removed += 1;
    }
    after = page.length === pageRows ? page.at(-1)?.sha256 : undefined;
    await setImmediate();
  }
  return removed;
}

function moveIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    // A crash between the move and the commit has left the row without its file.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
