import { statfsSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { expect, test } from 'vitest';
import { requireDisk } from '../src/storage/disk.ts';
import { withServer } from './support/server.ts';
import { append, create, post, send, stagingOf, tus, withStorage } from './support/storage.ts';

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
