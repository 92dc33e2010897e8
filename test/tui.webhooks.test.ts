/** Webhooks and alerts in the terminal UI, against a real server and a receiver. */
import { beforeAll, describe, expect, test } from 'vitest';
import { eventually } from './support/eventually.ts';
import { isSigned, type Received, withReceiver } from './support/receiver.ts';
import { type TestServer, withFolder } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { key, logIn, withTui } from './support/tui.ts';

describe('in the terminal UI', () => {
  let server: TestServer;
  withSharedServer(
    (running) => {
      server = running;
    },
    { WHETSTONE_WEBHOOK_ADDRESSES: '127.0.0.1' },
  );
  beforeAll(() => server.admin());

  test('an administrator makes a webhook, tests it, sees the answer, sends it again, rotates the secret and deletes it', () =>
    withReceiver((receiver) =>
      withFolder((folder) =>
        withTui(
          server.url,
          async (tui) => {
            await logIn(tui);
            await tui.shows('There is no webhook.');
            tui.type('n');
            await tui.shows('New webhook');
            // The schema's order: events, then the URL.
            const isUrlFirst = tui.lines().findIndex((line) => /Url/.test(line)) < tui.lines().findIndex((line) => /Events/.test(line));
            tui.type(isUrlFirst ? receiver.url : 'JOB_ENDED');
            tui.type(key.tab);
            tui.type(isUrlFirst ? 'JOB_ENDED' : receiver.url);
            tui.type(key.ctrlS);
            await tui.shows('It is shown this once: copy it now.');
            const secretOf = () => tui.lines().flatMap((line) => /whsec_[A-Za-z0-9+/]{43}=/.exec(line) ?? [])[0] as string;
            const first = secretOf();
            tui.type(key.enter);
            await tui.shows(/› http:\/\/127\.0\.0\.1.*✓ enabled +JOB_ENDED +none/);

            tui.type('t');
            await tui.shows(/✓ DELIVERED +TEST +1 +204/);
            expect(isSigned(receiver.received[0] as Received, first)).toBe(true);
            tui.type('r');
            await eventually(() => expect(receiver.received).toHaveLength(2));
            receiver.answer = (res) => res.writeHead(401).end();
            tui.type('t');
            await tui.shows(/✗ FAILED +TEST +1 +401 .*The answer has the status 401/);
            await tui.shows(/✓ DELIVERED +TEST +1 +204/);
            receiver.answer = (res) => res.writeHead(204).end();

            tui.type(key.esc);
            await tui.shows('n new webhook');
            tui.type('S');
            await tui.shows('New secret of http://127.0.0.1');
            tui.type(key.ctrlS);
            await tui.shows('It is shown this once: copy it now.');
            expect(secretOf()).not.toBe(first);
            tui.type(key.enter);
            tui.type('e');
            await tui.shows('○ disabled');
            tui.type('x');
            await tui.shows('and its deliveries?');
            tui.type('y');
            await tui.shows('There is no webhook.');
          },
          { folder, first: { screen: 'webhooks' }, columns: 120 },
        ),
      ),
    ));

  test('the rules of alerts are listed with their states, and changed', () =>
    withTui(
      server.url,
      async (tui) => {
        await logIn(tui);
        await tui.shows(/› QUEUE_WAIT +✓ OK +14400 +60 s/);
        tui.type('e');
        await tui.shows('Change the rule QUEUE_WAIT');
        tui.type(key.ctrlU);
        tui.type('600');
        tui.type(key.ctrlS);
        await tui.shows(/› QUEUE_WAIT +✓ OK +(600 +60|14400 +600) s/);
      },
      { first: { screen: 'alerts' }, columns: 100 },
    ));
});
