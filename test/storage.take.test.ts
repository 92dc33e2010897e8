import { randomUUIDv7 } from 'node:crypto';
import { linkSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { eq } from 'drizzle-orm';
import { expect, test } from 'vitest';
import { inTransaction } from '../src/db.ts';
import { InputError, type UserError } from '../src/errors.ts';
import { collectBlobs, insertArtifact } from '../src/storage/blobs.ts';
import { artifact, blob, type Upload, upload } from '../src/storage/tables.ts';
import { cleanStaging, completeUpload, expireUploads, openUpload, stagingPath, takeUpload } from '../src/storage/uploads.ts';
import { withServer } from './support/server.ts';
import {
  blobOf,
  blobsOf,
  bytesOf,
  create,
  post,
  type Storage,
  send,
  sha256,
  stagingOf,
  tus,
  withRows,
  withStorage,
} from './support/storage.ts';

/** The sweeper's round at `now`; how many uploads and blobs it took. */
const sweep = async (storage: Parameters<typeof expireUploads>[0], now: number) => ({
  uploads: await expireUploads(storage, now),
  blobs: await collectBlobs(storage, now),
});

const content = bytesOf('content', 10_000);
const hash = sha256(content);
const hour = 3600_000;

/** An upload whose bytes are all in the staging folder, as at the moment before it is completed. */
async function received({ config, db, actor }: Storage, fileName = 'digits.zip'): Promise<Upload> {
  const row = openUpload(db, { id: randomUUIDv7(), userId: actor.actorId, fileName, sizeBytes: content.length });
  await cleanStaging({ config, db });
  writeFileSync(stagingPath(config.dataDir, row.id), content);
  return row;
}
const complete = async (storage: Storage) => completeUpload(storage, await received(storage), new AbortController().signal);

/** What a mutation of a domain does with an upload. */
const use = ({ db }: Storage, actor: Storage['actor'], uploadId: string, expected: string, ownerId: string) =>
  inTransaction(db, (tx) => {
    const taken = takeUpload(tx, actor, uploadId, expected);
    return { taken, made: insertArtifact(tx, taken, { ownerType: 'DATASET_VERSION', ownerId, kind: 'DATASET_ZIP', name: taken.fileName }) };
  });

const refusal = (run: () => unknown): UserError | undefined => {
  try {
    run();
  } catch (error) {
    if (error instanceof InputError) return error.userErrors[0];
    throw error;
  }
  return undefined;
};

test('a mutation takes a complete upload: its blob changes the owner, in one transaction', () =>
  withStorage(async (storage) => {
    const { config, db, actor } = storage;
    const { id } = await complete(storage);
    const { taken, made } = use(storage, actor, id, hash, 'version');
    expect(taken).toEqual({ uploadId: id, fileName: 'digits.zip', sha256: hash, sizeBytes: content.length });
    expect(db.select().from(artifact).all()).toEqual([made]);
    expect(db.select().from(upload).get()?.state).toBe('CONSUMED');
    expect(readFileSync(blobOf(config.dataDir, hash)).equals(content)).toBe(true);
  }));

test('a mutation that fails afterwards leaves the upload as it was', () =>
  withStorage(async (storage) => {
    const { db, actor } = storage;
    const { id } = await complete(storage);
    const failing = () =>
      inTransaction(db, (tx) => {
        takeUpload(tx, actor, id, hash);
        throw new Error('the domain refuses');
      });
    expect(failing).toThrow('the domain refuses');
    expect(db.select().from(upload).get()?.state).toBe('COMPLETE');
    expect(use(storage, actor, id, hash, 'version').taken.sha256).toBe(hash);
  }));

test('another hash, another user, an unfinished, a used or an expired upload is refused with its field', () =>
  withStorage(async (storage) => {
    const { db, actor, stranger } = storage;
    const { id } = await complete(storage);
    const of = (who: Storage['actor'], uploadId: string, expected = hash) => refusal(() => use(storage, who, uploadId, expected, 'v'));
    expect(of(actor, id, sha256('other'))).toEqual({ code: 'INVALID', field: ['sha256'], message: expect.stringContaining(hash) });
    expect(of(actor, id, '')).toMatchObject({ code: 'INVALID', field: ['sha256'] });
    expect(of(stranger, id)).toMatchObject({ code: 'NOT_FOUND', field: ['uploadId'] });
    expect(of(actor, 'nothing')).toMatchObject({ code: 'NOT_FOUND', field: ['uploadId'] });
    const open = await received(storage);
    expect(of(actor, open.id)).toMatchObject({ code: 'INVALID', field: ['uploadId'], message: expect.stringContaining('not complete') });
    expect(of(actor, id, hash.toUpperCase())).toBeUndefined();
    expect(of(actor, id)).toMatchObject({ code: 'IN_USE', field: ['uploadId'] });
    await sweep(storage, Date.now() + 25 * hour);
    expect(db.select().from(upload).where(eq(upload.id, open.id)).get()?.state).toBe('EXPIRED');
    expect(of(actor, open.id)).toMatchObject({ code: 'NOT_FOUND', field: ['uploadId'] });
  }));

test('the same bytes uploaded twice are one blob, which stays while either upload needs it', () =>
  withStorage(async (storage) => {
    const { config, db, actor } = storage;
    const [first, second] = [await complete(storage), await complete(storage)];
    expect(blobsOf(config.dataDir)).toEqual([hash]);
    use(storage, actor, first.id, hash, 'version');
    db.delete(artifact).where(eq(artifact.ownerType, 'DATASET_VERSION')).run();
    await sweep(storage, Date.now() + 23 * hour);
    expect(use(storage, actor, second.id, hash, 'version').taken.sha256).toBe(hash);
    expect(blobsOf(config.dataDir)).toEqual([hash]);
  }));

// Each state is what a kill -9 leaves at that moment of `completeUpload`.
const moments: Record<string, (storage: Storage, row: Upload) => void> = {
  'before anything': () => {},
  'after the row of the blob': ({ db }) => {
    db.insert(blob).values({ sha256: hash, sizeBytes: content.length, createdAt: Date.now() }).run();
  },
  'after the link': ({ config, db }, row) => {
    db.insert(blob).values({ sha256: hash, sizeBytes: content.length, createdAt: Date.now() }).run();
    mkdirSync(dirname(blobOf(config.dataDir, hash)), { recursive: true });
    linkSync(stagingPath(config.dataDir, row.id), blobOf(config.dataDir, hash));
  },
};
for (const [moment, prepare] of Object.entries(moments)) {
  test(`killed while it was being completed, ${moment}, an upload is completed when its client asks`, () =>
    withServer(async (server) => {
      const token = await server.admin();
      const { address, id } = await create(server.url, token, content.length);
      writeFileSync(stagingPath(server.dataDir, id), content);
      await withRows(server.dataDir, (db) => {
        const row = db.select().from(upload).get() as Upload;
        prepare({ config: { dataDir: server.dataDir }, db } as Storage, row);
      });
      expect((await tus('HEAD', address, token)).headers['upload-offset']).toBe(String(content.length));
      expect((await send({ method: 'GET', address, token })).json).toMatchObject({ state: 'COMPLETE', sha256: hash });
      expect(stagingOf(server.dataDir)).toEqual([]);
      expect(blobsOf(server.dataDir)).toEqual([hash]);
    }));
}

test('killed right after it was completed, its second name is removed at the next start', () =>
  withStorage(async (storage) => {
    const { config } = storage;
    const { id } = await complete(storage);
    linkSync(blobOf(config.dataDir, hash), stagingPath(config.dataDir, id));
    await cleanStaging(storage);
    expect([stagingOf(config.dataDir), blobsOf(config.dataDir)]).toEqual([[], [hash]]);
  }));

test('two requests that complete an upload at the same time share the work', () =>
  withServer(async ({ url, admin, dataDir }) => {
    const token = await admin();
    const { address, id } = await create(url, token, content.length);
    writeFileSync(stagingPath(dataDir, id), content);
    const replies = await Promise.all(Array.from({ length: 8 }, () => send({ method: 'GET', address, token })));
    expect(new Set(replies.map((reply) => reply.json.sha256))).toEqual(new Set([hash]));
    expect(await withRows(dataDir, (db) => db.select().from(artifact).all())).toHaveLength(1);
  }));

test('an upload expires after a day without use, and its row goes a week later', () =>
  withStorage(async (storage) => {
    const { config, db, actor } = storage;
    const [open, unused, used] = [await received(storage), await complete(storage), await complete(storage)];
    use(storage, actor, used.id, hash, 'version');
    const states = () =>
      Object.fromEntries(
        db
          .select()
          .from(upload)
          .all()
          .map((row) => [row.id, row.state]),
      );
    const start = Date.now();

    await sweep(storage, start + 23 * hour);
    expect(states()).toEqual({ [open.id]: 'OPEN', [unused.id]: 'COMPLETE', [used.id]: 'CONSUMED' });
    expect(stagingOf(config.dataDir)).toEqual([open.id]);
    await sweep(storage, start + 25 * hour);
    expect(states()).toEqual({ [open.id]: 'EXPIRED', [unused.id]: 'EXPIRED', [used.id]: 'CONSUMED' });
    expect(stagingOf(config.dataDir)).toEqual([]);
    expect(blobsOf(config.dataDir)).toEqual([hash]);
    await sweep(storage, start + 7 * 24 * hour + hour);
    expect(states()).toEqual({ [open.id]: 'EXPIRED', [unused.id]: 'EXPIRED' });
    await sweep(storage, start + 9 * 24 * hour);
    expect(states()).toEqual({});
    expect(db.select().from(artifact).all()).toHaveLength(1);
  }));

test('an expired upload is gone for its client too', () =>
  withServer(async ({ url, admin, dataDir }) => {
    const token = await admin();
    const { address } = await create(url, token, 5);
    await withRows(dataDir, (db) =>
      db
        .update(upload)
        .set({ expiresAt: Date.now() - 1 })
        .run(),
    );
    const late = await tus('PATCH', address, token, { 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' }, ['hello']);
    expect([late.status, late.json.errors[0].extensions.code]).toEqual([404, 'NOT_FOUND']);
    const { json } = await post(url, token, 'a.zip', content);
    await withRows(dataDir, (db) => db.update(upload).set({ state: 'EXPIRED' }).run());
    expect((await send({ method: 'GET', address: `${url}/uploads/${json.uploadId}`, token })).status).toBe(404);
  }));
