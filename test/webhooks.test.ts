import { count, eq, sql } from 'drizzle-orm';
import { describe, expect, test } from 'vitest';
import { readConfig } from '../src/config.ts';
import { type Db, inTransaction, openDatabase } from '../src/db.ts';
import { undeploy } from '../src/deployments/deploy.ts';
import { activate, fail, insertRevision } from '../src/deployments/deployments.ts';
import { JobFailure, type JobKind } from '../src/jobs/kinds.ts';
import { createLog } from '../src/log.ts';
import { addressProblem } from '../src/webhooks/addresses.ts';
import { queueDeliveries } from '../src/webhooks/outbox.ts';
import { type SenderLimits, startSender } from '../src/webhooks/sender.ts';
import { type Webhook, type WebhookDelivery, type WebhookEvent, webhook, webhookDelivery } from '../src/webhooks/tables.ts';
import { createWebhook, deleteWebhook, findDelivery, rotateWebhookSecret, updateWebhook } from '../src/webhooks/webhooks.ts';
import { eventually } from './support/eventually.ts';
import { nobody, submit } from './support/jobs.ts';
import { kindsOf, scripted } from './support/kinds.ts';
import { idOf, storeObjects } from './support/objects.ts';
import { isSigned, type Received, type Receiver, withReceiver } from './support/receiver.ts';
import { type TestServer, withFolder } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';

/** Its jobs do what their specification says, and fail where its child says that the gate did. */
const gated: JobKind = {
  ...scripted,
  finish: async (_services, _attempt, { result }) => {
    if (result.gate === 'failed') throw new JobFailure('GATE_FAILED', 'It is 3 points worse.');
    return () => result;
  },
};

describe('a server', () => {
  let server: TestServer;
  withSharedServer(
    (running) => {
      server = running;
      storeObjects(server);
    },
    { WHETSTONE_WEBHOOK_ADDRESSES: '127.0.0.1' },
    kindsOf(gated),
  );

  const asAdmin = async (query: string, variables: object = {}) => {
    const { data, errors } = await server.graphql(query, variables, await server.admin());
    expect(errors).toBeUndefined();
    return data;
  };
  const mutation = async (name: string, input: object, fields: string) => {
    const type = `${name.charAt(0).toUpperCase()}${name.slice(1)}Input`;
    const query = `mutation ($input: ${type}!) { ${name}(input: $input) { ${fields} userErrors { code field message } } }`;
    return (await asAdmin(query, { input }))[name];
  };
  const deliveryFields = 'id messageId event state attempts httpStatus problem body nextAttemptAt';

  /** Submits a job whose child does `steps`, and waits for the requests that it causes. */
  const told = async (receiver: Receiver, requests: number, steps: Parameters<typeof submit>[1]): Promise<Received[]> => {
    submit(server.services.db, steps);
    server.services.bus.wake('queueChanged', '');
    return eventually(() => {
      expect(receiver.received).toHaveLength(requests);
      return receiver.received;
    });
  };

  test('tells a webhook of the end of a job, signed by the Standard Webhooks specification, and lists the delivery', () =>
    withReceiver(async (receiver) => {
      const made = await mutation('createWebhook', { url: `${receiver.url}/ended?t=1`, events: ['JOB_ENDED'] }, 'secret webhook { id }');
      await mutation('createWebhook', { url: `${receiver.url}/alerts`, events: ['ALERT_CHANGED'] }, 'webhook { id }');
      const [got] = (await told(receiver, 1, {})) as [Received];
      expect(got.path).toBe('/ended?t=1');
      expect(made.secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
      expect(isSigned(got, made.secret)).toBe(true);
      expect(isSigned({ ...got, body: got.body.replace('SUCCEEDED', 'FAILED') }, made.secret)).toBe(false);
      const jobs = await asAdmin('{ jobs(first: 1) { nodes { id endedAt } } }');
      expect(JSON.parse(got.body)).toEqual({
        type: 'job.ended',
        timestamp: expect.any(String),
        data: {
          jobId: jobs.jobs.nodes[0].id,
          kind: 'IMPORT_MODEL',
          state: 'SUCCEEDED',
          parentJobId: null,
          createdAt: expect.any(String),
          endedAt: jobs.jobs.nodes[0].endedAt,
          failure: null,
        },
      });
      const list = `query ($id: ID!) { node(id: $id) { ... on Webhook { deliveries { nodes { ${deliveryFields} } } } } }`;
      const [delivery] = await eventually(async () => {
        const { nodes } = (await asAdmin(list, { id: made.webhook.id })).node.deliveries;
        expect(nodes).toMatchObject([{ state: 'DELIVERED', attempts: 1, httpStatus: 204, problem: null, nextAttemptAt: null }]);
        return nodes;
      });
      expect([delivery.messageId, delivery.body]).toEqual([got.headers['webhook-id'], got.body]);

      const { delivery: again } = await mutation('redeliverWebhook', { deliveryId: delivery.id }, 'delivery { state }');
      expect(again).toEqual({ state: 'PENDING' });
      const [, second] = await eventually(() => {
        expect(receiver.received).toHaveLength(2);
        return receiver.received;
      });
      expect([second?.headers['webhook-id'], second?.body]).toEqual([got.headers['webhook-id'], got.body]);

      await mutation('updateWebhook', { webhookId: made.webhook.id, enabled: false }, 'webhook { enabled }');
      const refused = await mutation('redeliverWebhook', { deliveryId: delivery.id }, 'delivery { id }');
      expect(refused.userErrors).toMatchObject([{ message: 'The webhook is disabled: enable it first.' }]);
      const deleted = await mutation('deleteWebhook', { webhookId: made.webhook.id }, 'deletedWebhookId');
      expect(deleted.deletedWebhookId).toBe(made.webhook.id);
      const { auditLog } = await asAdmin('{ auditLog(first: 5) { nodes { action targetType detail } } }');
      const host = new URL(receiver.url).host;
      expect(auditLog.nodes.map(({ action }: { action: string }) => action)).toEqual([
        'deleteWebhook',
        'updateWebhook',
        'redeliverWebhook',
        'startJob',
        'createWebhook',
      ]);
      expect(auditLog.nodes[0]).toMatchObject({ targetType: 'Webhook', detail: { host, events: ['JOB_ENDED'], enabled: false } });
      expect(JSON.stringify(auditLog)).not.toContain('t=1');
    }));

  test('tells of a model that did not pass its gate', () =>
    withReceiver(async (receiver) => {
      const { webhook: made } = await mutation('createWebhook', { url: receiver.url, events: ['GATE_FAILED'] }, 'webhook { id }');
      const done = { type: 'done', status: 'ok', result: { gate: 'failed' } };
      const [got] = (await told(receiver, 1, { steps: ['hello', { say: done }, { exit: 0 }] })) as [Received];
      expect(JSON.parse(got.body)).toMatchObject({
        type: 'gate.failed',
        data: { state: 'FAILED', failure: { code: 'GATE_FAILED', message: 'It is 3 points worse.' } },
      });
      await mutation('deleteWebhook', { webhookId: made.id }, 'deletedWebhookId');
    }));

  test('sends a test to a webhook, whatever it is for, tries it once and lists it with the answer', () =>
    withReceiver(async (receiver) => {
      const { webhook: made } = await mutation('createWebhook', { url: receiver.url, events: ['GATE_FAILED'] }, 'webhook { id }');
      const list = `query ($id: ID!) { node(id: $id) { ... on Webhook { deliveries(first: 1) { nodes { ${deliveryFields} } } } } }`;
      const tested = async (expected: object) => {
        const { delivery } = await mutation('testWebhook', { webhookId: made.id }, 'delivery { id event state }');
        expect(delivery).toMatchObject({ event: 'TEST', state: 'PENDING' });
        await eventually(async () => {
          const [newest] = (await asAdmin(list, { id: made.id })).node.deliveries.nodes;
          expect(newest).toMatchObject({ id: delivery.id, attempts: 1, nextAttemptAt: null, ...expected });
        });
      };
      await tested({ state: 'DELIVERED', httpStatus: 204 });
      expect(JSON.parse((receiver.received[0] as Received).body)).toMatchObject({ type: 'test', data: { webhookId: made.id } });
      receiver.answer = (res) => res.writeHead(401).end();
      await tested({ state: 'FAILED', httpStatus: 401, problem: 'The answer has the status 401; 200 to 299 is a delivery.' });
      await mutation('updateWebhook', { webhookId: made.id, enabled: false }, 'webhook { id }');
      const refused = await mutation('testWebhook', { webhookId: made.id }, 'delivery { id }');
      expect(refused.userErrors).toMatchObject([{ message: 'The webhook is disabled: enable it first.' }]);
      await mutation('deleteWebhook', { webhookId: made.id }, 'deletedWebhookId');
    }));

  test('gives a webhook a new secret, shows it once, and says how long the old one is valid', async () => {
    const input = { url: 'https://lab.example/', events: ['JOB_ENDED'] };
    const { webhook: made, secret } = await mutation('createWebhook', input, 'secret webhook { id rotationEndsAt }');
    expect(made.rotationEndsAt).toBeNull();
    const rotate = (overlapHours?: number) =>
      mutation('rotateWebhookSecret', { webhookId: made.id, overlapHours }, 'secret webhook { rotationEndsAt }');
    const rotated = await rotate();
    expect(rotated.secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
    expect(rotated.secret).not.toBe(secret);
    expect(Math.abs(Date.parse(rotated.webhook.rotationEndsAt) - Date.now() - 86_400_000)).toBeLessThan(3_600_000);
    expect((await rotate(0)).webhook.rotationEndsAt).toBeNull();
    expect((await rotate(169)).userErrors).toMatchObject([{ field: ['overlapHours'], message: expect.stringContaining('168') }]);
    await mutation('deleteWebhook', { webhookId: made.id }, 'deletedWebhookId');
  });

  test.each([
    ['url', { url: 'ftp://lab.example/' }, 'A webhook has an address such as https://lab.example/whetstone.'],
    ['url', { url: 'https://ada:secret@lab.example/' }, 'Leave name and password out of the URL: check the signature.'],
    ['url', { url: 'http://[::1]:8080/' }, '::1 is not a public address.'],
    ['url', { url: 'http://0x7f.2/' }, '127.0.0.2 is not a public address.'],
    ['events', { events: [] }, 'A webhook is for at least one event.'],
    ['events.0', { events: ['TEST'] }, 'TEST is sent by `testWebhook` only: leave it out.'],
  ])('refuses a webhook whose %s is %j', async (field, input, message) => {
    const { userErrors } = await mutation('createWebhook', { url: 'https://lab.example/', events: ['JOB_ENDED'], ...input }, 'secret');
    expect(userErrors).toMatchObject([{ code: 'INVALID', field: field.split('.'), message: expect.stringContaining(message) }]);
  });

  test('refuses the 21st webhook', async () => {
    const { db } = server.services;
    const input = { url: 'https://lab.example/', events: ['JOB_ENDED'] };
    const had = db.select({ n: count() }).from(webhook).get()?.n ?? 0;
    const ids = Array.from({ length: 20 - had }, () => createWebhook(server.services, nobody, input).row.id);
    expect((await mutation('createWebhook', input, 'secret')).userErrors).toMatchObject([{ code: 'LIMIT' }]);
    for (const id of ids) deleteWebhook(server.services, nobody, id);
  });
});

test('a revision that takes the traffic, one that fails, and a deployment that is removed are told', () =>
  withDatabase(async ({ db, create, deliveries }) => {
    storeObjects({ dataDir: db.$client.name.replace(/\/[^/]*$/, '') } as TestServer);
    const { row } = create('https://lab.example/', ['DEPLOYMENT_CHANGED']);
    const of = { deploymentId: 'Deployment', modelVersionId: 'ModelVersion', settingsJson: {}, createdById: null };
    inTransaction(db, (tx) => activate(tx, insertRevision(tx, of)));
    inTransaction(db, (tx) => fail(tx, insertRevision(tx, of), 'It does not load.'));
    expect(() =>
      inTransaction(db, (tx) => {
        activate(tx, insertRevision(tx, of));
        throw new Error('The transaction is rolled back.');
      }),
    ).toThrow('rolled back');
    await undeploy({ config: readConfig({}), db, supervisor: { wake: async () => {} } as never }, nobody, 'one');
    const said = deliveries(row.id).map(({ body }) => JSON.parse(body).data);
    const revision = { deploymentId: idOf('Deployment'), name: 'one', modelVersionId: idOf('ModelVersion') };
    expect(said).toEqual([
      { ...revision, state: 'ACTIVE', revision: 1, reason: null },
      { ...revision, state: 'FAILED', revision: 2, reason: 'It does not load.' },
      { ...revision, state: 'REMOVED', revision: null, modelVersionId: null, reason: null },
    ]);
  }));

interface Outbox {
  db: Db;
  create(url: string, events?: WebhookEvent[]): { row: Webhook; secret: string };
  /** Starts sending; it stops at the end. */
  start(limits?: Partial<SenderLimits>, allowed?: string[]): void;
  /** Writes an event, and gives its delivery for a webhook. */
  happens(to: Webhook): WebhookDelivery;
  /** First to last. */
  deliveries(webhookId: string): WebhookDelivery[];
  /** A delivery when it is as expected. */
  becomes(id: string, expected: Partial<WebhookDelivery>): Promise<WebhookDelivery>;
}

/** Webhooks without a server, which look all the time and back off for an hour unless told otherwise. */
async function withDatabase(use: (outbox: Outbox) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const { db, close } = openDatabase(folder);
    const config = readConfig({ WHETSTONE_DATA_DIR: folder, WHETSTONE_LOG_LEVEL: 'silent', WHETSTONE_WEBHOOK_ADDRESSES: '127.0.0.1' });
    const stops: (() => void)[] = [];
    const deliveries: Outbox['deliveries'] = (webhookId) =>
      db.select().from(webhookDelivery).where(eq(webhookDelivery.webhookId, webhookId)).orderBy(sql`rowid`).all();
    try {
      await use({
        db,
        deliveries,
        create: (url, events = ['JOB_ENDED']) => createWebhook({ db, config }, nobody, { url, events }),
        start: (limits, webhookAddresses = ['127.0.0.1']) => {
          const all = { lookMs: 5, answerMs: 10_000, backoffMs: () => 3_600_000, ...limits };
          stops.push(startSender({ db, config: { webhookAddresses } }, createLog(config), all));
        },
        happens: ({ id }) => {
          inTransaction(db, (tx) => queueDeliveries(tx, 'JOB_ENDED', { n: 1 }));
          return deliveries(id).at(-1) as WebhookDelivery;
        },
        becomes: (id, expected) =>
          eventually(() => {
            const row = findDelivery(db, id);
            expect(row).toMatchObject(expected);
            return row as WebhookDelivery;
          }),
      });
    } finally {
      for (const stop of stops) stop();
      close();
    }
  });
}

const withBoth = (use: (outbox: Outbox, receiver: Receiver) => Promise<void>) =>
  withReceiver((receiver) => withDatabase((outbox) => use(outbox, receiver)));

describe('a receiver that', () => {
  test('fails three times gets the same delivery four times, each signed', () =>
    withBoth(async ({ create, start, happens, becomes }, receiver) => {
      const { row, secret } = create(receiver.url);
      receiver.answer = (res) => res.writeHead(receiver.received.length <= 3 ? 500 : 200).end('as asked');
      start({ backoffMs: () => 0 });
      const { id } = happens(row);
      await becomes(id, { state: 'DELIVERED', attempts: 4, httpStatus: 200, response: 'as asked', problem: null, nextAt: null });
      expect(receiver.received.map((got) => [got.headers['webhook-id'], isSigned(got, secret)])).toEqual(Array(4).fill([id, true]));
    }));

  test('fails for a day has lost the delivery, until somebody sends it again', () =>
    withBoth(async ({ db, create, start, happens, becomes }, receiver) => {
      const { row } = create(receiver.url);
      receiver.answer = (res) => res.writeHead(503).end();
      const { id } = happens(row);
      db.update(webhookDelivery).set({ triedUntil: Date.now() }).run();
      start();
      const problem = 'The answer has the status 503; 200 to 299 is a delivery.';
      await becomes(id, { state: 'FAILED', attempts: 1, httpStatus: 503, problem, nextAt: null });
    }));

  test('hangs is given up, and does not hold up another', () =>
    withBoth(async ({ create, start, happens, becomes, deliveries }, receiver) => {
      const [hangs, other] = [create(`${receiver.url}/hangs`), create(`${receiver.url}/other`)];
      receiver.answer = (res, { path }) => path === '/other' && res.end();
      // A second, in which the other one is to answer on a slow machine too.
      start({ answerMs: 1000 });
      const { id } = happens(hangs.row);
      await becomes(deliveries(other.row.id)[0]?.id ?? '', { state: 'DELIVERED' });
      await becomes(id, { state: 'PENDING', attempts: 1, httpStatus: null, problem: 'There was no answer within 1 s.' });
    }));

  test('redirects to loopback is not followed', () =>
    withBoth(async ({ create, start, happens, becomes }, receiver) => {
      const { row } = create(receiver.url);
      receiver.answer = (res) => res.writeHead(307, { location: `${receiver.url}/followed` }).end();
      start();
      await becomes(happens(row).id, { httpStatus: 307, problem: expect.stringContaining('which is not followed') });
      expect(receiver.received.map(({ path }) => path)).toEqual(['/']);
    }));

  test('answers without an end is not read to it', () =>
    withBoth(async ({ create, start, happens, becomes }, receiver) => {
      const { row } = create(receiver.url);
      const cutOff = Promise.withResolvers<void>();
      receiver.answer = (res) => {
        const write = () => {
          while (res.write('x'.repeat(65_536)));
        };
        res.on('drain', write).on('close', cutOff.resolve).writeHead(200);
        write();
      };
      start();
      await becomes(happens(row).id, { state: 'DELIVERED', response: 'x'.repeat(1000) });
      await cutOff.promise;
    }));
});

test('during a rotation a receiver may check with the old secret or the new one, afterwards with the new one only', () =>
  withBoth(async ({ db, create, start, happens, becomes }, receiver) => {
    const { row, secret } = create(receiver.url);
    start();
    const signedBy = async (...secrets: string[]) => {
      await becomes(happens(row).id, { state: 'DELIVERED' });
      return secrets.map((one) => isSigned(receiver.received.at(-1) as Received, one));
    };
    const second = rotateWebhookSecret({ db, config: { webhookAddresses: [] } }, nobody, row.id, { overlapHours: 1 }).secret;
    expect(await signedBy(secret, second)).toEqual([true, true]);
    db.update(webhook).set({ previousSecretUntil: Date.now() }).run();
    expect(await signedBy(secret, second)).toEqual([false, true]);
    const third = rotateWebhookSecret({ db, config: { webhookAddresses: [] } }, nobody, row.id, { overlapHours: 0 }).secret;
    expect(await signedBy(secret, second, third)).toEqual([false, false, true]);
  }));

describe('a webhook that is', () => {
  test.each(['disabled', 'deleted'] as const)('%s stops, also in the middle of a request', (what) =>
    withBoth(async ({ db, create, start, happens }, receiver) => {
      const { row } = create(receiver.url);
      const [arrived, closed] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      receiver.answer = (res) => {
        res.on('close', closed.resolve);
        arrived.resolve();
      };
      start();
      const { id } = happens(row);
      await arrived.promise;
      const services = { db, config: { webhookAddresses: [] } };
      if (what === 'deleted') deleteWebhook(services, nobody, row.id);
      else updateWebhook(services, nobody, row.id, { enabled: false });
      await closed.promise;
      inTransaction(db, (tx) => queueDeliveries(tx, 'JOB_ENDED', {}));
      expect(db.select({ id: webhookDelivery.id, attempts: webhookDelivery.attempts }).from(webhookDelivery).all()).toEqual(
        what === 'deleted' ? [] : [{ id, attempts: 0 }],
      );
    }),
  );

  test('not reached keeps its newest 1,000 deliveries', () =>
    withDatabase(async ({ db, create, happens, deliveries }) => {
      const { row } = create('https://lab.example/');
      happens(row);
      // Those of a millisecond have no order.
      db.update(webhookDelivery).set({ id: '0' }).run();
      inTransaction(db, (tx) => {
        for (let n = 0; n < 1000; n += 1) queueDeliveries(tx, 'JOB_ENDED', { n });
      });
      expect(deliveries(row.id)).toHaveLength(1000);
      expect(deliveries(row.id).map(({ id }) => id)).not.toContain('0');
    }));
});

describe('an address that is not public is not connected to', () => {
  const refused = ['127.0.0.1', '127.9.9.9', '0.0.0.0', '10.1.2.3', '172.16.0.1', '172.31.255.255', '192.168.1.1', '169.254.169.254'];
  const further = ['100.64.0.1', '224.0.0.1', '255.255.255.255', '192.0.2.1', '198.18.0.1'];
  const refused6 = ['::', '::1', '::ffff:127.0.0.1', '::ffff:8.8.8.8', '::ffff:a00:1', '::7f00:1', '64:ff9b::7f00:1', '64:ff9b::808:808'];
  const further6 = [
    '64:ff9b:1::1',
    'fe80::1',
    'fe80::1%eth0',
    'fc00::1',
    'fd12::1',
    'ff02::1',
    'fec0::1',
    '2002:7f00:1::',
    '2001::1',
    '2001:db8::1',
  ];
  test.each([...refused, ...further, ...refused6, ...further6])('%s', (address) => {
    expect(addressProblem([])(address)).toMatch(/is not a public address\. An administrator can allow it with WHETSTONE_WEBHOOK_ADDRESSES/);
  });

  test.each(['8.8.8.8', '172.32.0.1', '192.169.0.1', '2606:4700::1111', '2a00:1450:4001::1'])('%s is public', (address) => {
    expect(addressProblem([])(address)).toBeNull();
  });

  test('unless the setting has it in a range', () => {
    const problemOf = addressProblem(['10.0.0.0/8', 'fd00::/8']);
    expect(['10.1.2.3', '::ffff:10.1.2.3', 'fd12::1'].map(problemOf)).toEqual([null, null, null]);
    expect(['127.0.0.1', 'fe80::1'].map((address) => problemOf(address) === null)).toEqual([false, false]);
  });

  test.each([
    ['as a number', (port: string) => `http://127.0.0.1:${port}/`],
    ['behind a name that resolves to it', (port: string) => `http://localhost:${port}/`],
  ])('%s', (_what, urlOf) =>
    withBoth(async ({ db, create, start, happens, becomes }, receiver) => {
      const { row } = create('https://lab.example/');
      // As the name of a webhook whose address was public when it was made.
      db.update(webhook)
        .set({ url: urlOf(new URL(receiver.url).port) })
        .run();
      start({}, []);
      await becomes(happens(row).id, { attempts: 1, httpStatus: null, problem: expect.stringContaining('is not a public address') });
      expect(receiver.received).toEqual([]);
    }),
  );
});
