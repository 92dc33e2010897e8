import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { describe, expect, test } from 'vitest';
import { inTransaction } from '../src/db.ts';
import { appendEvents, type NewEvent } from '../src/jobs/events.ts';
import { type Job, job, metricPoint } from '../src/jobs/tables.ts';
import type { Step } from './support/child.ts';
import { nextAnswer, withEvents } from './support/events.ts';
import { type Submitted, submit, until } from './support/jobs.ts';
import { kindsOf, scripted } from './support/kinds.ts';
import { type TestServer, withServer } from './support/server.ts';
import { withConnection } from './support/socket.ts';

const kinds = kindsOf(scripted);
const withJobServer = <T>(use: (server: TestServer) => Promise<T>): Promise<T> => withServer(use, {}, kinds);

const submitTo = ({ services: { db, bus }, dataDir }: TestServer, submitted: Submitted): Job => {
  const made = submit(db, { folder: dataDir, ...submitted });
  bus.wake('queueChanged', '');
  return made;
};

/** A job that runs, as far as the database knows: nothing happens to it but what the test does. */
function still({ services: { db } }: TestServer, values: Partial<Job> = {}): Job {
  const made = submit(db);
  return db
    .update(job)
    .set({ state: 'RUNNING', attemptNumber: 1, ...values })
    .where(eq(job.id, made.id))
    .returning()
    .get();
}

const idOf = async ({ graphql }: TestServer, token: string, n = 0): Promise<string> =>
  (await graphql('{ jobs(first: 100, orderBy: OLDEST) { nodes { id } } }', {}, token)).data.jobs.nodes[n].id;

test('a job shows what was asked for, its attempts, events, curves, log and result', () =>
  withJobServer(async (server) => {
    const token = await server.as('VIEWER');
    const steps: Step[] = ['hello', { phase: 'training' }, { epoch: 1 }, { epoch: 2 }, { print: 'first' }, { print: 'second' }, 'ok'];
    submitTo(server, { steps });
    const id = await idOf(server, token);
    const query = `query ($id: ID!) {
      job(id: $id) {
        id kind state priority spec result failure { code } queuePosition createdByName retryOf { id } startedAt endedAt
        attempts { number state exitCode signal charged device environment startedAt endedAt }
        events(after: 2, first: 3) { __typename seq attempt }
        metrics { name steps values }
        logs(after: 1) { n attempt stream text }
      }
    }`;
    const read = async () => (await server.graphql(query, { id }, token)).data.job;
    await until(async () => (await read()).state === 'SUCCEEDED');
    expect(await read()).toMatchObject({
      id,
      kind: 'IMPORT_MODEL',
      priority: 0,
      spec: { steps },
      result: { attempt: 1 },
      failure: null,
      queuePosition: null,
      createdByName: null,
      retryOf: null,
      attempts: [
        {
          number: 1,
          state: 'SUCCEEDED',
          exitCode: 0,
          signal: null,
          charged: false,
          device: { type: 'cpu' },
          environment: { script: true },
        },
      ],
      events: [
        { __typename: 'JobPhaseEvent', seq: 3, attempt: 1 },
        { __typename: 'JobEpochEvent', seq: 4, attempt: 1 },
        { __typename: 'JobCheckpointEvent', seq: 5, attempt: 1 },
      ],
      metrics: [{ name: 'val.loss', steps: [10, 20], values: [1, 0.5] }],
      logs: [{ n: 2, attempt: 1, stream: 'stdout', text: 'second' }],
    });
    expect((await server.graphql('query ($id: ID!) { node(id: $id) { id ... on Job { state } } }', { id }, token)).data.node).toEqual({
      id,
      state: 'SUCCEEDED',
    });
  }));

test('every type of event has its fields', () =>
  withJobServer(async (server) => {
    const token = await server.as('VIEWER');
    const { db } = server.services;
    const { id } = still(server);
    const failure = { code: 'CRASHED', message: 'killed' };
    const told: NewEvent[] = [
      { type: 'PHASE', payload: { phase: 'training', total: 7 } },
      { type: 'EPOCH', payload: { epoch: 1, epochs: 2, step: 5, best: true, durationMs: 9, metrics: { b: 2, a: 1 } } },
      { type: 'CHECKPOINT', payload: { file: 'c', sha256: 'c', epoch: 1, batch: 0, sizeBytes: 2 ** 40 } },
      { type: 'ARTIFACT', payload: { kind: 'ONNX', file: 'o', sha256: 'o', sizeBytes: 3, meta: {} } },
      { type: 'GATE', payload: { gate: 'CONVERSION', file: 'o', numbers: { images: 4 } } },
      { type: 'WARNING', payload: { code: 'SLOW', message: 'It is slow.' } },
      { type: 'STATE', payload: { state: 'QUEUED', attemptState: 'CRASHED', failure } },
    ];
    inTransaction(db, (tx) => appendEvents(tx, id, 1, told));
    const query = `query ($id: ID!) { job(id: $id) { events(after: 1) {
      ... on JobStateEvent { state attemptState failure { code message } } ... on JobPhaseEvent { phase total }
      ... on JobEpochEvent { epoch epochs step best durationMs metrics { name value } } ... on JobCheckpointEvent { epoch batch sizeBytes }
      ... on JobArtifactEvent { kind sha256 sizeBytes } ... on JobGateEvent { gate numbers } ... on JobWarningEvent { code message }
    } } }`;
    expect((await server.graphql(query, { id: await idOf(server, token) }, token)).data.job.events).toEqual([
      { phase: 'training', total: 7 },
      {
        epoch: 1,
        epochs: 2,
        step: 5,
        best: true,
        durationMs: 9,
        metrics: [
          { name: 'a', value: 1 },
          { name: 'b', value: 2 },
        ],
      },
      { epoch: 1, batch: 0, sizeBytes: 2 ** 40 },
      { kind: 'ONNX', sha256: 'o', sizeBytes: 3 },
      { gate: 'CONVERSION', numbers: { images: 4 } },
      { code: 'SLOW', message: 'It is slow.' },
      { state: 'QUEUED', attemptState: 'CRASHED', failure },
    ]);
  }));

test('a long curve is thinned evenly: first and last point kept, by name if asked for', () =>
  withJobServer(async (server) => {
    const token = await server.as('VIEWER');
    const { id } = still(server);
    const points = Array.from({ length: 1001 }, (_, i) => ({ jobId: id, name: 'train.loss', step: i * 10, value: i, attemptNumber: 1 }));
    server.services.db
      .insert(metricPoint)
      .values([...points, { ...points[0], name: 'val.top1' } as (typeof points)[0]])
      .run();
    const read = async (args: string) =>
      (
        await server.graphql(
          `query ($id: ID!) { job(id: $id) { metrics${args} { name steps values } } }`,
          { id: await idOf(server, token) },
          token,
        )
      ).data.job.metrics;
    expect(await read('(maxPoints: 5)')).toEqual([
      { name: 'train.loss', steps: [0, 2500, 5000, 7500, 10_000], values: [0, 250, 500, 750, 1000] },
      { name: 'val.top1', steps: [0], values: [0] },
    ]);
    expect((await read('(names: ["train.loss"])')).map((c: { steps: number[] }) => c.steps.length)).toEqual([500]);
    expect(await read('(names: ["nothing"])')).toEqual([]);
  }));

test('more than 1,000 events or lines at once are refused', () =>
  withJobServer(async (server) => {
    const token = await server.as('VIEWER');
    still(server);
    for (const field of ['events(first: 1001) { seq }', 'logs(first: 0) { n }']) {
      const { errors } = await server.graphql(`query ($id: ID!) { job(id: $id) { ${field} } }`, { id: await idOf(server, token) }, token);
      expect(errors?.[0]).toMatchObject({ message: 'Between 1 and 1000 can be asked for at once.', extensions: { code: 'LIMIT' } });
    }
  }));

test('jobs are listed in pages, in either order, by kind, state and creator', () =>
  withJobServer(async (server) => {
    const token = await server.as('ENGINEER');
    const { data: me } = await server.graphql('{ viewer { id } }', {}, token);
    const { db } = server.services;
    const actorId = db.$client.prepare("SELECT id FROM user WHERE name = 'engineer'").pluck().get() as string;
    const made = [
      still(server, { createdAt: 5 }),
      still(server, { createdAt: 5, kind: 'IMPORT_DATASET', createdById: actorId }),
      still(server, { createdAt: 6, state: 'FAILED', failureCode: 'POISON', failureMessage: 'crashed' }),
      still(server, { createdAt: 7, state: 'CANCELLED', createdById: actorId }),
    ];
    // Of the same moment, by id.
    const expected = [...made].sort((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1));
    const list = async (args: string) => {
      const ids: string[] = [];
      for (let after: string | null = null; ; ) {
        const page = `first: 1${after ? `, after: "${after}"` : ''}${args ? `, ${args}` : ''}`;
        const { data } = await server.graphql(`{ jobs(${page}) { nodes { id } pageInfo { hasNextPage endCursor } } }`, {}, token);
        for (const { id } of data.jobs.nodes) ids.push(Buffer.from(id, 'base64').toString().split(':')[1] as string);
        if (!data.jobs.pageInfo.hasNextPage) return ids;
        after = data.jobs.pageInfo.endCursor;
      }
    };
    const oldest = expected.map((j) => j.id);
    expect(await list('orderBy: OLDEST')).toEqual(oldest);
    expect(await list('')).toEqual([...oldest].reverse());
    expect(await list('filter: { kinds: [IMPORT_DATASET] }')).toEqual([made[1]?.id]);
    expect(await list('filter: { states: [FAILED, CANCELLED] }')).toEqual([made[3]?.id, made[2]?.id]);
    expect(await list(`filter: { createdById: "${me.viewer.id}" }`)).toEqual([made[3]?.id, made[1]?.id]);
    expect(await list('filter: { states: [] }')).toEqual([]);
    expect(await list('filter: { text: "CRASHED" }')).toEqual([made[2]?.id]);
    expect(await list('filter: { text: "poison" }')).toEqual([made[2]?.id]);
    expect(await list('filter: { text: "ENGI" }')).toEqual([made[3]?.id, made[1]?.id]);
    const at = (ms: number) => new Date(ms).toISOString();
    for (const [orderBy, found] of [
      ['OLDEST', [made[2]?.id, made[3]?.id]],
      ['NEWEST', [made[3]?.id, made[2]?.id]],
    ]) {
      expect(await list(`orderBy: ${orderBy}, filter: { createdAfter: "${at(6)}", createdBefore: "${at(8)}" }`)).toEqual(found);
      expect(await list(`orderBy: ${orderBy}, filter: { createdAfter: "${at(6)}", createdBefore: "${at(7)}" }`)).toEqual([made[2]?.id]);
    }
    const { data } = await server.graphql(
      '{ jobs(first: 100, filter: { states: [FAILED] }) { nodes { failure { code message } } } }',
      {},
      token,
    );
    expect(data.jobs.nodes).toEqual([{ failure: { code: 'POISON', message: 'crashed' } }]);
  }));

test('waiting jobs show their place in the queue', () =>
  withJobServer(async (server) => {
    const token = await server.as('VIEWER');
    still(server, { slotsNeeded: -1 });
    for (const priority of [0, 1, 0]) submitTo(server, { slots: 1, priority });
    const { data } = await server.graphql(
      '{ jobs(first: 9, orderBy: OLDEST) { nodes { queuePosition state } } system { queuedJobs runningJobs slots { n job { state } } } }',
      {},
      token,
    );
    expect(data.jobs.nodes.map((j: { queuePosition: number }) => j.queuePosition).sort()).toEqual([1, 2, 3, null]);
    expect(data.system).toMatchObject({
      queuedJobs: 3,
      runningJobs: 1,
      slots: [
        { n: 0, job: null },
        { n: 1, job: null },
      ],
    });
  }));

describe('mutations', () => {
  const cancel = 'mutation ($i: CancelJobInput!) { cancelJob(input: $i) { job { state } userErrors { code message field } } }';
  const retry =
    'mutation ($i: RetryJobInput!) { retryJob(input: $i) { job { id state retryOf { id } spec createdByName } userErrors { code message field } } }';

  test('cancelJob stops a running job; once more is no error, after the end it is', () =>
    withJobServer(async (server) => {
      const token = await server.as('ENGINEER');
      const { id: jobId } = submitTo(server, { steps: ['hello', { wait: 'go' }, { exit: 75 }], ignores: ['commands'] });
      const id = await idOf(server, token);
      await until(() => server.services.db.$client.prepare("SELECT 1 FROM attempt WHERE jobId = ? AND state = 'RUNNING'").get(jobId));
      for (const _ of [1, 2]) {
        const { data } = await server.graphql(cancel, { i: { jobId: id } }, token);
        expect(data.cancelJob).toEqual({ job: { state: 'CANCELLING' }, userErrors: [] });
      }
      writeFileSync(join(server.dataDir, 'go'), '');
      await until(() => server.services.db.$client.prepare("SELECT 1 FROM job WHERE state = 'CANCELLED'").get());
      const { data } = await server.graphql(cancel, { i: { jobId: id } }, token);
      const message = 'The job has ended already: it is CANCELLED.';
      expect(data.cancelJob).toEqual({ job: null, userErrors: [{ code: 'INVALID', message, field: ['jobId'] }] });
      const audit = server.services.db.$client.prepare("SELECT action, targetId FROM audit WHERE action = 'cancelJob'").all();
      expect(audit).toEqual([{ action: 'cancelJob', targetId: jobId }]);
    }));

  test('retryJob makes a new job of one that failed; the same key makes it once, another use of the key is refused', () =>
    withJobServer(async (server) => {
      const token = await server.as('ENGINEER');
      submitTo(server, { steps: ['hello', { exit: 65 }] });
      const first = await idOf(server, token);
      await until(() => server.services.db.$client.prepare("SELECT 1 FROM job WHERE state = 'FAILED'").get());
      const again = async (jobId: string, idempotencyKey?: string) =>
        (await server.graphql(retry, { i: { jobId, idempotencyKey } }, token)).data.retryJob;
      const made = await again(first, 'a key');
      expect(made).toMatchObject({
        job: { state: 'QUEUED', retryOf: { id: first }, spec: { steps: ['hello', { exit: 65 }] }, createdByName: 'engineer' },
        userErrors: [],
      });
      expect((await again(first, 'a key')).job.id).toBe(made.job.id);
      expect((await again(made.job.id, 'a key')).userErrors).toEqual([
        {
          code: 'IDEMPOTENCY_CONFLICT',
          message: `The key a key has made the job ${made.job.id} of another input (IMPORT_MODEL). Send the same input, or take a new key.`,
          field: ['idempotencyKey'],
        },
      ]);
      await until(() => server.services.db.$client.prepare("SELECT count(*) AS n FROM job WHERE state = 'FAILED'").pluck().get() === 2);
      expect((await again(first)).job.id).not.toBe(made.job.id);
    }));

  test('retryJob of a job that runs or has succeeded is refused, of none NOT_FOUND', () =>
    withJobServer(async (server) => {
      const token = await server.as('ENGINEER');
      still(server);
      const jobId = await idOf(server, token);
      const message = 'Only a job that failed or was cancelled can be tried again: this one is RUNNING.';
      expect((await server.graphql(retry, { i: { jobId } }, token)).data.retryJob.userErrors).toEqual([
        { code: 'INVALID', message, field: ['jobId'] },
      ]);
      const nobody = Buffer.from('Job:nobody').toString('base64');
      expect((await server.graphql(retry, { i: { jobId: nobody } }, token)).errors?.[0].extensions.code).toBe('NOT_FOUND');
    }));

  test('a queue of 1,000 jobs takes no more', () =>
    withJobServer(async (server) => {
      const token = await server.as('ENGINEER');
      still(server, { slotsNeeded: -1 });
      still(server, { state: 'FAILED' });
      const numbers = 'WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 1000)';
      const columns = 'id, kind, state, specJson, slotsNeeded, priority, createdAt';
      const values = "'x' || value, 'IMPORT_MODEL', 'QUEUED', '{}', 1, 0, 5";
      server.services.db.$client.exec(`INSERT INTO job (${columns}) ${numbers} SELECT ${values} FROM n`);
      const { data: listed } = await server.graphql('{ jobs(first: 1, filter: { states: [FAILED] }) { nodes { id } } }', {}, token);
      const { data } = await server.graphql(retry, { i: { jobId: listed.jobs.nodes[0].id } }, token);
      expect(data.retryJob.userErrors[0]).toMatchObject({
        code: 'LIMIT',
        message: 'There are 1000 jobs in the queue: wait until some have ended, or cancel some.',
      });
    }));
});

describe('subscriptions', () => {
  test('jobEvents over SSE: behind `after`, then live, and complete with the job', () =>
    withJobServer(async (server) => {
      const token = await server.as('VIEWER');
      submitTo(server, { steps: ['hello', { phase: 'training' }, { wait: 'go' }, { epoch: 1 }, 'ok'] });
      const id = await idOf(server, token);
      const query = 'subscription ($id: ID!) { jobEvents(id: $id, after: 2) { seq __typename } }';
      await withEvents(
        server.url,
        query,
        token,
        async (items) => {
          expect((await nextAnswer(items))?.data.jobEvents).toEqual({ seq: 3, __typename: 'JobPhaseEvent' });
          writeFileSync(join(server.dataDir, 'go'), '');
          const types: string[] = [];
          for (let answer = await nextAnswer(items); answer; answer = await nextAnswer(items)) types.push(answer.data.jobEvents.__typename);
          expect(types).toEqual(['JobEpochEvent', 'JobCheckpointEvent', 'JobStateEvent']);
        },
        { id },
      );
    }));

  test('jobProgress, jobLogs, jobs and jobEvents of a running job over one socket', () =>
    withJobServer(async (server) => {
      const token = await server.as('VIEWER');
      submitTo(server, { steps: ['hello', { wait: 'go', moving: true }, { print: 'a line' }, 'ok'] });
      const id = await idOf(server, token);
      await withConnection(server.url, token, async (socket) => {
        const fields = {
          jobProgress: 'jobProgress(id: $id) { phase done total epoch epochs itemsPerSecond etaMs metrics { name } }',
          jobLogs: 'jobLogs(id: $id) { n at attempt stream text }',
          jobEvents: 'jobEvents(id: $id) { seq }',
        };
        for (const [name, field] of Object.entries(fields)) {
          socket.send({ type: 'subscribe', id: name, payload: { query: `subscription ($id: ID!) { ${field} }`, variables: { id } } });
        }
        socket.send({
          type: 'subscribe',
          id: 'jobs',
          payload: { query: 'subscription { jobs(filter: { kinds: [IMPORT_MODEL] }) { id state } }' },
        });
        const tick = await socket.message((m) => m.id === 'jobProgress' && m.type === 'next');
        expect(tick.payload.data.jobProgress).toEqual({
          phase: 'start',
          done: expect.any(Number),
          total: null,
          epoch: null,
          epochs: null,
          itemsPerSecond: null,
          etaMs: null,
          metrics: [],
        });
        writeFileSync(join(server.dataDir, 'go'), '');
        for (const name of Object.keys(fields)) await socket.message((m) => m.id === name && m.type === 'complete');
        const told = (name: string) => socket.messages.filter((m) => m.id === name && m.type === 'next').map((m) => m.payload.data[name]);
        expect(told('jobLogs')).toMatchObject([{ n: 1, attempt: 1, stream: 'stdout', text: 'a line' }]);
        expect(told('jobEvents').map((e) => e.seq)).toEqual([1, 2, 3]);
        await socket.message((m) => m.id === 'jobs' && m.payload?.data.jobs.state === 'SUCCEEDED');
        expect(new Set(told('jobs').map((j) => j.id))).toEqual(new Set([id]));
      });
    }));

  test('jobs: those that have not ended come first, oldest first, filtered; then what changes', () =>
    withJobServer(async (server) => {
      const token = await server.as('VIEWER');
      const { db, bus } = server.services;
      const made = [
        still(server, { createdAt: 1 }),
        still(server, { createdAt: 2, state: 'FAILED' }),
        still(server, { createdAt: 3, kind: 'IMPORT_DATASET' }),
      ];
      await withConnection(server.url, token, async (socket) => {
        socket.send({ type: 'subscribe', id: 'all', payload: { query: 'subscription { jobs { kind state } }' } });
        socket.send({
          type: 'subscribe',
          id: 'models',
          payload: { query: 'subscription { jobs(filter: { kinds: [IMPORT_MODEL], states: [FAILED] }) { kind state } }' },
        });
        const text = '(filter: { text: "import nothing" })';
        socket.send({ type: 'subscribe', id: 'none', payload: { query: `subscription { jobs${text} { kind state } }` } });
        await socket.message((m) => m.id === 'all' && m.payload?.data.jobs.kind === 'IMPORT_DATASET');
        for (const { id } of made) bus.wake('jobChanged', id);
        await socket.message((m) => m.id === 'models' && m.type === 'next');
        await until(() => socket.messages.filter((m) => m.id === 'all').length === 5);
        const told = (name: string) =>
          socket.messages.filter((m) => m.id === name).map((m) => Object.values(m.payload.data.jobs).join(' '));
        const [running, failed, dataset] = ['IMPORT_MODEL RUNNING', 'IMPORT_MODEL FAILED', 'IMPORT_DATASET RUNNING'];
        expect(told('all')).toEqual([running, dataset, running, failed, dataset]);
        expect(told('models')).toEqual([failed]);
        expect(told('none')).toEqual([]);
      });
      expect(db.select().from(job).all()).toHaveLength(3);
    }));

  test('of a job that there is not is NOT_FOUND', () =>
    withJobServer(async (server) => {
      const token = await server.as('VIEWER');
      const id = Buffer.from('Job:nobody').toString('base64');
      await withConnection(server.url, token, async (socket) => {
        for (const field of ['jobEvents', 'jobProgress', 'jobLogs']) {
          socket.send({
            type: 'subscribe',
            id: field,
            payload: { query: `subscription ($id: ID!) { ${field}(id: $id) { __typename } }`, variables: { id } },
          });
          const { payload } = await socket.message((m) => m.id === field);
          expect(payload.errors?.[0] ?? payload[0]).toMatchObject({ extensions: { code: 'NOT_FOUND' } });
        }
      });
    }));
});
