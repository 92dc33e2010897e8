import { expect, test } from 'vitest';
import { openDatabase } from '../src/db.ts';
import { createWebhook, listDeliveries } from '../src/webhooks/webhooks.ts';
import { eventually } from './support/eventually.ts';
import { nobody, submit } from './support/jobs.ts';
import { withListening } from './support/process.ts';
import { isSigned, withReceiver } from './support/receiver.ts';
import { withFolder } from './support/server.ts';

const withServer = <T>(folder: string, use: (kill: () => Promise<unknown>) => Promise<T>) =>
  withListening(
    ['test/support/jobServer.ts'],
    { WHETSTONE_DATA_DIR: folder, WHETSTONE_PORT: '0', WHETSTONE_WEBHOOK_ADDRESSES: '127.0.0.1' },
    'whetstone is ready',
    ({ kill, exit }) =>
      use(() => {
        kill('SIGKILL');
        return exit;
      }),
  );

test('a delivery outlives kill -9 of the server while it is being sent: the next server sends it with the same id', () =>
  withReceiver((receiver) =>
    withFolder(async (folder) => {
      const opened = openDatabase(folder);
      const config = { webhookAddresses: ['127.0.0.1'] };
      const { row, secret } = createWebhook({ db: opened.db, config }, nobody, { url: receiver.url, events: ['JOB_ENDED'] });
      submit(opened.db, { folder });
      opened.close();
      const { answer } = receiver;
      receiver.answer = () => {};
      await withServer(folder, async (kill) => {
        await eventually(() => expect(receiver.received).toHaveLength(1));
        await kill();
      });
      receiver.answer = answer;
      await withServer(folder, async (kill) => {
        await eventually(() => expect(receiver.received).toHaveLength(2));
        await kill();
      });
      expect(receiver.received.every((got) => isSigned(got, secret))).toBe(true);
      const [first, second] = receiver.received.map(({ headers, body }) => [headers['webhook-id'], body]);
      expect(second).toEqual(first);
      const { db, close } = openDatabase(folder);
      expect(listDeliveries(db, row.id, null, 10, null)).toHaveLength(1);
      close();
    }),
  ));
