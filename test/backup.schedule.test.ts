import { appendFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { type BackupState, startBackups } from '../src/backup/schedule.ts';
import { verify } from '../src/backup/verify.ts';
import { createLog } from '../src/log.ts';
import { eventually } from './support/eventually.ts';
import { withFolder, withServer } from './support/server.ts';
import { blobOf } from './support/storage.ts';
import { uploaded } from './support/training.ts';
import { logIn, type Tui, withTui } from './support/tui.ts';

test('backups are made when they are due, and the newest stay; a failed one is an alert and is tried again', () =>
  withFolder(async (folder) => {
    const backups = join(folder, 'backups');
    // Where the folder should be is a file.
    writeFileSync(backups, '');
    await withServer(
      async ({ services, url, admin, graphql }) => {
        const token = await admin();
        await uploaded({ url, token }, 'a.bin', Buffer.from('some bytes'));
        const query = '{ system { backups { lastAt nextAt failures problem } } alerts { metric state } }';
        const failing = await eventually(async () => {
          const { data } = await graphql(query, {}, token);
          expect(data.alerts).toEqual([{ metric: 'FAILED_BACKUPS', state: 'FIRING' }]);
          return data.system.backups;
        });
        expect(failing).toMatchObject({ lastAt: null, failures: 1 });
        // Without the folder's path.
        expect(failing.problem).toContain('The folder for backups backups cannot be made (EEXIST). Name another one');
        expect(failing.problem).not.toContain(folder);
        // Its end says what to do: on a terminal of 80 columns too.
        const showsProblem = async (tui: Tui) => {
          await logIn(tui);
          await tui.shows('Wrong with the last backup: The folder for backups');
          expect(tui.lines().join('').replaceAll(' ', '')).toContain('makethefolderaboveitwritable.');
        };
        await withTui(url, showsProblem, { first: { screen: 'storage' } });

        rmSync(backups);
        // Soon, in place of the server's own, which tries again in an hour.
        const soon = startBackups(services.config, createLog({ logLevel: 'silent' }), { lookMs: 10, retryMs: 10 });
        const made = await eventually(() => {
          const state = soon.state() as BackupState;
          expect(state.lastAt).not.toBeNull();
          return state;
        });
        soon.stop();
        expect(made).toMatchObject({ failures: 0, problem: null });
        expect(made.nextAt - Number(made.lastAt)).toBe(2 * 3600_000);
        const [first] = readdirSync(backups).filter((name) => name.endsWith('Z'));
        expect(await verify(join(backups, String(first)))).toMatchObject({ problems: [], blobs: 1 });

        // The one before was begun long ago.
        const old = '2020-01-01T00-00-00.000Z';
        renameSync(join(backups, String(first)), join(backups, old));
        const due = startBackups(services.config, createLog({ logLevel: 'silent' }), { lookMs: 10, retryMs: 10 });
        await eventually(() => expect((due.state() as BackupState).lastAt).toBeGreaterThan(Date.parse('2021-01-01')));
        due.stop();
        const kept = readdirSync(backups).filter((name) => name.endsWith('Z'));
        expect(kept).toHaveLength(1);
        expect(kept).not.toContain(old);
        // What was measured for the storage screen above holds for some seconds.
        await eventually(async () => {
          const { data } = await graphql('{ system { storage { name count } } }', {}, token);
          expect(data.system.storage.find(({ name }: { name: string }) => name === 'BACKUPS').count).toBeGreaterThan(2);
        });
      },
      { WHETSTONE_BACKUP_FOLDER: backups, WHETSTONE_BACKUP_HOURS: '2', WHETSTONE_BACKUP_KEEP: '1' },
    );
  }));

test('a backup that finds a damaged file is made, and is an alert: also after a restart, and without another backup each hour', () =>
  withFolder((folder) =>
    withServer(async ({ services, url, admin, dataDir }) => {
      const { sha256 } = await uploaded({ url, token: await admin() }, 'a.bin', Buffer.from('some bytes'));
      appendFileSync(blobOf(dataDir, sha256), 'x');
      const config = { ...services.config, backupFolder: join(folder, 'backups'), backupHours: 2 };
      const log = createLog({ logLevel: 'silent' });
      const logged = vi.spyOn(log, 'error');
      const backups = startBackups(config, log, { lookMs: 10, retryMs: 10 });
      const found = await eventually(() => {
        const state = backups.state() as BackupState;
        expect(state.failures).toBe(1);
        return state;
      });
      backups.stop();
      expect(found.problem).toContain(`npm run verify -- '${dataDir}'`);
      expect(found.problem).toContain(sha256);
      expect(found.nextAt - Number(found.lastAt)).toBe(2 * 3600_000);
      expect(logged).toHaveBeenCalledWith(expect.objectContaining({ problem: found.problem }), 'a backup was made, but something is wrong');
      const restarted = startBackups(config, createLog({ logLevel: 'silent' }), { lookMs: 10, retryMs: 10 });
      await eventually(() => expect(restarted.state()).toEqual(found));
      restarted.stop();
      expect(readdirSync(config.backupFolder).filter((name) => name.endsWith('Z'))).toHaveLength(1);
    }),
  ));
