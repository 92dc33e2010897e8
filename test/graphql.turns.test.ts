import { AsyncLocalStorage } from 'node:async_hooks';
import { setImmediate } from 'node:timers/promises';
import { execute, type GraphQLError, parse } from 'graphql';
import { describe, expect, test } from 'vitest';
import { inTransaction, rowInsert } from '../src/db.ts';
import type { Context } from '../src/graphql/context.ts';
import { checkDocument } from '../src/graphql/limits.ts';
import { piecesOf } from '../src/graphql/longAnswers.ts';
import { schema } from '../src/graphql/schema.ts';
import { enqueue } from '../src/jobs/enqueue.ts';
import { metricPoint } from '../src/jobs/tables.ts';
import { modelVersion } from '../src/models/tables.ts';
import { opaqueId } from '../src/naming.ts';
import { tag } from '../src/tags/tables.ts';
import { inTurn } from '../src/turns.ts';
import { stretchesOf } from './support/eventLoop.ts';
import { nobody } from './support/jobs.ts';
import { storeVersions } from './support/reports.ts';
import { postGraphql, withServer } from './support/server.ts';
import { ask, withConnection } from './support/socket.ts';

/** Computes for this long. */
function compute(ms: number): void {
  const { user, system } = process.threadCpuUsage();
  for (;;) {
    const now = process.threadCpuUsage();
    if (now.user + now.system - user - system >= ms * 1000) return;
  }
}

describe('the work of a request', () => {
  test('runs at once while there is time, and has its result, its error and its surroundings when it runs later', async () => {
    const request = {};
    expect(inTurn(request, () => 'at once')).toBe('at once');
    compute(12);
    expect(inTurn(request, () => 'the last of this turn')).toBe('the last of this turn');
    compute(12);
    const scope = new AsyncLocalStorage<string>();
    const later = scope.run('mine', () => inTurn(request, () => scope.getStore()));
    expect(later).toBeInstanceOf(Promise);
    expect(await later).toBe('mine');
    compute(12);
    await expect(
      Promise.all([
        inTurn(request, () => compute(12)),
        inTurn(request, () => {
          throw new Error('wrong');
        }),
      ]),
    ).rejects.toThrow('wrong');
  });

  test('lets the event loop turn, and the requests have their turns one after the other', async () => {
    const [long, short] = [{ name: 'long' }, { name: 'short' }];
    const done: string[] = [];
    for (const request of [long, short]) inTurn(request, () => undefined);
    compute(12);
    inTurn(long, () => undefined);
    compute(12);
    const work = (request: { name: string }) =>
      inTurn(request, () => {
        done.push(request.name);
        compute(6);
      });
    const all = [...Array.from({ length: 10 }, () => work(long)), work(short)];
    let turns = 0;
    let ended = false;
    const counting = (async () => {
      for (; !ended; turns += 1) await setImmediate();
    })();
    await Promise.all(all);
    ended = true;
    await counting;
    expect(done.indexOf('short')).toBeLessThan(3);
    expect(turns).toBeGreaterThanOrEqual(10);
  });
});

test('what is made of the result of a piece of work counts too: ten long lists do not follow one another without a turn', async () => {
  const request = {};
  inTurn(request, () => undefined);
  compute(12);
  const { turns } = await stretchesOf(() => {
    inTurn(request, () => undefined);
    // The time of this turn is over.
    compute(12);
    return Promise.all(Array.from({ length: 10 }, () => Promise.resolve(inTurn(request, () => 'a list')).then(() => compute(8))));
  });
  expect(turns).toBeGreaterThanOrEqual(8);
});

test('the costliest documents that the limits allow hold the event loop for a small part of their time only', async () => {
  await withServer(async ({ services }) => {
    const { db } = services;
    inTransaction(db, (tx) => {
      const insert = rowInsert(metricPoint);
      for (let n = 0; n < 100; n += 1) {
        const { id } = enqueue(tx, nobody, { kind: 'BENCHMARK', spec: {} });
        // The newest have curves.
        for (let i = 0; n >= 70 && i < 20 * 200; i += 1)
          insert(tx, { jobId: id, name: `m${i % 20}`, step: i, epoch: i, value: i, attemptNumber: 1 });
      }
    });
    const context = { ...services, viewer: { by: 'SESSION', user: { role: 'VIEWER' } } } as unknown as Context;
    const documents = [
      '{ jobs(first: 30) { nodes { metrics { steps values } } } }',
      `{ jobs(first: 100) { nodes { ${Array.from({ length: 40 }, (_, i) => `a${i}: queuePosition`).join(' ')} } } }`,
    ];
    for (const text of documents) {
      const document = parse(text);
      checkDocument(schema, document);
      // The first answer also compiles.
      for (const last of [false, true]) {
        const { longestOfWork, total } = await stretchesOf(async () => {
          const { data, errors } = (await execute({ schema, document, contextValue: { ...context } })) as {
            data: { jobs: object };
            errors?: GraphQLError[];
          };
          expect(errors).toBeUndefined();
          expect(data.jobs).toBeTruthy();
        });
        if (last) expect(longestOfWork / total, text).toBeLessThan(0.3);
      }
    }
  });
});

test('for a client that has gone nothing more is read, and what it wants to be done is done', () =>
  withServer(async ({ services }) => {
    const { db } = services;
    const jobs = inTransaction(db, (tx) => Array.from({ length: 100 }, () => enqueue(tx, nobody, { kind: 'BENCHMARK', spec: {} })));
    const viewer = { by: 'SESSION', user: { role: 'ADMIN' } };
    const contextOf = (res: { destroyed: boolean }) => ({ ...services, viewer, actor: nobody, res }) as unknown as Context;
    const fields = Array.from({ length: 40 }, (_, i) => `a${i}: queuePosition`).join(' ');
    const document = parse(`{ jobs(first: 100) { nodes { ${fields} } } }`);
    const res = { destroyed: false };
    const answer = execute({ schema, document, contextValue: contextOf(res) });
    res.destroyed = true;
    const { errors } = (await answer) as { errors?: GraphQLError[] };
    expect(new Set(errors?.map(({ message }) => message))).toEqual(new Set(['The client has gone.']));

    const set = (n: number) =>
      `t${n}: setTags(input: { subjectId: "${opaqueId('Job', String(jobs[n]?.id))}", tags: [{ key: "k", value: "v" }] }) { clientMutationId }`;
    await execute({ schema, document: parse(`mutation { ${[0, 1, 2].map(set).join(' ')} }`), contextValue: contextOf(res) });
    expect(db.select().from(tag).all().length).toBe(3);
  }));

describe('a long answer', () => {
  test('has the text of JSON.stringify, however it is cut', () => {
    const object = (fields: object) => Object.assign(Object.create(null), fields);
    const labels = Array.from({ length: 2500 }, (_, n) => (n % 7 ? `a "class" ${n}\n` : null));
    const scalar = { at: new Date(0), nothing: undefined, list: [undefined, { a: 1 }] };
    const nested = [null, object({ labels, lists: [[1, 2], [], [null]] }), object({})];
    const answer = object({ data: object({ nested, scalar, empty: [], text: '€', left: undefined, no: false }) });
    const pieces = [...piecesOf(answer)];
    expect(pieces.join('')).toBe(JSON.stringify(answer));
    expect(pieces.length).toBeGreaterThan(20);
  });

  test('is refused as a message of a WebSocket and as an event when it is long, and is whole as JSON, also to who would take events', () =>
    withServer(async (server) => {
      const labelsJson = Array.from({ length: 10_000 }, (_, n) => `${n} `.padEnd(100, 'x'));
      storeVersions(server.services.db, [1]);
      server.services.db.update(modelVersion).set({ labelsJson }).run();
      const viewer = await server.as('VIEWER');
      const labelsOf = (count: number) =>
        `{ ${Array.from({ length: count }, (_, n) => `a${n}: modelVersions(first: 1) { nodes { labels } }`).join(' ')} }`;
      const accepting = (accept: string) => postGraphql(server.url, labelsOf(5), {}, viewer, { accept });
      for (const accept of ['application/graphql-response+json, application/json, text/event-stream, multipart/mixed', '*/*']) {
        const { data, errors } = await accepting(accept);
        expect(errors).toBeUndefined();
        expect(Object.values(data as object)).toEqual(Array(5).fill({ nodes: [{ labels: labelsJson }] }));
      }
      const refused = { message: expect.stringContaining('at most 4 MiB'), extensions: { code: 'LIMIT', requestId: expect.any(String) } };
      for (const accept of ['text/event-stream', 'multipart/mixed']) {
        const headers = { authorization: `Bearer ${viewer}`, 'content-type': 'application/json', accept };
        const answer = await fetch(`${server.url}/graphql`, { method: 'POST', headers, body: JSON.stringify({ query: labelsOf(5) }) });
        const [, json] = /(\{"(?:data|errors)".*\})/.exec(await answer.text()) ?? [];
        expect(JSON.parse(json ?? '')).toMatchObject({ errors: [refused] });
      }
      await withConnection(server.url, viewer, async (socket) => {
        expect((await ask(socket, 'long', labelsOf(5))).payload).toMatchObject({ errors: [refused] });
        expect(Object.keys((await ask(socket, 'short', labelsOf(3))).payload.data)).toHaveLength(3);
      });
    }));

  test('is the same over HTTP, with its errors and its headers, and its connection goes on', () =>
    withServer(async (server) => {
      const { db } = server.services;
      inTransaction(db, (tx) => {
        const insert = rowInsert(metricPoint);
        const { id } = enqueue(tx, nobody, { kind: 'BENCHMARK', spec: {} });
        for (let i = 0; i < 20 * 1000; i += 1)
          insert(tx, { jobId: id, name: `m${i % 20}`, step: i, epoch: i, value: i / 3, attemptNumber: 1 });
      });
      const curves = 'jobs(first: 1) { nodes { metrics(maxPoints: 1000) { name values } } }';
      for (let times = 0; times < 2; times += 1) {
        const answer = await postGraphql(server.url, `{ ${curves} node(id: "x") { id } }`, {}, await server.as('VIEWER'));
        expect([answer.status, answer.headers.get('transfer-encoding')]).toEqual([200, 'chunked']);
        expect(Object.keys(answer)).not.toContain('stringify');
        const { metrics } = answer.data.jobs.nodes[0];
        expect(metrics.map(({ values }: { values: number[] }) => values.length)).toEqual(Array(20).fill(1000));
        expect(answer.errors?.[0]).toMatchObject({ path: ['node'], extensions: { requestId: expect.any(String) } });
        expect(JSON.stringify(answer.errors)).not.toContain('spec');
      }
      // JSON in another character set is no JSON to Yoga.
      const whole = JSON.stringify((await postGraphql(server.url, `{ ${curves} }`, {}, await server.as('VIEWER'))).data);
      for (const accept of ['application/json;charset=latin1, multipart/mixed', 'multipart/mixed', 'text/*', 'Text/Event-Stream']) {
        const headers = { 'content-type': 'application/json', accept, authorization: `Bearer ${await server.as('VIEWER')}` };
        const response = await fetch(`${server.url}/graphql`, {
          method: 'POST',
          headers,
          body: JSON.stringify({ query: `{ ${curves} }` }),
        });
        expect(await response.text(), accept).toContain(whole);
      }
    }));
});
