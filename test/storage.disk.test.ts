import { mkdirSync, rmSync, statfsSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { afterEach, expect, test, vi } from 'vitest';
import { writeAudit } from '../src/accounts/audit.ts';
import { collectBlobs, stagingDir } from '../src/storage/blobs.ts';
import { diskUse, requireDisk } from '../src/storage/disk.ts';
import { withServer } from './support/server.ts';
import { append, create, post, send, stagingOf, tus, until, withStorage } from './support/storage.ts';

afterEach(() => void vi.restoreAllMocks());

test('an upload that the disk has no room for is 507 before a byte is sent, and says what is missing', () =>
  withServer(
    async ({ url, admin, dataDir }) => {
      const token = await admin();
      for (const reply of [
        await post(url, token, 'a.zip', 'hello'),
        await tus('POST', `${url}/uploads`, token, { 'upload-length': '5', 'upload-metadata': 'filename YQ==' }),
      ]) {
        expect([reply.status, reply.json.errors[0].extensions.code]).toEqual([507, 'DISK_FULL']);
        expect(reply.json.errors[0].message).toMatch(/disk is too full: [\d,]+ MiB more must be free: 1 MiB for this, and [\d,]+ MiB stay/);
      }
      expect(stagingOf(dataDir)).toEqual([]);
      const ready = await send({ method: 'GET', address: `${url}/ready` });
      expect([ready.status, ready.json]).toEqual([
        503,
        {
          status: 'not ready',
          inference: 'IDLE',
          reasons: [{ code: 'DISK_FULL', message: expect.stringContaining('too full for the database') }],
        },
      ]);
      expect((await send({ method: 'GET', address: `${url}/health` })).status).toBe(200);
    },
    { WHETSTONE_DISK_RESERVE_BYTES: String(2 ** 50) },
  ));

test('the reserve stays free', () =>
  withStorage(async ({ config }) => {
    const { bavail, bsize } = statfsSync(config.dataDir);
    const free = bavail * bsize;
    await requireDisk({ config: { ...config, diskReserveBytes: 0 } }, free / 2);
    await expect(requireDisk({ config: { ...config, diskReserveBytes: free / 2 } }, free)).rejects.toMatchObject({ code: 'DISK_FULL' });
  }));

test.runIf(process.platform === 'linux')('a device that takes no byte is 507', () =>
  withServer(async ({ url, admin, dataDir }) => {
    const token = await admin();
    const { address, id } = await create(url, token, 5);
    symlinkSync('/dev/full', join(dataDir, 'uploads', id));
    const full = await append(address, token, 0, ['hello'], 5);
    expect([full.status, full.json.errors[0].extensions.code]).toEqual([507, 'DISK_FULL']);
  }),
);

test('while another process holds the database, an upload is told to try again, within the quarter of a second', () =>
  withServer(async ({ url, admin, dataDir }) => {
    const token = await admin();
    const { address } = await create(url, token, 5);
    const other = new Sqlite(join(dataDir, 'whetstone.db'));
    other.exec('BEGIN IMMEDIATE');
    try {
      const busy = await append(address, token, 0, ['hello'], 5);
      expect([busy.status, busy.json.errors[0].extensions]).toMatchObject([503, { code: 'UNAVAILABLE', retryable: true }]);
      expect(busy.headers['retry-after']).toBe('1');
    } finally {
      other.close();
    }
    const offset = Number((await tus('HEAD', address, token)).headers['upload-offset']);
    expect((await append(address, token, offset, ['hello'.slice(offset)], 5 - offset)).status).toBe(204);
  }));

test('what uses the disk is told by kind, and folders are walked again after ten seconds only', () =>
  withStorage(async (storage) => {
    const { config, db } = storage;
    const folders = {
      [stagingDir(config.dataDir)]: 100,
      [join(config.dataDir, 'work', 'job', '1')]: 2000,
      [join(config.dataDir, 'cache', 'a')]: 30_000,
      [join(config.dataDir, 'logs')]: 400_000,
    };
    for (const [folder, size] of Object.entries(folders)) {
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, 'file'), Buffer.alloc(size));
    }
    for (let n = 0; n < 100; n += 1) writeAudit(db, storage.actor, { action: 'login', detail: { client: 'x'.repeat(1000) } });
    db.run(`INSERT INTO blob VALUES ('a', 5000, 0), ('b', 7, 0)`);
    let now = 1e9;
    vi.spyOn(performance, 'now').mockImplementation(() => now);
    const first = await diskUse(storage);
    expect(first).toMatchObject({ blobBytes: 5007, uploadBytes: 100, workBytes: 2000, cacheBytes: 30_000, logBytes: 400_000 });
    expect(first.historyBytes).toBeGreaterThan(100_000);
    expect(first.jobBytes).toBeGreaterThan(0);
    expect(first.databaseBytes).toBeGreaterThan(first.historyBytes + first.jobBytes);
    expect(first.totalBytes).toBeGreaterThan(first.freeBytes);
    expect(first.freeBytes).toBeGreaterThan(0);

    rmSync(join(config.dataDir, 'work'), { recursive: true });
    await collectBlobs(storage, Date.now());
    now += 9_000;
    expect(await diskUse(storage)).toMatchObject({ blobBytes: 0, workBytes: 2000 });
    now += 2_000;
    // The stale figure is given at once, the new one when it is there.
    expect((await diskUse(storage)).workBytes).toBe(2000);
    await until(async () => (await diskUse(storage)).workBytes === 0);
  }));

test('a data folder without uploads, work or cache uses nothing for them', () =>
  withStorage(async (storage) => {
    expect(await diskUse(storage)).toMatchObject({ blobBytes: 0, uploadBytes: 0, workBytes: 0, cacheBytes: 0, logBytes: 0 });
  }));
