import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { describe, expect, test } from 'vitest';
import { audit } from '../src/accounts/tables.ts';
import { ApiError, InputError } from '../src/errors.ts';
import { enqueue } from '../src/jobs/enqueue.ts';
import { cancelJob } from '../src/jobs/moves.ts';
import { deleteModel, deleteModelVersion, setModelAlias, updateModel } from '../src/models/change.ts';
import { parentsOf } from '../src/models/lineage.ts';
import {
  chooseModelVersion,
  findModel,
  findModelByName,
  findModelVersion,
  listAliases,
  listModels,
  listModelVersions,
} from '../src/models/models.ts';
import { type ModelVersion, modelVersion } from '../src/models/tables.ts';
import { artifact } from '../src/storage/tables.ts';
import { type Models, withModels } from './support/models.ts';

let made = 0;

/** A version that is READY without an import: what these tests are about does not depend on its file. */
async function ready(models: Models, name = 'digits'): Promise<ModelVersion> {
  const path = join(models.folder, 'a.onnx');
  made += 1;
  writeFileSync(path, `${made}`);
  const { id, jobId } = (await models.create(path, { name })).version;
  cancelJob(models.db, models.kinds, models.actor, String(jobId));
  models.db
    .update(modelVersion)
    .set({ state: 'READY', lineageHash: `hash ${made}` })
    .where(eq(modelVersion.id, id))
    .run();
  return models.version(id);
}

function refused(run: () => unknown): { code: string; field: string[] | null } {
  try {
    run();
  } catch (error) {
    if (error instanceof ApiError) return { code: error.code, field: null };
    if (error instanceof InputError) return error.userErrors[0] as { code: string; field: string[] | null };
    throw error;
  }
  throw new Error('not refused');
}

const aliasesOf = ({ db }: Models, modelId: string) => listAliases(db, modelId).map(({ name, versionId }) => [name, versionId]);

describe('aliases', () => {
  test('point at a version, move to another, and go', () =>
    withModels(async (models) => {
      const { db, actor } = models;
      const [one, two] = [await ready(models), await ready(models)];
      const { modelId } = one;
      setModelAlias(models, actor, modelId, 'production', one.id);
      setModelAlias(models, actor, modelId, 'a_2-b', one.id);
      expect(aliasesOf(models, modelId)).toEqual([
        ['a_2-b', one.id],
        ['production', one.id],
      ]);
      setModelAlias(models, actor, modelId, 'production', two.id);
      expect(chooseModelVersion(db, modelId, { alias: 'production' })).toEqual(two);
      setModelAlias(models, actor, modelId, 'a_2-b', null);
      setModelAlias(models, actor, modelId, 'a_2-b', null);
      expect(aliasesOf(models, modelId)).toEqual([['production', two.id]]);
      const entries = db.select().from(audit).where(eq(audit.action, 'setModelAlias')).all();
      expect(entries.map((e) => e.detailJson)).toContainEqual({ name: 'production', modelVersionId: two.id });
    }));

  test.each(['', 'Production', '1st', 'a b', 'a.b', `a${'b'.repeat(64)}`])('%j is no name of one', (name) =>
    withModels(async (models) => {
      const { id, modelId } = await ready(models);
      expect(refused(() => setModelAlias(models, models.actor, modelId, name, id))).toMatchObject({ code: 'INVALID', field: ['name'] });
    }),
  );

  test('refuse a version that is not ready, is deleted, or belongs to another model', () =>
    withModels(async (models) => {
      const { db, actor } = models;
      const [mine, gone, other] = [await ready(models), await ready(models), await ready(models, 'other')];
      deleteModelVersion(models, actor, gone.id);
      const alias = (versionId: string) => refused(() => setModelAlias(models, actor, mine.modelId, 'production', versionId));
      expect(alias(gone.id).code).toBe('NOT_FOUND');
      expect(alias(other.id).code).toBe('NOT_FOUND');
      db.update(modelVersion).set({ state: 'FAILED' }).where(eq(modelVersion.id, mine.id)).run();
      expect(alias(mine.id)).toMatchObject({ code: 'INVALID', field: ['modelVersionId'] });
      expect(refused(() => setModelAlias(models, actor, 'none', 'production', null)).code).toBe('NOT_FOUND');
    }));

  test('are at most 100 for a model; the hundred can still be moved', () =>
    withModels(async (models) => {
      const { id, modelId } = await ready(models);
      for (let n = 0; n < 100; n += 1) setModelAlias(models, models.actor, modelId, `a${n}`, id);
      expect(refused(() => setModelAlias(models, models.actor, modelId, 'one-more', id)).code).toBe('LIMIT');
      setModelAlias(models, models.actor, modelId, 'a7', id);
      expect(aliasesOf(models, modelId)).toHaveLength(100);
    }));
});

describe('a model', () => {
  test('takes another name and other notes, each by itself', () =>
    withModels(async (models) => {
      const { modelId } = await ready(models);
      expect(updateModel(models, models.actor, modelId, { notes: 'good' })).toMatchObject({ name: 'digits', notes: 'good' });
      expect(updateModel(models, models.actor, modelId, { name: 'numbers' })).toMatchObject({ name: 'numbers', notes: 'good' });
      expect(updateModel(models, models.actor, modelId, { name: 'numbers', notes: '' })).toMatchObject({ name: 'numbers', notes: '' });
      expect(findModelByName(models.db, 'digits')).toBeUndefined();
    }));

  test('does not take a name that is in use or will not do', () =>
    withModels(async (models) => {
      const { modelId } = await ready(models);
      await ready(models, 'other');
      const rename = (input: object) => refused(() => updateModel(models, models.actor, modelId, input));
      expect(rename({ name: 'other' })).toMatchObject({ code: 'TAKEN', field: ['name'] });
      expect(rename({ name: 'a/b' })).toMatchObject({ code: 'INVALID', field: ['name'] });
      expect(rename({ notes: 'x'.repeat(10_001) })).toMatchObject({ code: 'INVALID', field: ['notes'] });
      expect(refused(() => updateModel(models, models.actor, 'none', {})).code).toBe('NOT_FOUND');
    }));
});

describe('deleting', () => {
  test('a version leaves its metadata and hashes; its files and aliases go', () =>
    withModels(async (models) => {
      const { db, actor } = models;
      const [one, two] = [await ready(models), await ready(models)];
      setModelAlias(models, actor, one.modelId, 'production', one.id);
      const left = deleteModelVersion(models, actor, one.id);
      expect(left).toMatchObject({ number: 1, lineageHash: one.lineageHash, artifactId: null, deletedAt: expect.any(Number) });
      expect(findModelVersion(db, one.id)).toBeUndefined();
      expect(listModelVersions(db, one.modelId, 10, null)).toEqual([two]);
      expect(aliasesOf(models, one.modelId)).toEqual([]);
      expect(db.select().from(artifact).where(eq(artifact.ownerId, one.id)).all()).toEqual([]);
      expect(db.select().from(artifact).where(eq(artifact.ownerId, two.id)).all()).toHaveLength(1);
      expect(refused(() => deleteModelVersion(models, actor, one.id)).code).toBe('NOT_FOUND');
    }));

  test('a model takes its versions along and sets its name free', () =>
    withModels(async (models) => {
      const { db, actor } = models;
      const [one, two] = [await ready(models), await ready(models)];
      deleteModel(models, actor, one.modelId);
      expect(findModel(db, one.modelId)).toBeUndefined();
      expect([findModelVersion(db, one.id), findModelVersion(db, two.id)]).toEqual([undefined, undefined]);
      expect(listModels(db, {}, 'NAME', 10, null)).toEqual([]);
      expect(refused(() => deleteModel(models, actor, one.modelId)).code).toBe('NOT_FOUND');
      const next = await ready(models);
      expect(next).toMatchObject({ number: 1 });
      expect(next.modelId).not.toBe(one.modelId);
      expect(db.select().from(audit).where(eq(audit.action, 'deleteModel')).get()?.detailJson).toEqual({ name: 'digits', versions: 2 });
    }));

  test('is refused while a job makes the version or names it, and not any more when that has ended', () =>
    withModels(async (models) => {
      const { db, kinds, actor } = models;
      const importing = await models.create(join(models.folder, 'whetstone.db'), { fileName: 'a.onnx' });
      expect(refused(() => deleteModelVersion(models, actor, importing.version.id)).code).toBe('IN_USE');
      expect(refused(() => deleteModel(models, actor, importing.model.id)).code).toBe('IN_USE');
      cancelJob(db, kinds, actor, String(importing.version.jobId));
      const { id } = enqueue(db, actor, {
        kind: 'IMPORT_DATASET',
        spec: { init: { from: 'WEIGHTS', modelVersionId: importing.version.id } },
      });
      expect(refused(() => deleteModelVersion(models, actor, importing.version.id)).code).toBe('IN_USE');
      db.$client.prepare(`UPDATE job SET state = 'SUCCEEDED' WHERE id = ?`).run(id);
      deleteModelVersion(models, actor, importing.version.id);
      // A training that has made no version yet would add it to a model that is gone.
      const training = enqueue(db, actor, { kind: 'TRAIN', spec: { modelId: importing.model.id } });
      expect(refused(() => deleteModel(models, actor, importing.model.id)).code).toBe('IN_USE');
      db.$client.prepare(`UPDATE job SET state = 'SUCCEEDED' WHERE id = ?`).run(training.id);
      deleteModel(models, actor, importing.model.id);
      expect(findModel(db, importing.model.id)).toBeUndefined();
    }));
});

describe('lists', () => {
  const names = (models: Models, ...[filter, order]: [Parameters<typeof listModels>[1], Parameters<typeof listModels>[2]]) =>
    listModels(models.db, filter, order, 10, null).map((m) => m.name);

  test('are by name or by age, and go on behind a key', () =>
    withModels(async (models) => {
      for (const name of ['b', 'c', 'a']) await ready(models, name);
      expect(names(models, {}, 'NAME')).toEqual(['a', 'b', 'c']);
      expect(names(models, {}, 'CREATED_AT')).toEqual(['a', 'c', 'b']);
      expect(listModels(models.db, {}, 'NAME', 1, 'a').map((m) => m.name)).toEqual(['b']);
      const c = findModelByName(models.db, 'c')?.id as string;
      expect(listModels(models.db, {}, 'CREATED_AT', 10, c).map((m) => m.name)).toEqual(['b']);
    }));

  test('are filtered by name, task, alias and format', () =>
    withModels(async (models) => {
      const digits = await ready(models, 'Digits');
      await ready(models, 'eels');
      setModelAlias(models, models.actor, digits.modelId, 'production', digits.id);
      expect(names(models, { nameContains: 'IGIT' }, 'NAME')).toEqual(['Digits']);
      expect(names(models, { nameContains: '%' }, 'NAME')).toEqual([]);
      expect(names(models, { task: 'CLASSIFICATION' }, 'NAME')).toEqual(['Digits', 'eels']);
      expect(names(models, { alias: 'production' }, 'NAME')).toEqual(['Digits']);
      expect(names(models, { format: 'ONNX' }, 'NAME')).toEqual(['Digits', 'eels']);
      expect(names(models, { format: 'CHECKPOINT' }, 'NAME')).toEqual([]);
      models.db.update(modelVersion).set({ state: 'FAILED' }).where(eq(modelVersion.id, digits.id)).run();
      expect(names(models, { format: 'ONNX' }, 'NAME')).toEqual(['eels']);
    }));

  test('of versions are newest first', () =>
    withModels(async (models) => {
      const { modelId } = await ready(models);
      for (let n = 0; n < 2; n += 1) await ready(models);
      expect(listModelVersions(models.db, modelId, 10, null).map((v) => v.number)).toEqual([3, 2, 1]);
      expect(listModelVersions(models.db, modelId, 10, 3).map((v) => v.number)).toEqual([2, 1]);
      expect(listModelVersions(models.db, modelId, 1, null).map((v) => v.number)).toEqual([3]);
    }));

  test('one version is found by number or alias, else the newest that is READY', () =>
    withModels(async ({ db, ...models }) => {
      const all = { db, ...models };
      const [one, two, three] = [await ready(all), await ready(all), await ready(all)];
      const { modelId } = one;
      db.update(modelVersion).set({ state: 'FAILED' }).where(eq(modelVersion.id, three.id)).run();
      expect(chooseModelVersion(db, modelId, {})).toEqual(two);
      expect(chooseModelVersion(db, modelId, { number: 3 })?.id).toBe(three.id);
      expect(chooseModelVersion(db, modelId, { number: 4 })).toBeUndefined();
      expect(chooseModelVersion(db, modelId, { alias: 'none' })).toBeUndefined();
    }));
});

test('the lineage leads over deleted parents to the root', () =>
  withModels(async (models) => {
    const { db, actor } = models;
    const [root, middle, leaf] = [await ready(models), await ready(models), await ready(models)];
    db.update(modelVersion).set({ parentId: root.id }).where(eq(modelVersion.id, middle.id)).run();
    db.update(modelVersion).set({ parentId: middle.id }).where(eq(modelVersion.id, leaf.id)).run();
    deleteModelVersion(models, actor, middle.id);
    expect(parentsOf(db, models.version(leaf.id)).map((v) => v.id)).toEqual([middle.id, root.id]);
    expect(parentsOf(db, root)).toEqual([]);
  }));
