import { eq } from 'drizzle-orm';
import { describe, expect, test } from 'vitest';
import { audit } from '../src/accounts/tables.ts';
import { dataset } from '../src/datasets/tables.ts';
import { job } from '../src/jobs/tables.ts';
import { insertModel } from '../src/models/models.ts';
import { opaqueId } from '../src/naming.ts';
import { type Submitted, submit } from './support/jobs.ts';
import { kindsOf, scripted } from './support/kinds.ts';
import { type TestServer, withServer } from './support/server.ts';

const withScripted = (use: (server: TestServer) => Promise<void>) => withServer(use, {}, kindsOf(scripted));

interface Result {
  id: string;
  done: boolean;
  userErrors: { code: string; message: string }[];
}

async function bulk(
  server: TestServer,
  name: string,
  ids: string[],
  token: string,
): Promise<{ results: Result[] | null; userErrors: object[] }> {
  const input = `${name.charAt(0).toUpperCase()}${name.slice(1)}Input`;
  const query = `mutation ($i: ${input}!) { ${name}(input: $i) { results { id done userErrors { code message } } userErrors { code field } } }`;
  const { data, errors } = await server.graphql(query, { i: { ids } }, token);
  expect(errors).toBeUndefined();
  return data[name];
}

const told = (results: Result[] | null) =>
  results?.map(({ done, userErrors }) => (done ? 'done' : userErrors.map(({ code }) => code).join()));

describe('several at once', () => {
  test('are cancelled and deleted each by itself: every id has its answer, whatever became of the others', () =>
    withScripted(async (server) => {
      const { db } = server.services;
      const token = await server.admin();
      const waits: Submitted = { steps: ['hello', { hang: 'with heartbeats' }] };
      // The slots are taken, so that the others wait.
      const [parent, other] = [submit(db, { slots: -1, ...waits }), submit(db, waits)];
      const child = submit(db, { ...waits, parentId: parent.id });
      const ended = submit(db);
      db.update(job).set({ state: 'SUCCEEDED', endedAt: 1 }).where(eq(job.id, ended.id)).run();
      const ids = [parent, child, ended, other].map(({ id }) => opaqueId('Job', id));
      const unknown = [opaqueId('Job', 'nothing'), opaqueId('Model', 'nothing'), 'no id'];

      const cancelled = await bulk(server, 'cancelJobs', [...ids, ...unknown, String(ids[0])], token);
      expect(cancelled.results?.map(({ id }) => id)).toEqual([...ids, ...unknown]);
      // A child before its parent, which would have taken it along.
      expect(told(cancelled.results)).toEqual(['done', 'done', 'INVALID', 'done', 'NOT_FOUND', 'NOT_FOUND', 'NOT_FOUND']);
      expect(cancelled.results?.[2]?.userErrors[0]?.message).toBe('The job has ended already: it is SUCCEEDED.');

      await expect
        .poll(() =>
          db
            .select()
            .from(job)
            .all()
            .filter(({ endedAt }) => endedAt === null),
        )
        .toEqual([]);
      const running = submit(db, waits);
      const deleted = await bulk(server, 'deleteJobs', [...ids, opaqueId('Job', running.id)], token);
      expect(told(deleted.results)).toEqual(['done', 'done', 'done', 'done', 'IN_USE']);
      expect(db.select({ id: job.id }).from(job).all()).toEqual([{ id: running.id }]);
      const lines = db.select().from(audit).all();
      expect(lines.filter(({ action }) => action === 'cancelJob')).toHaveLength(3);
      expect(lines.filter(({ action }) => action === 'deleteJob').map(({ targetId }) => targetId)).toHaveLength(4);
    }));

  test('models and datasets too; nothing is tried for too many ids, and by nobody without the permission', () =>
    withScripted(async (server) => {
      const { db } = server.services;
      const token = await server.admin();
      const about = { task: 'CLASSIFICATION' as const, notes: '', createdById: null };
      const models = ['a', 'b', 'c'].map((name) => opaqueId('Model', insertModel(db, { name, ...about }).id));
      db.insert(dataset)
        .values({ id: 'd', name: 'd', ...about, createdAt: 0 })
        .run();
      const engineer = await server.as('ENGINEER');
      const refused = await server.graphql(`mutation { deleteModels(input: {ids: ["${models[0]}"]}) { results { done } } }`, {}, engineer);
      expect(refused.errors?.[0].extensions.code).toBe('FORBIDDEN');

      const many = Array.from({ length: 101 }, (_, n) => opaqueId('Model', String(n)));
      for (const ids of [[], many]) {
        expect(await bulk(server, 'deleteModels', ids, token)).toEqual({ results: null, userErrors: [{ code: 'LIMIT', field: ['ids'] }] });
      }
      expect(told((await bulk(server, 'deleteModels', models, token)).results)).toEqual(['done', 'done', 'done']);
      expect(told((await bulk(server, 'deleteModelVersions', models, token)).results)).toEqual(Array(3).fill('NOT_FOUND'));
      expect(told((await bulk(server, 'deleteDatasets', [opaqueId('Dataset', 'd')], token)).results)).toEqual(['done']);
      expect(told((await bulk(server, 'deleteDatasetVersions', [opaqueId('DatasetVersion', 'd')], token)).results)).toEqual(['NOT_FOUND']);
      const { data } = await server.graphql('{ models { totalCount } datasets { totalCount } }', {}, token);
      expect(data).toEqual({ models: { totalCount: 0 }, datasets: { totalCount: 0 } });
    }));
});
