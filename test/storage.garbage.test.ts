import { randomUUIDv7 } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { eq, sql } from 'drizzle-orm';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { inTransaction } from '../src/db.ts';
import { createLog } from '../src/log.ts';
import { collectBlobs, dropArtifacts, insertArtifact, placingBlobs, stagingDir, storeFile } from '../src/storage/blobs.ts';
import { startSweeper } from '../src/storage/sweeper.ts';
import { artifact, blob, upload } from '../src/storage/tables.ts';
import { openUpload, stagingPath } from '../src/storage/uploads.ts';
import { blobOf, blobsOf, type Storage, sha256, stagingOf, until, withStorage } from './support/storage.ts';

const hour = 3600_000;

/** A file that a job has made, on its way into the store. */
function place({ config, db }: Storage, content: string) {
  const folder = join(config.dataDir, 'work');
  mkdirSync(folder, { recursive: true });
  mkdirSync(stagingDir(config.dataDir), { recursive: true });
  const path = join(folder, randomUUIDv7());
  writeFileSync(path, content);
  return storeFile({ config, db }, path);
}
const store = (storage: Storage, content: string) => placingBlobs(() => place(storage, content));
const name = ({ db }: Storage, content: string) =>
  insertArtifact(
    db,
    { sha256: sha256(content), sizeBytes: 0 },
    { ownerType: 'JOB', ownerId: randomUUIDv7(), kind: 'EVALUATION', name: 'x' },
  );

/** A file of a job with its owner. */
const register = (storage: Storage, content: string) =>
  placingBlobs(async () => {
    await place(storage, content);
    return name(storage, content);
  });

/** Deletes its owners. */
function forget({ db }: Storage, content: string): void {
  const owners = db
    .select()
    .from(artifact)
    .where(eq(artifact.sha256, sha256(content)))
    .all();
  for (const { ownerType, ownerId } of owners) dropArtifacts(db, ownerType, ownerId);
}

/** A day passes for every blob that is stored. */
const age = ({ db }: Storage) =>
  db
    .update(blob)
    .set({ createdAt: sql`${blob.createdAt} - ${25 * hour}` })
    .run();

test('a file moves into the store under its hash, and has one name there', () =>
  withStorage(async (storage) => {
    expect(await store(storage, 'weights')).toEqual({ sha256: sha256('weights'), sizeBytes: 7 });
    expect(readFileSync(blobOf(storage.config.dataDir, sha256('weights')), 'utf8')).toBe('weights');
    await store(storage, 'weights');
    expect(blobsOf(storage.config.dataDir)).toEqual([sha256('weights')]);
  }));

test('an artifact cannot name what is not stored', () =>
  withStorage(async (storage) => {
    expect(() => name(storage, 'nothing')).toThrow();
  }));

test('the same content, registered again for its owner, stays one artifact; of another kind or owner it is another', () =>
  withStorage(async (storage) => {
    const stored = await store(storage, 'weights');
    const register = (ownerId: string, kind: 'WEIGHTS' | 'CHECKPOINT') =>
      insertArtifact(storage.db, stored, { ownerType: 'MODEL_VERSION', ownerId, kind, name: 'x' }).id;
    const first = register('a', 'WEIGHTS');
    expect(register('a', 'WEIGHTS')).toBe(first);
    expect(new Set([first, register('a', 'CHECKPOINT'), register('b', 'WEIGHTS')]).size).toBe(3);
    expect(storage.db.select().from(artifact).all()).toHaveLength(3);
  }));

test('a blob without an artifact goes a day after it was stored, one with an artifact never', () =>
  withStorage(async (storage) => {
    const { config, db } = storage;
    await store(storage, 'kept');
    await store(storage, 'garbage');
    const kept = name(storage, 'kept');
    expect(await collectBlobs(storage, Date.now() + 23 * hour)).toBe(0);
    expect(await collectBlobs(storage, Date.now() + 25 * hour)).toBe(1);
    expect([blobsOf(config.dataDir), db.select().from(blob).all().length]).toEqual([[sha256('kept')], 1]);
    db.delete(artifact).where(eq(artifact.id, kept.id)).run();
    expect(await collectBlobs(storage, Date.now() + 1000 * hour)).toBe(1);
    expect([blobsOf(config.dataDir), db.select().from(blob).all(), stagingOf(config.dataDir)]).toEqual([[], [], []]);
  }));

test('deleting the last owner of a blob frees its bytes at once; what another owner has too stays', () =>
  withStorage(async (storage) => {
    const { config, db } = storage;
    await register(storage, 'alone');
    await register(storage, 'shared');
    const other = name(storage, 'shared');
    const stop = await startSweeper(storage, createLog({ logLevel: 'silent' }), {}, {});
    forget(storage, 'alone');
    dropArtifacts(db, other.ownerType, other.ownerId);
    await until(() => !existsSync(blobOf(config.dataDir, sha256('alone'))));
    expect(blobsOf(config.dataDir)).toEqual([sha256('shared')]);
    await stop();
  }));

test('what is deleted in the middle of a sweep, whose blobs that sweep still takes, is swept again for the rest of what it has left', () =>
  withStorage(async (storage) => {
    const { config } = storage;
    for (const content of ['first', 'second']) await register(storage, content);
    let sweeps = 0;
    const stop = await startSweeper(
      storage,
      createLog({ logLevel: 'silent' }),
      {},
      {
        datasets: async () => {
          sweeps += 1;
          if (sweeps === 2) forget(storage, 'second');
        },
      },
    );
    await until(() => sweeps === 1);
    forget(storage, 'first');
    await until(() => blobsOf(config.dataDir).length === 0);
    await until(() => sweeps === 3);
    await stop();
  }));

test('the same content that comes again while its last owner is deleted stays, and goes when it gets no owner', () =>
  withStorage(async (storage) => {
    const { config } = storage;
    const path = () => existsSync(blobOf(config.dataDir, sha256('again')));
    await register(storage, 'again');
    await placingBlobs(async () => {
      await place(storage, 'again');
      forget(storage, 'again');
      expect(await collectBlobs(storage, Date.now())).toBe(0);
      name(storage, 'again');
    });
    expect([await collectBlobs(storage, Date.now()), path()]).toEqual([0, true]);
    forget(storage, 'again');
    expect([await collectBlobs(storage, Date.now()), path()]).toEqual([1, false]);
  }));

test('a run looks at every blob, however many there are, and removes 1,000 at most', () =>
  withStorage(async (storage) => {
    const { db } = storage;
    db.$client.pragma('synchronous = OFF');
    const rows = Array.from({ length: 2600 }, (_, n) => ({ sha256: sha256(String(n)), sizeBytes: 1, createdAt: 0 }));
    inTransaction(db, (tx) => {
      for (const row of rows) tx.insert(blob).values(row).run();
      const inUse = rows.toSorted((a, b) => (a.sha256 < b.sha256 ? -1 : 1)).slice(0, 1400);
      for (const row of inUse) insertArtifact(tx, row, { ownerType: 'JOB', ownerId: 'j', kind: 'SAMPLES', name: 'x' });
    });
    expect([await collectBlobs(storage, Date.now()), await collectBlobs(storage, Date.now())]).toEqual([1000, 200]);
    expect(db.select().from(blob).all()).toHaveLength(1400);
  }));

test('bytes that are garbage already, stored again, are not taken before they are registered', () =>
  withStorage(async (storage) => {
    const { config } = storage;
    await store(storage, 'again');
    age(storage);
    await store(storage, 'again');
    expect(await collectBlobs(storage, Date.now())).toBe(0);
    name(storage, 'again');
    expect(existsSync(blobOf(config.dataDir, sha256('again')))).toBe(true);
  }));

test('a row whose file a crash has taken goes, and its bytes can be stored again', () =>
  withStorage(async (storage) => {
    const { config, db } = storage;
    db.insert(blob)
      .values({ sha256: sha256('lost'), sizeBytes: 4, createdAt: 0 })
      .run();
    await store(storage, 'lost');
    expect(readFileSync(blobOf(config.dataDir, sha256('lost')), 'utf8')).toBe('lost');
    db.insert(blob)
      .values({ sha256: sha256('gone'), sizeBytes: 4, createdAt: 0 })
      .run();
    expect(await collectBlobs(storage, Date.now())).toBe(1);
  }));

test('whoever comes first, the collector or the bytes that it is about to take: they are there once they are registered', () =>
  withStorage(async (storage) => {
    const { config, db } = storage;
    db.$client.pragma('synchronous = OFF');
    const six = ['a', 'b', 'c', 'd', 'e', 'f'];
    let round = 0;
    const race = async (starts: number[]) => {
      round += 1;
      const mine = six.map((content) => `${content}${round}`);
      for (const content of mine) await store(storage, content);
      age(storage);
      const registering = mine.map(async (content, n) => {
        for (let pauses = starts[n] as number; pauses > 0; pauses -= 1) await setImmediate();
        await register(storage, content);
      });
      await Promise.all([collectBlobs(storage, Date.now()), ...registering]);
      for (const content of mine) expect(readFileSync(blobOf(config.dataDir, sha256(content)), 'utf8')).toBe(content);
    };
    const starts = fc.array(fc.nat(24), { minLength: six.length, maxLength: six.length });
    await fc.assert(fc.asyncProperty(starts, race), { numRuns: 30, seed: 1, endOnFailure: true });
  }));

const contents = ['a', 'b', 'c'];
const step = fc.record({
  action: fc.constantFrom('register', 'register', 'collect', 'forget', 'day'),
  content: fc.constantFrom(...contents),
  /** How far earlier steps get before this one starts. */
  pauses: fc.nat(12),
});

test('whatever is stored, registered, forgotten and collected at the same time: no artifact ever loses its bytes', () =>
  fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 24 }), async (steps) =>
      withStorage(async (storage) => {
        const { config, db } = storage;
        let registering: Promise<unknown>[] = [];
        const collecting: Promise<unknown>[] = [];
        const check = () => {
          for (const row of db.select().from(artifact).all()) {
            const content = contents.find((c) => sha256(c) === row.sha256);
            expect(readFileSync(blobOf(config.dataDir, row.sha256), 'utf8')).toBe(content);
          }
        };
        for (const { action, content, pauses } of steps) {
          for (let n = 0; n < pauses; n += 1) await setImmediate();
          if (action === 'register') registering.push(register(storage, content));
          if (action === 'collect') collecting.push(collectBlobs(storage, Date.now()));
          if (action === 'forget') forget(storage, content);
          if (action === 'day') {
            // Nothing takes a day between its storing and its registration.
            await Promise.all(registering);
            registering = [];
            age(storage);
          }
          check();
        }
        await Promise.all([...registering, ...collecting]);
        check();
        age(storage);
        await collectBlobs(storage, Date.now());
        check();
        const named = new Set(
          db
            .select()
            .from(artifact)
            .all()
            .map((row) => row.sha256),
        );
        expect(blobsOf(config.dataDir).sort()).toEqual([...named].sort());
      }),
    ),
    { numRuns: 25, seed: 1, endOnFailure: true },
  ));

test('a start removes what a dead server left in the staging folder, and keeps what its clients go on with', () =>
  withStorage(async (storage) => {
    const { config, db, actor } = storage;
    const folder = stagingDir(config.dataDir);
    mkdirSync(join(folder, 'sub'), { recursive: true });
    const open = openUpload(db, { id: randomUUIDv7(), userId: actor.actorId, fileName: 'a.zip', sizeBytes: 9 });
    const expired = openUpload(db, { id: randomUUIDv7(), userId: actor.actorId, fileName: 'b.zip', sizeBytes: 9 });
    db.update(upload).set({ expiresAt: 0 }).where(eq(upload.id, expired.id)).run();
    for (const file of [open.id, expired.id, `${sha256('x')}.trash`, 'sub/file']) writeFileSync(join(folder, file), 'x');
    const stop = await startSweeper(storage, createLog({ logLevel: 'silent' }), {}, {});
    await until(() => !existsSync(stagingPath(config.dataDir, expired.id)));
    await stop();
    expect(stagingOf(config.dataDir)).toEqual([open.id]);
  }));

test('a sweep that fails does not keep the others from theirs', () =>
  withStorage(async (storage) => {
    const { config, db, actor } = storage;
    const { id } = openUpload(db, { id: randomUUIDv7(), userId: actor.actorId, fileName: 'a.zip', sizeBytes: 9 });
    db.update(upload).set({ expiresAt: 0 }).where(eq(upload.id, id)).run();
    mkdirSync(stagingDir(config.dataDir), { recursive: true });
    writeFileSync(join(stagingDir(config.dataDir), id), 'x');
    const swept: string[] = [];
    const stop = await startSweeper(
      storage,
      createLog({ logLevel: 'silent' }),
      {
        failing: () => Promise.reject(new Error('EIO')),
        other: async () => swept.push('other'),
      },
      {},
    );
    await until(() => !existsSync(stagingPath(config.dataDir, id)));
    await stop();
    expect(swept).toEqual(['other']);
  }));
