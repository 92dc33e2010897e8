/**
 * Nobody is offered what the server would refuse. On every screen, for every row of its lists, the test reads the rows that make the keys,
 * the footer and the help. It compares them with what the server answers to the mutation behind each.
 */
import { type DocumentNode, print } from 'graphql';
import { describe, expect, test, vi } from 'vitest';
import { createApiKey } from '../src/accounts/apiKeys.ts';
import { may } from '../src/accounts/permissions.ts';
import { type Role, roles, type User } from '../src/accounts/tables.ts';
import { findUserByName } from '../src/accounts/users.ts';
import { backoffMsMax } from '../src/jobs/states.ts';
import { job } from '../src/jobs/tables.ts';
import { modelVersion } from '../src/models/tables.ts';
import { opaqueId } from '../src/naming.ts';
import { type ActionName, actions } from '../tui/actions.ts';
import { permissionFor, type Screen, screens } from '../tui/screens/screens.ts';
import type { KeyRow } from '../tui/ui/keys.tsx';
import { nobody } from './support/jobs.ts';
import { idOf, storeObjects } from './support/objects.ts';
import { adminName, type TestServer, withFolder, withServer } from './support/server.ts';
import { key, logIn, type Tui, withTui } from './support/tui.ts';

/** Rows that the screens give to the keyboard, and those that the footer and the help have of them. */
const seen = vi.hoisted(() => ({ given: new Set<KeyRow>(), offered: new Set<KeyRow>() }));

vi.mock('../tui/ui/keys.tsx', async (importOriginal) => {
  const keys = await importOriginal<typeof import('../tui/ui/keys.tsx')>();
  const useKeys: typeof keys.useKeys = (rows, options = {}) => {
    // The frame's keys are the same on every screen, and change nothing.
    if (options.level !== keys.level.frame) for (const row of rows) seen.given.add(row);
    keys.useKeys(rows, options);
  };
  const useActiveRows: typeof keys.useActiveRows = () => {
    const rows = keys.useActiveRows();
    for (const row of rows) seen.offered.add(row);
    return rows;
  };
  return { ...keys, useKeys, useActiveRows };
});

const names = Object.keys(actions) as ActionName[];
const documentOf = (name: ActionName) => print(actions[name].document as unknown as DocumentNode);

/** Inputs with unknown ids and names: an answer other than FORBIDDEN means that the role may do it. */
const nothing = opaqueId('Job', 'nothing');
const inputs: Record<Exclude<ActionName, 'revokeApiKey'>, object> = {
  cancelJob: { jobId: nothing },
  retryJob: { jobId: nothing },
  startTraining: { preset: 'none', datasetVersionId: nothing, modelName: 'a' },
  startEvaluation: { datasetVersionId: nothing, modelVersionId: nothing },
  startConversion: { modelVersionId: nothing },
  startCompression: { modelVersionId: nothing, precision: 'FP16' },
  startBenchmark: { modelVersionIds: [nothing] },
  createDataset: { name: 'a', task: 'CLASSIFICATION', uploadId: nothing, sha256: 'a' },
  createModel: { name: 'a', task: 'CLASSIFICATION', uploadId: nothing, sha256: 'a' },
  deploy: { name: 'a', modelVersionId: nothing },
  rollback: { name: 'a' },
  undeploy: { name: 'a' },
  infer: { deployment: 'a', image: '' },
  createUser: { name: '', role: 'VIEWER', password: '' },
  updateUser: { userId: nothing },
  disableUser: { userId: nothing },
  resetPassword: { userId: nothing, password: '' },
  revokeSession: { sessionId: opaqueId('Session', 'nothing') },
  changePassword: { currentPassword: 'a', newPassword: 'b' },
  createApiKey: { name: '' },
  createWebhook: { url: '', events: [] },
  updateWebhook: { webhookId: opaqueId('Webhook', 'nothing') },
  deleteWebhook: { webhookId: opaqueId('Webhook', 'nothing') },
  rotateWebhookSecret: { webhookId: opaqueId('Webhook', 'nothing') },
  testWebhook: { webhookId: opaqueId('Webhook', 'nothing') },
  redeliverWebhook: { deliveryId: opaqueId('WebhookDelivery', 'nothing') },
  updateAlertRule: { metric: 'DISK_FREE', threshold: -1 },
};

/** A key of this user: the list of keys shows no other to those who may not revoke it. */
async function ownKey({ graphql, services }: TestServer, token: string): Promise<string> {
  const { data } = await graphql('{ viewer { name } }', {}, token);
  const { row } = createApiKey(services, nobody, findUserByName(services.db, data.viewer.name) as User, {
    name: 'camera',
    scopes: ['READ'],
  });
  return opaqueId('ApiKey', row.id);
}

const isForbidden = (errors: { extensions?: { code?: string } }[] = []): boolean =>
  errors.some(({ extensions }) => extensions?.code === 'FORBIDDEN');

/** The actions that the server lets this role do. */
async function allowedBy(server: TestServer, role: Role): Promise<Set<ActionName>> {
  const token = await server.as(role);
  const allowed = new Set<ActionName>();
  for (const name of names) {
    const input = name === 'revokeApiKey' ? { apiKeyId: await ownKey(server, token) } : inputs[name];
    const { errors } = await server.graphql(documentOf(name), { input }, token);
    if (!isForbidden(errors)) allowed.add(name);
  }
  return allowed;
}

/** One of each that a screen has keys for: jobs that wait and that have failed, a checkpoint and an ONNX version, keys, users. */
async function storeWorld(server: TestServer): Promise<Record<string, string>> {
  storeObjects(server);
  const { db } = server.services;
  const now = Date.now();
  const common = { kind: 'TRAIN', specJson: {}, slotsNeeded: 1, priority: 0, createdAt: now } as const;
  db.insert(job)
    .values([
      // It backs off for longer than the test takes.
      { ...common, id: 'waiting', state: 'QUEUED', notBefore: now + backoffMsMax },
      { ...common, id: 'failed', state: 'FAILED', endedAt: now, failureCode: 'CRASHED', failureMessage: 'It crashed.' },
    ])
    .run();
  const version = { modelId: 'Model', precision: 'FP32', origin: 'UPLOADED', state: 'READY', createdAt: now } as const;
  db.insert(modelVersion)
    .values({ ...version, id: 'checkpoint', number: 2, format: 'CHECKPOINT' })
    .run();
  for (const role of roles) await ownKey(server, await server.as(role));
  const other = findUserByName(db, adminName) as User;
  return {
    job: opaqueId('Job', 'waiting'),
    measurements: opaqueId('Job', 'waiting'),
    compare: `${opaqueId('Job', 'waiting')},${opaqueId('Job', 'failed')}`,
    dataset: 'one',
    model: 'one',
    deployment: 'one',
    infer: 'one',
    report: idOf('Report'),
    user: opaqueId('User', other.id),
    webhook: idOf('Webhook'),
  };
}

interface Requests {
  /** Mutations that the terminal UI has sent, by name. */
  mutations: string[];
  forbidden: string[];
  running: number;
}

/** Runs `use` while the requests of the terminal UI are counted. */
async function watched(use: (requests: Requests) => Promise<void>): Promise<void> {
  const requests: Requests = { mutations: [], forbidden: [], running: 0 };
  const original = globalThis.fetch;
  const spy = vi.spyOn(globalThis, 'fetch').mockImplementation(async (input, init) => {
    const query = String(JSON.parse(String(init?.body ?? '{}')).query ?? '');
    const mutation = /^mutation (\w+)/.exec(query.trim())?.[1];
    if (mutation) requests.mutations.push(mutation);
    requests.running += 1;
    try {
      const response = await original(input, init);
      const { errors } = (await response.clone().json()) as { errors?: [] };
      if (isForbidden(errors)) requests.forbidden.push(query);
      return response;
    } finally {
      requests.running -= 1;
    }
  });
  try {
    await use(requests);
  } finally {
    spy.mockRestore();
  }
}

/** One row of each kind: every rendering makes new ones. */
const byLabel = (rows: Iterable<KeyRow>) => new Map([...rows].map((row) => [`${row.keys} ${row.label}`, row]));
const labelsOf = (rows: Iterable<KeyRow>) => new Set(byLabel(rows).keys());

/** Opens the help and closes it: all that was typed before has its effect then. */
async function settled(tui: Tui): Promise<void> {
  tui.type('?');
  await tui.shows('Keys of this screen');
  tui.type(key.esc);
  await tui.showsNot('Keys of this screen');
}

/** The rows of a screen, for each row of its lists. */
async function rowsOf(tui: Tui, requests: Requests): Promise<typeof seen> {
  await vi.waitUntil(() => requests.running === 0, { timeout: 30_000, interval: 10 });
  await settled(tui);
  for (let row = 0, before = ''; row < 6 && before !== tui.lines().join(); row += 1) {
    before = tui.lines().join();
    tui.type('j');
    await settled(tui);
  }
  return { given: new Set(seen.given), offered: new Set([...seen.offered].filter((row) => seen.given.has(row))) };
}

/** What the frame shows of a question. */
const question = 'y yes n no';

/** Waits until what was begun has been sent and answered. */
async function quiet(requests: Requests, { graphql }: TestServer, token: string): Promise<void> {
  await graphql('{ viewer { name } }', {}, token);
  await vi.waitUntil(() => requests.running === 0, { timeout: 30_000, interval: 10 });
}

const isForm = ({ does }: Screen): boolean => does !== undefined;

describe.each(roles)('%s', (role) => {
  test('the table of actions says what the server says', () =>
    withServer(async (server) => {
      const allowed = await allowedBy(server, role);
      expect(names.filter((name) => may(role, actions[name].needs))).toEqual(names.filter((name) => allowed.has(name)));
    }));

  test('a screen is offered exactly when the server answers what it asks, a form when it takes what it sends', () =>
    withServer(async (server) => {
      const ids = await storeWorld(server);
      const allowed = await allowedBy(server, role);
      const token = await server.as(role);
      const answered: string[] = [];
      for (const screen of screens) {
        const id = ids[screen.name];
        const { errors } = screen.query
          ? await server.graphql(print(screen.query as unknown as DocumentNode), { id, ids: id?.split(',') }, token)
          : { errors: [] };
        if (screen.does ? allowed.has(screen.does) : !isForbidden(errors)) answered.push(screen.name);
      }
      expect(screens.filter((screen) => may(role, permissionFor(screen))).map(({ name }) => name)).toEqual(answered);
      await withTui(
        server.url,
        async (tui) => {
          await logIn(tui, role.toLowerCase());
          tui.type(':');
          await tui.shows('Log out');
          const listed = tui.lines().flatMap((line) => /^ [› ] ([a-z-]+) /.exec(line)?.[1] ?? []);
          const reached = screens.filter(({ from, name }) => from !== 'ROW' && answered.includes(name)).map(({ name }) => name);
          expect(listed).toEqual([...reached, 'logout', 'quit']);
        },
        { rows: 60 },
      );
    }));

  test('on every screen, for every row: a key is offered exactly when the server takes what it does', { timeout: 240_000 }, () =>
    withServer(async (server) => {
      const ids = await storeWorld(server);
      const allowed = await allowedBy(server, role);
      const token = await server.as(role);
      const found = new Set<ActionName>(screens.flatMap(({ does }) => does ?? []));
      await withFolder((folder) =>
        watched(async (requests) => {
          const at = (screen: string, use: (tui: Tui) => Promise<void>) => {
            seen.given.clear();
            seen.offered.clear();
            const first = ids[screen] ? { screen, id: ids[screen] } : { screen };
            return withTui(server.url, use, { folder, first, rows: 60, columns: 120 });
          };
          await at('overview', (tui) => logIn(tui, role.toLowerCase()));
          requests.mutations.length = 0;
          for (const screen of screens.filter((row) => may(role, permissionFor(row)) && !isForm(row))) {
            await at(screen.name, async (tui) => {
              await tui.shows('● connected');
              const { given, offered } = await rowsOf(tui, requests);
              for (const { does } of given) if (does) found.add(does);
              const should = [...given].filter(({ does }) => !does || allowed.has(does));
              expect([screen.name, labelsOf(offered)]).toEqual([screen.name, labelsOf(should)]);
              // The others change nothing, and ask nothing.
              for (const { does, run } of byLabel(offered).values()) {
                if (does) continue;
                run();
                await quiet(requests, server, token);
              }
              expect([screen.name, [...seen.given].filter(({ label }) => label === 'yes')]).toEqual([screen.name, []]);
            });
            expect([screen.name, requests.mutations, requests.forbidden]).toEqual([screen.name, [], []]);
          }
          if (role === 'ADMIN') return;
          // What is offered does what its row says, and is not refused.
          for (const screen of screens.filter((row) => may(role, permissionFor(row)) && !isForm(row)))
            await at(screen.name, async (tui) => {
              await tui.shows('● connected');
              const { offered } = await rowsOf(tui, requests);
              for (const { does, run } of byLabel(offered).values()) {
                if (!does) continue;
                requests.mutations.length = 0;
                run();
                await quiet(requests, server, token);
                if (tui.lines().join().includes(question)) {
                  tui.type('y');
                  await tui.showsNot(question);
                  await quiet(requests, server, token);
                }
                const sent = requests.mutations.filter((name) => name.toLowerCase() !== `tui${does.toLowerCase()}`);
                expect([screen.name, does, sent, requests.forbidden]).toEqual([screen.name, does, [], []]);
              }
            });
        }),
      );
      // No action of the table is behind a key that this test has not seen.
      if (role === 'ADMIN') expect([...found].sort()).toEqual([...names].sort());
    }),
  );
});
