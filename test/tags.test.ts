import { randomUUIDv7 } from 'node:crypto';
import { eq } from 'drizzle-orm';
import { expect, test } from 'vitest';
import { audit } from '../src/accounts/tables.ts';
import { dataset } from '../src/datasets/tables.ts';
import { job } from '../src/jobs/tables.ts';
import { insertModel } from '../src/models/models.ts';
import { opaqueId } from '../src/naming.ts';
import { tag } from '../src/tags/tables.ts';
import { submit } from './support/jobs.ts';
import { kindsOf, scripted } from './support/kinds.ts';
import { type TestServer, withServer } from './support/server.ts';

const setting = 'mutation ($i: SetTagsInput!) { setTags(input: $i) { tags { key value } userErrors { code field message } } }';

/** A model, a dataset and a job that has ended, with the opaque ids that tags are set by. */
async function withThings(
  use: (things: {
    server: TestServer;
    ids: Record<'model' | 'dataset' | 'job', string>;
    set(subjectId: string, tags: object[]): Promise<{ tags: object[] | null; userErrors: object[] }>;
  }) => Promise<void>,
): Promise<void> {
  await withServer(
    async (server) => {
      const token = await server.as('ENGINEER');
      const { db } = server.services;
      const made = submit(db);
      db.update(job).set({ state: 'CANCELLED', endedAt: 1 }).where(eq(job.id, made.id)).run();
      const digits = { name: 'digits', task: 'CLASSIFICATION' as const, notes: '', createdById: null };
      const ofDigits = db
        .insert(dataset)
        .values({ ...digits, id: randomUUIDv7(), createdAt: 0 })
        .returning()
        .get();
      await use({
        server,
        ids: {
          model: opaqueId('Model', insertModel(db, digits).id),
          dataset: opaqueId('Dataset', ofDigits.id),
          job: opaqueId('Job', made.id),
        },
        async set(subjectId, tags) {
          const { data, errors } = await server.graphql(setting, { i: { subjectId, tags } }, token);
          expect(errors).toBeUndefined();
          return data.setTags;
        },
      });
    },
    {},
    kindsOf(scripted),
  );
}

test('tags are set, replaced and removed by their keys, and stand at what they belong to, sorted', () =>
  withThings(async ({ server, ids, set }) => {
    for (const id of Object.values(ids)) {
      await set(id, [
        { key: 'team', value: 'vision' },
        { key: 'Größe', value: 'klein' },
      ]);
      expect(
        await set(id, [{ key: 'team', value: 'optics' }, { key: 'Gro\u0308ße' }, { key: 'a/b', value: '' }, { key: 'never-there' }]),
      ).toEqual({
        tags: [
          { key: 'a/b', value: '' },
          { key: 'team', value: 'optics' },
        ],
        userErrors: [],
      });
    }
    const { data } = await server.graphql(
      '{ models { nodes { tags { key value } } } datasets { nodes { tags { key } } } jobs { nodes { tags { key } } } }',
      {},
      await server.as('VIEWER'),
    );
    const keys = { nodes: [{ tags: [{ key: 'a/b' }, { key: 'team' }] }] };
    expect(data).toMatchObject({ models: keys, datasets: keys, jobs: keys });
    const [entry] = server.services.db.select().from(audit).where(eq(audit.action, 'setTags')).all();
    expect(entry).toMatchObject({ targetType: 'Model', detailJson: { keys: ['team', 'Größe'] } });
  }));

test('lists hold what has all tags of a filter, with or without their values', () =>
  withThings(async ({ server, ids, set }) => {
    const token = await server.as('VIEWER');
    for (const id of Object.values(ids)) {
      await set(id, [
        { key: 'team', value: 'vision' },
        { key: 'stage', value: 'trial' },
      ]);
    }
    const other = insertModel(server.services.db, { name: 'other', task: 'DETECTION', notes: '', createdById: null });
    await set(opaqueId('Model', other.id), [{ key: 'team', value: 'vision' }]);
    const found = async (tags: object[]) => {
      const query =
        'query ($t: [TagFilter!]) { models(filter: { tags: $t }) { nodes { name } } datasets(filter: { tags: $t }) { nodes { name } } jobs(filter: { tags: $t }) { nodes { kind } } }';
      const { data } = await server.graphql(query, { t: tags }, token);
      return [data.models, data.datasets, data.jobs].map(({ nodes }) => nodes.length);
    };
    expect(await found([])).toEqual([2, 1, 1]);
    expect(await found([{ key: 'team' }])).toEqual([2, 1, 1]);
    expect(await found([{ key: 'team', value: 'vision' }, { key: 'stage' }])).toEqual([1, 1, 1]);
    expect(await found([{ key: 'team', value: 'vision' }, { key: 'team' }]), 'the same twice').toEqual([2, 1, 1]);
    expect(await found([{ key: 'team', value: 'Vision' }])).toEqual([0, 0, 0]);
    expect(await found([{ key: 'team' }, { key: "' OR 1=1 --" }])).toEqual([0, 0, 0]);
  }));

test('what cannot be a tag is refused, and nothing is set', () =>
  withThings(async ({ server, ids, set }) => {
    const refused = async (tags: object[], subjectId = ids.model) => {
      const { tags: all, userErrors } = await set(subjectId, tags);
      expect(all).toBeNull();
      return userErrors;
    };
    const key = { code: 'INVALID', field: ['tags', '0', 'key'], message: expect.stringContaining('A key has 1 to 100 letters') };
    for (const bad of ['', ' team', 'a b', '-a', 'x'.repeat(101), 'a\u0000'])
      expect(await refused([{ key: bad, value: '' }])).toEqual([key]);
    const value = { code: 'INVALID', field: ['tags', '0', 'value'] };
    for (const bad of ['x'.repeat(501), 'a\nb', '\u202eabc']) expect(await refused([{ key: 'a', value: bad }])).toMatchObject([value]);
    expect(await refused([])).toMatchObject([{ code: 'INVALID', field: ['tags'], message: 'Name a tag.' }]);
    const twice = [
      { key: 'é', value: '1' },
      { key: 'e\u0301', value: '2' },
    ];
    expect(await refused(twice)).toMatchObject([{ field: ['tags'], message: 'The same key is there twice.' }]);

    await set(
      ids.model,
      Array.from({ length: 50 }, (_, n) => ({ key: `k${n}`, value: '' })),
    );
    expect(await refused([{ key: 'one-more', value: '' }])).toMatchObject([{ code: 'LIMIT', field: ['tags'] }]);
    expect((await set(ids.model, [{ key: 'k7' }, { key: 'one-more', value: '' }])).tags, 'one for another').toHaveLength(50);

    const { errors } = await server.graphql(
      setting,
      { i: { subjectId: opaqueId('User', 'x'), tags: [{ key: 'a' }] } },
      await server.as('ENGINEER'),
    );
    expect(errors?.[0]?.extensions.code).toBe('NOT_FOUND');
  }));

test('tags of a job go with it', () =>
  withThings(async ({ server, ids, set }) => {
    await set(ids.job, [{ key: 'team', value: 'vision' }]);
    const deleting = 'mutation ($i: DeleteJobInput!) { deleteJob(input: $i) { userErrors { message } } }';
    const { data } = await server.graphql(deleting, { i: { jobId: ids.job } }, await server.admin());
    expect(data.deleteJob.userErrors).toEqual([]);
    expect(server.services.db.select().from(tag).all()).toEqual([]);
  }));
