import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { eventually } from './support/eventually.ts';
import { withChild } from './support/process.ts';
import { adminName, adminPassword, postGraphql, withFolder, withServer } from './support/server.ts';
import { fillDisk, mebibyte, unmountable, withSmallDisk } from './support/smallDisk.ts';

const createUser = 'mutation ($input: CreateUserInput!) { createUser(input: $input) { user { id } userErrors { code message } } }';
const user = (name: string) => ({ input: { name, password: 'a long enough password', role: 'VIEWER' } });
const title = (what: string) => `${what} ${unmountable ?? ''}`;

describe.skipIf(unmountable)('on a full disk', () => {
  test(title('people log in and write for a while, then get a retryable DISK_FULL; all goes on when there is room'), () =>
    withSmallDisk(32 * mebibyte, (dataDir) =>
      withServer(
        async ({ graphql, admin, login, url }) => {
          const token = await admin();
          expect(existsSync(join(dataDir, 'reserve'))).toBe(true);
          const free = fillDisk(dataDir);
          const { accessToken } = await login(adminName, adminPassword);
          expect((await graphql('{ viewer { name } }', {}, accessToken)).data.viewer.name).toBe(adminName);
          expect((await graphql(createUser, user('bob'), accessToken)).data.createUser.userErrors).toEqual([]);

          fillDisk(dataDir);
          // What has been written once is written again without new room, so it takes more than one write to reach the end.
          let refused: Awaited<ReturnType<typeof graphql>> | undefined;
          for (let n = 0; n < 500 && !refused?.errors; n += 1) refused = await graphql(createUser, user(`user${n}`), token);
          expect(refused?.errors?.[0].extensions).toMatchObject({ code: 'DISK_FULL', retryable: true });
          expect((await graphql('{ viewer { name } }', {}, token)).data.viewer.name).toBe(adminName);
          expect((await fetch(`${url}/ready`)).status).toBe(503);

          free();
          expect((await graphql(createUser, user('carol'), token)).data.createUser.userErrors).toEqual([]);
          await eventually(() => expect(existsSync(join(dataDir, 'reserve'))).toBe(true));
        },
        { WHETSTONE_DATA_DIR: dataDir, WHETSTONE_DISK_RESERVE_BYTES: String(mebibyte) },
      ),
    ),
  );

  test(title('a server says so in one sentence and does not start, and starts with the room of its reserve'), () =>
    withSmallDisk(16 * mebibyte, async (dataDir) => {
      const start = (use: Parameters<typeof withChild>[2]) =>
        withChild(['src/main.ts', 'serve'], { WHETSTONE_PORT: '0', WHETSTONE_DATA_DIR: dataDir }, use);
      const free = fillDisk(dataDir);
      await start(async (child) => {
        expect((await child.exit).code).toBe(1);
        expect(child.lines.join('\n')).toMatch(/^The (disk of the )?data folder \S+ \(WHETSTONE_DATA_DIR\) .*\.$/);
      });
      free();
      await start(async (child) => void (await child.line((line) => line.includes('whetstone is ready'))));
      fillDisk(dataDir);
      await start(async (child) => void (await child.line((line) => line.includes('whetstone is ready'))));
    }),
  );

  test(title('a server whose log is on that disk goes on, counts the lines that it could not write, and stops with exit 0'), () =>
    withSmallDisk(4 * mebibyte, (logDir) =>
      withFolder(async (dataDir) => {
        const log = join(logDir, 'log');
        /** The whole ones: the line that met the end of the disk is cut. */
        const lines = () =>
          readFileSync(log, 'utf8')
            .split('\n')
            .flatMap((line) => {
              try {
                return [JSON.parse(line)];
              } catch {
                return [];
              }
            });
        const env = { WHETSTONE_PORT: '0', WHETSTONE_DATA_DIR: dataDir };
        await withChild(
          ['-c', `exec "$0" src/main.ts serve >> "${log}"`, process.execPath],
          env,
          async (server) => {
            const { url } = await eventually(() => lines().find(({ url: found }) => found) ?? expect.fail('not ready yet'));
            const free = fillDisk(logDir);
            for (let n = 0; n < 50; n += 1) expect((await postGraphql(url, '{ __typename }')).status).toBe(200);
            free();
            expect((await postGraphql(url, '{ __typename }')).status).toBe(200);
            await eventually(() => expect(lines().some(({ dropped }) => dropped > 0)).toBe(true));
            server.kill('SIGTERM');
            expect(await server.exit).toEqual({ code: 0, signal: null });
            expect(lines().some(({ msg }) => msg === 'stopping')).toBe(true);
          },
          '/bin/sh',
        );
      }),
    ),
  );
});

test.skipIf(unmountable)(title('a read-only data folder is one sentence with the setting’s name'), () =>
  withSmallDisk(16 * mebibyte, async (dataDir) => {
    execFileSync('mount', ['-o', 'remount,ro', dataDir]);
    await withChild(['src/main.ts', 'serve'], { WHETSTONE_PORT: '0', WHETSTONE_DATA_DIR: dataDir }, async (child) => {
      expect((await child.exit).code).toBe(1);
      expect(child.lines).toEqual([expect.stringMatching(/^The data folder \S+ \(WHETSTONE_DATA_DIR\) cannot be written \(\w+\)\./)]);
    });
  }),
);
