import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { screenNames } from '../client/tui.ts';
import { openDatabase } from '../src/db.ts';
import { screens } from '../tui/screens/screens.ts';
import type { Step } from './support/child.ts';
import { submit, withJobServer } from './support/jobs.ts';
import { client, withFolder, withServer } from './support/server.ts';
import { hasTmux, logIn, script, type Terminal, whyNot, withTerminal } from './support/terminal.ts';

describe.skipIf(!hasTmux)(`in a real terminal${whyNot}`, () => {
  test('log in, look around at three sizes, quit; the next start needs no password', () =>
    withServer(async (server) => {
      await server.admin();
      await withFolder(async (folder) => {
        await withTerminal({ folder, args: ['--url', server.url] }, async (terminal) => {
          await logIn(terminal);
          await terminal.shows('Memory');
          terminal.resize(120, 40);
          await terminal.shows(/queue 0 .*● connected$/m);
          terminal.resize(40, 12);
          await terminal.shows(/^.{0,40}● connected$/m);
          terminal.type('2');
          await terminal.shows('There are no jobs yet.');
          terminal.type('?');
          await terminal.shows('Keys of this screen');
          terminal.type('Escape');
          await terminal.shows('There are no jobs yet.');
          terminal.type('q');
          await terminal.shows('ended with 0');
          expect(terminal.screen()).not.toContain('There are no jobs yet.');
        });
        await withTerminal({ folder, args: ['jobs'] }, async (terminal) => {
          await terminal.shows('There are no jobs yet.');
          expect(terminal.screen(true)).toMatch(/\[38;2;/);
        });
        await withTerminal({ folder, args: ['jobs'], env: { NO_COLOR: '1' } }, async (terminal) => {
          await terminal.shows('There are no jobs yet.');
          expect(terminal.screen(true)).not.toMatch(/\[(3[0-8]|4[0-8]|9\d)[;m]/);
        });
      });
    }));

  test('a server that is killed during a job: the screen says so, comes back, and the curve has no gap', () =>
    withFolder(async (folder) => {
      const epochs = (from: number, to: number): Step[] => Array.from({ length: to - from + 1 }, (_, i) => ({ epoch: from + i }));
      const { db, close } = openDatabase(folder);
      const steps: Step[] = [
        'hello',
        { phase: 'training' },
        ...epochs(1, 4),
        { wait: 'restarted' },
        ...epochs(5, 8),
        { wait: 'seen' },
        'ok',
      ];
      submit(db, { steps, folder });
      close();
      const chart = (terminal: Terminal) =>
        terminal
          .screen()
          .split('\n')
          .filter((line) => /[┤│└]/.test(line));
      const start = async (url: string) => client({ url } as never, folder).admin();
      let port = '';
      await withFolder((home) =>
        withJobServer(folder, async ({ url, kill }) => {
          await start(url);
          port = new URL(url).port;
          await withTerminal({ folder: home, args: ['jobs', '--url', url] }, async (terminal) => {
            await logIn(terminal);
            await terminal.shows('RUNNING');
            terminal.type('Enter');
            await terminal.shows('val.loss 0.25');
            const before = chart(terminal);
            await kill();
            await terminal.shows('✗ reconnecting');
            expect(chart(terminal)).toEqual(before);
            writeFileSync(join(folder, 'restarted'), '');
            await withJobServer(
              folder,
              async () => {
                await terminal.shows('● connected');
                await terminal.shows('val.loss 0.125');
                const after = chart(terminal);
                // A terminal UI that starts now reads every event again, and draws the same curve.
                terminal.type('q');
                await terminal.shows('ended with 0');
                await withFolder((fresh) =>
                  withTerminal({ folder: fresh, args: ['jobs', '--url', url] }, async (second) => {
                    await logIn(second);
                    await second.shows('RUNNING');
                    second.type('Enter');
                    await second.shows('val.loss 0.125');
                    expect(chart(second)).toEqual(after);
                  }),
                );
                writeFileSync(join(folder, 'seen'), '');
              },
              port,
            );
          });
        }),
      );
    }));

  test('a log of 10,000 lines scrolls from its end to its beginning and back', () =>
    withFolder(async (folder) => {
      const { db, close } = openDatabase(folder);
      submit(db, { steps: ['hello', { print: 'line', lines: 10_000 }, { wait: 'seen' }, 'ok'], folder });
      close();
      await withFolder((home) =>
        withJobServer(folder, async ({ url }) => {
          await client({ url } as never, folder).admin();
          await withTerminal({ folder: home, args: ['jobs', '--url', url] }, async (terminal) => {
            await logIn(terminal);
            await terminal.shows('RUNNING');
            terminal.type('Enter');
            await terminal.shows('l log');
            terminal.type('l');
            await terminal.shows('line 10000');
            await terminal.shows('10000 lines, following');
            terminal.type('g');
            await terminal.shows(/line 1$/m);
            terminal.type('/', '9999', 'Enter');
            await terminal.shows('1 lines');
            await terminal.shows('line 9999');
            terminal.type('l');
            writeFileSync(join(folder, 'seen'), '');
            await terminal.shows('✓ SUCCEEDED');
            // Its end comes once, from another subscription than its state.
            const end = /\d SUCCEEDED|:\d\d +SUCCEEDED/g;
            await terminal.shows(new RegExp(end.source));
            expect(terminal.screen().match(end)).toHaveLength(1);
          });
        }),
      );
    }));
});

describe('without a terminal', () => {
  test('--json prints what a screen shows, with a token or the remembered login', () =>
    withServer(async (server) =>
      withFolder(async (folder) => {
        const env = { WHETSTONE_TOKEN: await server.admin(), XDG_CONFIG_HOME: folder };
        const { stdout } = await script(['overview', '--json', '--url', server.url], env);
        const { system, jobs } = JSON.parse(stdout);
        expect(system.slots).toEqual([
          { n: 0, job: null },
          { n: 1, job: null },
        ]);
        expect(jobs).toEqual({ nodes: [] });
      }),
    ));

  test.each([
    { args: ['nowhere'], code: 2, says: 'Allowed choices are overview, jobs,' },
    { args: ['--url', 'lab'], code: 2, says: "option '--url <url>' argument 'lab' is invalid. It must be an address such as" },
    { args: ['--colour'], code: 2, says: "unknown option '--colour'" },
    { args: ['--url'], code: 2, says: 'Usage: whetstone tui [options] [screen] [id...]' },
    { args: ['jobs'], code: 1, says: 'This is no terminal.' },
    { args: ['jobs'], variable: ['WHETSTONE_URL', 'lab'], code: 1, says: 'WHETSTONE_URL: “lab” is not an address such as' },
    { args: ['jobs'], variable: ['WHETSTONE_PORT', 'x'], code: 1, says: 'WHETSTONE_PORT: “http://127.0.0.1:x” is not an address such as' },
    { args: ['jobs', '--json', '--url', 'http://127.0.0.1:1'], code: 1, says: 'Nobody is logged in at http://127.0.0.1:1.' },
    { args: ['events', '--json', '--url', 'http://127.0.0.1:1'], code: 1, says: 'This screen has nothing to print.' },
  ])('$args is refused in a sentence', async ({ args, variable, code, says }) => {
    await withFolder(async (folder) => {
      const ran = script(args, Object.fromEntries([['XDG_CONFIG_HOME', folder], ...(variable ? [variable] : [])]));
      await expect(ran).rejects.toMatchObject({ code, stderr: expect.stringContaining(says) });
    });
  });

  test('--help lists the screens, all that there are', async () => {
    expect((await script(['--help'], {})).stdout).toContain('(choices: "overview", "jobs",');
    expect(screens.map(({ name }) => name)).toEqual(screenNames);
  });
});
