import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { expect, test } from 'vitest';
import { audit } from '../src/accounts/tables.ts';
import { InputError } from '../src/errors.ts';
import { enqueue } from '../src/jobs/enqueue.ts';
import { job } from '../src/jobs/tables.ts';
import { createModel } from '../src/models/create.ts';
import { model, modelVersion } from '../src/models/tables.ts';
import { artifact, upload } from '../src/storage/tables.ts';
import { inGrey, presetPreprocess } from '../src/vision/spec.ts';
import { type Models, withModels } from './support/models.ts';

/** What is in a file is the import's business: here no job runs. */
function written({ folder }: Models, name: string, content = name): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

async function refusal(run: () => Promise<unknown>): Promise<{ code: string; field: string | undefined; message: string }> {
  const error: unknown = await run().then(
    () => null,
    (e: unknown) => e,
  );
  if (!(error instanceof InputError)) throw new Error(`Not refused: ${error}`);
  const [first] = error.userErrors;
  return { code: String(first?.code), field: first?.field?.join('.'), message: String(first?.message) };
}

test('an upload becomes version 1 of a new model, whose import waits in the queue', () =>
  withModels(async (models) => {
    const { model: made, version } = await models.create(written(models, 'a.onnx'), { notes: 'first', labels: ['x', 'y'] });
    expect(made).toMatchObject({ name: 'digits', task: 'CLASSIFICATION', notes: 'first', createdById: models.actor.actorId });
    expect(version).toMatchObject({ modelId: made.id, number: 1, state: 'IMPORTING', format: 'ONNX', origin: 'UPLOADED', sha256: null });
    expect(models.job(String(version.jobId))).toMatchObject({
      kind: 'IMPORT_MODEL',
      state: 'QUEUED',
      slotsNeeded: 0,
      specJson: { modelVersionId: version.id, fileName: 'a.onnx', labels: ['x', 'y'], preset: null, preprocess: null, cpuThreads: 1 },
    });
    expect(models.db.select().from(upload).all()).toMatchObject([{ state: 'CONSUMED' }]);
    const rows = models.db.select().from(artifact).all();
    expect(rows).toMatchObject([{ ownerType: 'MODEL_VERSION', ownerId: version.id, kind: 'ONNX', name: 'a.onnx' }]);
    const entry = models.db.select().from(audit).where(eq(audit.action, 'createModel')).get();
    expect(entry).toMatchObject({ actorId: models.actor.actorId, targetId: version.id, detailJson: { name: 'digits', number: 1 } });
  }));

test('an existing name gets its next version, whose number is never given twice', () =>
  withModels(async (models) => {
    const first = await models.create(written(models, 'a.onnx'));
    const second = await models.create(written(models, 'b.safetensors'), { preset: 'resnet50', notes: 'ignored' });
    expect(second.model).toEqual(first.model);
    expect(second.version).toMatchObject({ number: 2, format: 'CHECKPOINT', preset: 'resnet50' });
    models.db.update(modelVersion).set({ deletedAt: 1 }).where(eq(modelVersion.id, second.version.id)).run();
    expect((await models.create(written(models, 'c.pt'), { preset: 'resnet50' })).version.number).toBe(3);
    expect((await models.create(written(models, 'd.PTH'), { preset: 'resnet50' })).version.number).toBe(4);
  }));

test('the same key gives the same version and takes nothing more', () =>
  withModels(async (models) => {
    const input = { ...(await models.upload(written(models, 'a.onnx'))), name: 'digits', task: 'CLASSIFICATION', idempotencyKey: 'k' };
    const first = createModel(models, models.actor, input);
    expect(createModel(models, models.actor, input)).toEqual(first);
    expect(models.db.select().from(job).all()).toHaveLength(1);
  }));

test('a key of another kind of job is refused', () =>
  withModels(async (models) => {
    enqueue(models.db, models.actor, { kind: 'IMPORT_DATASET', spec: {}, input: { idempotencyKey: 'k' } });
    const path = written(models, 'a.onnx');
    expect(await refusal(() => models.create(path, { idempotencyKey: 'k' }))).toMatchObject({
      code: 'IDEMPOTENCY_CONFLICT',
      field: 'idempotencyKey',
    });
  }));

test('the same bytes used in the same way are the version that the model has', () =>
  withModels(async (models) => {
    const path = written(models, 'a.onnx');
    const described = { labels: ['x', 'y'], preprocess: presetPreprocess(32) };
    const first = await models.create(path, described);
    const again = await models.create(path, { ...described, fileName: 'renamed.onnx' });
    expect(again.version).toEqual(first.version);
    expect(models.db.select().from(job).all()).toHaveLength(1);
    expect(models.db.select().from(upload).all()).toMatchObject([{ state: 'CONSUMED' }, { state: 'CONSUMED' }]);
  }));

test('other labels, other preprocessing, or another model make another version of the same bytes', () =>
  withModels(async (models) => {
    const path = written(models, 'a.onnx');
    const inputs = [{}, { labels: ['x', 'y'] }, { labels: ['y', 'x'] }, { preprocess: presetPreprocess(32) }, { name: 'other' }];
    const ids = new Set<string>();
    for (const input of inputs) ids.add((await models.create(path, input)).version.id);
    expect(ids.size).toBe(inputs.length);
    expect(models.db.select().from(model).all()).toHaveLength(2);
  }));

test('a version that failed or was deleted does not stand in the way of the same bytes', () =>
  withModels(async (models) => {
    const path = written(models, 'a.onnx');
    const first = (await models.create(path)).version.id;
    models.db.update(modelVersion).set({ state: 'FAILED' }).where(eq(modelVersion.id, first)).run();
    const second = (await models.create(path)).version.id;
    models.db.update(modelVersion).set({ state: 'READY', deletedAt: 1 }).where(eq(modelVersion.id, second)).run();
    const third = (await models.create(path)).version.id;
    expect(new Set([first, second, third]).size).toBe(3);
  }));

const tooMany = Array.from({ length: 10_001 }, (_, i) => `${i}`);
const resnet50 = { preset: 'resnet50' };
test.each<[string, string, object, string, string]>([
  ['a file that no reader is for', 'a.h5', {}, 'uploadId', 'ends in .onnx'],
  ['a file without an ending', 'onnx', {}, 'uploadId', 'ends in .onnx'],
  ['a state dict without its preset', 'a.pt', {}, 'preset', 'needs the preset'],
  ['an ONNX file with a preset', 'a.onnx', resnet50, 'preset', 'leave the preset out'],
  ['a preset that does not exist', 'a.pt', { preset: 'resnet5000' }, 'preset', 'resnet50'],
  ['another SHA-256', 'a.onnx', { sha256: '0'.repeat(64) }, 'sha256', 'not the one given'],
  ['what is no SHA-256', 'a.onnx', { sha256: 'abc' }, 'sha256', '64 hexadecimal'],
  ['an upload that does not exist', 'a.onnx', { uploadId: 'none' }, 'uploadId', 'no upload'],
  ['a name with a slash', 'a.onnx', { name: '../digits' }, 'name', '1 to 100'],
  ['no labels', 'a.onnx', { labels: [] }, 'labels', 'at least one'],
  ['too many labels', 'a.onnx', { labels: tooMany }, 'labels', 'at most 10,000'],
  ['an empty label', 'a.onnx', { labels: ['x', ''] }, 'labels.1', 'not empty'],
  ['a label with a line end', 'a.onnx', { labels: ['x', 'a\nb'] }, 'labels.1', 'no control characters'],
  ['a label with a direction mark', 'a.onnx', { labels: ['x', '\u202ey'] }, 'labels.1', 'no direction marks'],
  [
    'a preprocessing of no size',
    'a.onnx',
    { preprocess: { ...presetPreprocess(32), width: 0 } },
    'preprocess.width',
    '0 is too small: must be at least 1',
  ],
  [
    'a preprocessing that divides by zero',
    'a.onnx',
    { preprocess: { ...presetPreprocess(32), std: [1, 0, 1] } },
    'preprocess.std',
    'above 0',
  ],
  [
    'a grey preprocessing with a mean for each color',
    'a.onnx',
    { preprocess: { ...inGrey(presetPreprocess(32)), mean: [0, 0, 0] } },
    'preprocess.mean',
    'mean has 3 numbers, but GREY has 1 channel: say one for each.',
  ],
])('%s is refused, and the upload can be used again', (_what, name, input, field, message) =>
  withModels(async (models) => {
    const path = written(models, name);
    const refused = await refusal(() => models.create(path, input));
    expect(refused).toMatchObject({ code: expect.stringMatching(/INVALID|NOT_FOUND/), field });
    expect(refused.message).toContain(message);
    expect(models.db.select().from(upload).all()).toMatchObject([{ state: 'COMPLETE' }]);
    for (const table of [model, modelVersion, job]) expect(models.db.select().from(table).all()).toEqual([]);
  }),
);
