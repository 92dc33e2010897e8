/** A server whose disk can be filled. */
import { readFileSync } from 'node:fs';
import { eq } from 'drizzle-orm';
import { expect } from 'vitest';
import type { JobKinds } from '../../src/jobs/kinds.ts';
import { attempt, job } from '../../src/jobs/tables.ts';
import { type TestServer, withServer } from './server.ts';
import { withSmallDisk } from './smallDisk.ts';
import { blobOf, blobsOf, sha256 } from './storage.ts';
import { type Api, jobWhen } from './training.ts';

/** Runs `use` beside a server on a disk of its own. At the end nothing has failed or was charged, and everything stored is whole. */
export const withServerOnDisk = (sizeBytes: number, use: (server: TestServer, api: Api) => Promise<unknown>, kinds?: JobKinds) =>
  withSmallDisk(sizeBytes, (dataDir) =>
    withServer(
      async (server) => {
        await use(server, { url: server.url, token: await server.as('ENGINEER') });
        const { db } = server.services;
        expect(db.$client.pragma('integrity_check')).toEqual([{ integrity_check: 'ok' }]);
        expect(db.$client.pragma('foreign_key_check')).toEqual([]);
        for (const name of blobsOf(dataDir)) expect(sha256(readFileSync(blobOf(dataDir, name)))).toBe(name);
        expect(db.select().from(job).where(eq(job.state, 'FAILED')).all()).toEqual([]);
        expect(db.select().from(attempt).where(eq(attempt.charged, true)).all()).toEqual([]);
      },
      { WHETSTONE_DATA_DIR: dataDir, WHETSTONE_DISK_RESERVE_BYTES: '0' },
      kinds,
    ),
  );

/** Waits until the job is back in the queue and says that the disk is full. */
export const waiting = async (api: Api, id: string): Promise<void> =>
  expect(await jobWhen(api, id, ({ state }) => state === 'QUEUED')).toMatchObject({ waitReason: { code: 'DISK_FULL' } });

/** Makes room, and does not wait for the end of a back-off. */
export function makeRoom({ services: { db, bus } }: TestServer, free: () => void): void {
  free();
  db.update(job).set({ notBefore: null }).run();
  bus.wake('queueChanged', '');
}
