import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { killGroup } from '../src/jobs/executor/local.ts';
import { cancelJob } from '../src/jobs/moves.ts';
import { retryJob } from '../src/jobs/retry.ts';
import { modelVersion } from '../src/models/tables.ts';
import { artifact } from '../src/storage/tables.ts';
import { presetPreprocess } from '../src/vision/spec.ts';
import { endings, recordedChild } from './support/jobs.ts';
import { type Models, withModels } from './support/models.ts';
import { makeModelFiles } from './support/onnx.ts';
import { blobOf } from './support/storage.ts';

const folder = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
const file = (name: string) => join(folder, name);
beforeAll(() =>
  makeModelFiles(folder, ['classifier.onnx', 'own.onnx', 'half.onnx', 'quantised.onnx', 'resnet50.pt', 'resnet50.safetensors']),
);
afterAll(() => rmSync(folder, { recursive: true }));

const filesOf = ({ db }: Models, id: string) =>
  db.select({ kind: artifact.kind, name: artifact.name, sha256: artifact.sha256 }).from(artifact).where(eq(artifact.ownerId, id)).all();

const stretch = { ...presetPreprocess(8), mode: 'STRETCH' } as const;

test('an ONNX file is stored unchanged, with what was found in it and what the user said of it', () =>
  withModels(async (models) => {
    await models.start();
    const { job, version } = await models.import(file('classifier.onnx'), { labels: ['a', 'b', 'c'], preprocess: stretch });
    expect(job).toMatchObject({ state: 'SUCCEEDED', resultJson: { modelVersionId: version.id } });
    expect(version).toMatchObject({
      state: 'READY',
      format: 'ONNX',
      precision: 'FP32',
      origin: 'UPLOADED',
      sizeBytes: readFileSync(file('classifier.onnx')).length,
      weightsHash: null,
      lineageHash: expect.stringMatching(/^[0-9a-f]{64}$/),
      labelsJson: ['a', 'b', 'c'],
      preprocessJson: stretch,
      signatureJson: {
        inputs: [{ name: 'image', elementType: 'FLOAT', shape: ['batch', 3, 8, 8] }],
        outputs: [{ name: 'y', elementType: 'FLOAT', shape: ['batch', 3] }],
        operators: { Conv: 1, Flatten: 1, GlobalAveragePool: 1, Relu: 1 },
        opsets: { 'ai.onnx': 18 },
        parameters: 81,
        producer: 'test',
      },
    });
    const { sha256 } = version;
    expect(filesOf(models, version.id)).toEqual([{ kind: 'ONNX', name: 'classifier.onnx', sha256 }]);
    expect(readFileSync(blobOf(models.folder, String(sha256)))).toEqual(readFileSync(file('classifier.onnx')));
  }));

test('an import whose load in the serving engine is killed is tried again', () =>
  withModels(async (models) => {
    await models.start();
    const { id, jobId } = (await models.create(file('classifier.onnx'))).version;
    process.kill(await recordedChild(models.folder), 'SIGKILL');
    expect((await models.ended(String(jobId))).state).toBe('SUCCEEDED');
    expect(endings(models, String(jobId))).toEqual(['CRASHED charged', 'SUCCEEDED']);
    expect(filesOf(models, id)).toHaveLength(1);
  }));

test('precision is read from the weights, labels and preprocessing from a file that Whetstone made', () =>
  withModels(async (models) => {
    await models.start();
    const names = ['half.onnx', 'quantised.onnx', 'own.onnx'];
    const [half, quantised, own] = await Promise.all(names.map((name) => models.import(file(name), { name })));
    expect(half?.version).toMatchObject({ precision: 'FP16', labelsJson: null, preprocessJson: null });
    expect(quantised?.version.precision).toBe('INT8');
    expect(own?.version).toMatchObject({
      precision: 'FP32',
      preset: 'resnet50',
      labelsJson: ['cat', 'dog', 'eel'],
      preprocessJson: { version: 1, width: 8, height: 8, mode: 'STRETCH', mean: [0.5, 0.5, 0.5], layout: 'NCHW' },
    });
  }));

test('a state dict becomes safetensors, and has the same weights hash in whatever format it came', () =>
  withModels(async (models) => {
    await models.start();
    const input = { preset: 'resnet50', labels: ['a', 'b', 'c'] };
    const [pickled, safe] = await Promise.all([
      models.import(file('resnet50.pt'), input),
      models.import(file('resnet50.safetensors'), input),
    ]);
    const common = {
      state: 'READY',
      format: 'CHECKPOINT',
      precision: 'FP32',
      preset: 'resnet50',
      weightsHash: expect.stringMatching(/^[0-9a-f]{64}$/),
      labelsJson: ['a', 'b', 'c'],
      preprocessJson: presetPreprocess(224),
      // torchvision's ResNet50 with three classes.
      signatureJson: { preset: 'resnet50', classCount: 3, parameters: 23_514_179 },
    };
    expect(pickled.version).toMatchObject(common);
    expect(safe.version).toMatchObject(common);
    expect(pickled.version.weightsHash).toBe(safe.version.weightsHash);
    expect(pickled.version.lineageHash).toBe(safe.version.lineageHash);
    const { id, sha256 } = pickled.version;
    expect(filesOf(models, id)).toEqual([{ kind: 'WEIGHTS', name: 'resnet50.safetensors', sha256 }]);
    expect(readFileSync(blobOf(models.folder, String(sha256))).length).toBe(pickled.version.sizeBytes);
  }));

test('the lineage hash is the same in another data folder, and another one for other labels', async () => {
  const hashes: (string | null)[] = [];
  for (const labels of [['a', 'b', 'c'], ['a', 'b', 'c'], null]) {
    await withModels(async (models) => {
      await models.start();
      hashes.push((await models.import(file('classifier.onnx'), { labels })).version.lineageHash);
    });
  }
  expect(hashes[0]).toBe(hashes[1]);
  expect(new Set(hashes).size).toBe(2);
});

test('labels or preprocessing that do not fit the file fail the import, with both numbers', () =>
  withModels(async (models) => {
    await models.start();
    const [labels, preprocess] = await Promise.all([
      models.import(file('classifier.onnx'), { labels: ['a', 'b'] }),
      models.import(file('classifier.onnx'), { preprocess: presetPreprocess(32) }),
    ]);
    expect(labels.job).toMatchObject({
      failureCode: 'LABELS_INVALID',
      failureMessage: expect.stringContaining('2 labels, but the model has 3'),
    });
    expect(preprocess.job).toMatchObject({
      failureCode: 'PREPROCESS_INVALID',
      failureMessage: expect.stringContaining('the model takes batch × 3 × 8 × 8'),
    });
    expect([labels.version.state, preprocess.version.state]).toEqual(['FAILED', 'FAILED']);
  }));

test('a child that is killed is replaced, and the version is made once', () =>
  withModels(async (models) => {
    const { version } = await models.create(file('classifier.onnx'));
    const jobId = String(version.jobId);
    await models.start();
    await models.event(jobId, ({ type }) => type === 'PHASE');
    killGroup(models.attempts(jobId)[0]?.pid ?? undefined, 'SIGKILL');
    expect(await models.ended(jobId)).toMatchObject({ state: 'SUCCEEDED', attemptNumber: 2 });
    expect(models.attempts(jobId)).toMatchObject([{ state: 'CRASHED', signal: 'SIGKILL', charged: true }, { state: 'SUCCEEDED' }]);
    expect(models.version(version.id).state).toBe('READY');
    expect(filesOf(models, version.id)).toHaveLength(1);
  }));

test('a cancelled import keeps its bytes and can be tried again', () =>
  withModels(async (models) => {
    const { db, kinds, actor } = models;
    const { version } = await models.create(file('classifier.onnx'));
    cancelJob(db, kinds, actor, String(version.jobId));
    expect(models.version(version.id).state).toBe('FAILED');
    const retried = retryJob(models, kinds, actor, String(version.jobId));
    expect(models.version(version.id)).toMatchObject({ state: 'IMPORTING', jobId: retried.id });
    await models.start();
    expect((await models.ended(retried.id)).state).toBe('SUCCEEDED');
    expect(models.version(version.id).state).toBe('READY');
  }));

test('a file that was refused is not stored any more, so trying again is refused too', () =>
  withModels(async (models) => {
    const { db, kinds, actor } = models;
    await models.start();
    const { job, version } = await models.import(file('classifier.onnx'), { labels: ['a'] });
    expect(filesOf(models, version.id)).toEqual([]);
    expect(() => retryJob(models, kinds, actor, job.id)).toThrow('upload it again');
    expect(models.version(version.id).state).toBe('FAILED');
    expect(db.select().from(modelVersion).all()).toHaveLength(1);
  }));
