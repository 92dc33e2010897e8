import { describe, expect, test } from 'vitest';
import { writeAudit } from '../src/accounts/audit.ts';
import { inTransaction } from '../src/db.ts';
import { nobody } from './support/jobs.ts';
import { adminPassword, withFolder, withServer } from './support/server.ts';
import { fill, hasTmux, logIn, script, toField, whyNot, withTerminal } from './support/terminal.ts';

describe.skipIf(!hasTmux)(`users, API keys and the audit log in a real terminal${whyNot}`, () => {
  test('an administrator makes a user, changes, disables and enables them, sets a password and ends their sessions', () =>
    withServer(async (server) => {
      await server.admin();
      await withFolder((folder) =>
        withTerminal({ folder, args: ['users', '--url', server.url] }, async (terminal) => {
          await logIn(terminal);
          await terminal.shows(/› ada +ADMIN +✓ active/);
          terminal.type('n');
          await terminal.shows('New user');
          await fill(terminal, 'Name', 'grace');
          await fill(terminal, 'Password', 'short');
          terminal.type('C-s');
          await terminal.shows('A password has at least 12 characters.');
          await terminal.shows(/Password +•{5}.*✗/);
          terminal.type('C-u', adminPassword, 'C-s');
          await terminal.shows(/grace +VIEWER +✓ active +0/);

          terminal.type('j');
          await terminal.shows(/› grace/);
          terminal.type('r');
          await terminal.shows('Change grace');
          await toField(terminal, 'Role');
          terminal.type('E', 'C-s');
          await terminal.shows(/› grace +ENGINEER/);

          await server.login('grace', adminPassword);
          await terminal.shows(/› grace +ENGINEER +✓ active +1/);
          terminal.type('Enter');
          await terminal.shows(/› \S.* x end the session/s);
          terminal.type('x');
          await terminal.shows('End this session?');
          terminal.type('y');
          await terminal.shows('No session is open.');
          terminal.type('Escape');
          await terminal.shows(/grace +ENGINEER +✓ active +0/);

          terminal.type('G', 'x');
          await terminal.shows('Disable grace?');
          terminal.type('n');
          await terminal.shows(/› grace +ENGINEER +✓ active/);
          terminal.type('x');
          await terminal.shows('Disable grace?');
          terminal.type('y');
          await terminal.shows(/› grace +ENGINEER +○ disabled/);
          await expect(server.login('grace', adminPassword)).rejects.toThrow();
          terminal.type('x');
          await terminal.shows(/› grace +ENGINEER +✓ active/);

          terminal.type('p');
          await terminal.shows('New password of grace');
          terminal.type('another long password', 'C-s');
          await terminal.shows('Done.');
          await server.login('grace', 'another long password');
          await terminal.shows(/› grace +ENGINEER +✓ active +1/);
          terminal.type('s');
          await terminal.shows('End the 1 session of grace?');
          terminal.type('y');
          await terminal.shows(/› grace +ENGINEER +✓ active +0/);
        }),
      );
    }));

  test('one’s own password is changed with the old one', () =>
    withServer(async (server) => {
      await server.as('VIEWER');
      await withFolder((folder) =>
        withTerminal({ folder, args: ['--url', server.url] }, async (terminal) => {
          await logIn(terminal, 'viewer');
          terminal.type(':', 'password', 'Enter');
          await terminal.shows('Change your password');
          await fill(terminal, 'Current password', 'wrong');
          await fill(terminal, 'New password', 'another long password');
          terminal.type('C-s');
          await terminal.shows(/Current password +•+.*✗/);
          await fill(terminal, 'Current password', adminPassword);
          terminal.type('C-s');
          await terminal.shows('Your password is changed');
          await server.login('viewer', 'another long password');
        }),
      );
    }));

  test('an engineer makes an API key, sees its secret once and revokes it; users and audit log are not offered', () =>
    withServer(async (server) => {
      const token = await server.as('ENGINEER');
      await withFolder((folder) =>
        withTerminal({ folder, args: ['--url', server.url] }, async (terminal) => {
          await logIn(terminal, 'engineer');
          await terminal.shows('Memory');
          expect(terminal.screen()).not.toContain('Users');
          terminal.type(':', 'a');
          await terminal.shows('API keys');
          expect(terminal.screen()).not.toMatch(/users|audit/i);
          terminal.type('Escape');
          await terminal.shows('Memory');
          terminal.type(':', 'keys', 'Enter');
          await terminal.shows('There is no API key.');
          terminal.type('n');
          await terminal.shows('New API key');
          await fill(terminal, 'Name', 'camera');
          await fill(terminal, 'Deployments', 'front, back');
          terminal.type('C-s');
          await terminal.shows('There is no deployment back.');
          terminal.type('C-u', 'C-s');
          await terminal.shows('The secret of camera.');
          const secret = /wsk_\S+/.exec(terminal.screen())?.[0] as string;
          // No other key leads away from it.
          terminal.type('2', ':', 'q');
          await terminal.shows('The secret of camera.');
          terminal.type('Enter');
          await terminal.shows(/› camera +✓ active +wsk_/);
          await terminal.lacks(secret);
          terminal.type('x');
          await terminal.shows('Revoke camera of engineer?');
          terminal.type('y');
          await terminal.shows(/› camera +○ revoked/);
          const { data } = await server.graphql('{ apiKeys { nodes { revokedAt } } }', {}, token);
          expect(data.apiKeys.nodes).toEqual([{ revokedAt: expect.any(String) }]);
        }),
      );
    }));

  test('the audit log: newest first, older pages as one scrolls or filters', () =>
    withServer(async (server) => {
      await server.admin();
      const { db } = server.services;
      inTransaction(db, (tx) => {
        for (let n = 0; n < 250; n += 1) writeAudit(tx, nobody, { action: 'imported', detail: { n: n + 1000 } });
      });
      await withFolder((folder) =>
        withTerminal({ folder, args: ['audit', '--url', server.url] }, async (terminal) => {
          await logIn(terminal);
          await terminal.shows(/› .* ada +login /);
          await terminal.shows('n=1249');
          terminal.type('/', 'n=1003');
          await terminal.shows(/› .* imported .* n=1003/);
          terminal.type('Enter', 'Enter');
          await terminal.shows('"n": 1003');
          terminal.type('Escape');
          await terminal.shows(/› .* imported .* n=1003/);
          terminal.type('Escape');
          await terminal.shows('n=1249');
          terminal.type('G');
          await terminal.shows(/bootstrap +OK/);
          terminal.type('g');
          await terminal.shows(/› .* ada +login /);
        }),
      );
    }));
});

test('--json prints users, one user, API keys and the audit log', () =>
  withServer(async (server) =>
    withFolder(async (folder) => {
      const env = { WHETSTONE_TOKEN: await server.admin(), XDG_CONFIG_HOME: folder };
      const printed = async (...words: string[]) => JSON.parse((await script([...words, '--json', '--url', server.url], env)).stdout);
      const { users } = await printed('users');
      expect(users.nodes).toMatchObject([{ name: 'ada', role: 'ADMIN', sessions: [{ current: true }] }]);
      expect(await printed('user', users.nodes[0].id)).toMatchObject({ node: { name: 'ada' } });
      expect((await printed('keys')).apiKeys.nodes).toEqual([]);
      expect((await printed('audit')).auditLog.nodes[0]).toMatchObject({ action: 'login', actor: { name: 'ada' } });
      const viewer = { ...env, WHETSTONE_TOKEN: await server.as('VIEWER') };
      await expect(script(['users', '--json', '--url', server.url], viewer)).rejects.toMatchObject({ code: 1 });
    }),
  ));
