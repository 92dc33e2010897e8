import { randomUUIDv7 } from 'node:crypto';
import { GraphQLInputObjectType, getNamedType } from 'graphql';
import { beforeAll, describe, expect, test } from 'vitest';
import { dataset, datasetVersion } from '../src/datasets/tables.ts';
import { deployment, deploymentRevision } from '../src/deployments/tables.ts';
import { schema } from '../src/graphql/schema.ts';
import { JobFailure } from '../src/jobs/kinds.ts';
import type { JobKindName } from '../src/jobs/specs.ts';
import { job } from '../src/jobs/tables.ts';
import { model, modelVersion } from '../src/models/tables.ts';
import { insertArtifact } from '../src/storage/blobs.ts';
import { blob } from '../src/storage/tables.ts';
import { presetPreprocess } from '../src/vision/spec.ts';
import { kindsOf, scripted } from './support/kinds.ts';
import type { TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { type Api, ask, mutate, uploaded } from './support/training.ts';

const idOf = (type: string, id: string): string => Buffer.from(`${type}:${id}`).toString('base64url');

/** Every mutation whose input has a key, with the type of that input. */
const mutations = Object.values(schema.getMutationType()?.getFields() ?? {}).flatMap(({ name, args }) => {
  const input = args[0] && getNamedType(args[0].type);
  return input instanceof GraphQLInputObjectType && 'idempotencyKey' in input.getFields() ? [name] : [];
});

const onnxMeta = {
  ...{
    inputs: [{ name: 'x', elementType: 'FLOAT', shape: ['batch', 3, 32, 32] }],
    outputs: [{ name: 'y', elementType: 'FLOAT', shape: ['batch', 2] }],
  },
  ...{
    operators: {},
    opsets: {},
    irVersion: 9,
    producer: '',
    parameters: 0,
    elementTypes: {},
    labels: null,
    preprocess: null,
    metadata: {},
  },
  ...{ metadataTruncated: false, weightsHash: null, exporter: null },
};

describe('an idempotency key', () => {
  let server: TestServer;
  let api: Api;
  /** By mutation: an input, and what another one differs in. */
  let inputs: Record<string, { input: object; change: object }>;
  const kinds = kindsOf({
    ...scripted,
    launch() {
      throw new JobFailure('NOT_HERE', 'Jobs do nothing here.');
    },
  });
  withSharedServer(
    (running) => {
      server = running;
    },
    {},
    kinds,
  );

  beforeAll(async () => {
    api = { url: server.url, token: await server.as('ENGINEER') };
    const { db } = server.services;
    const [datasetId, modelId] = [randomUUIDv7(), randomUUIDv7()];
    const named = { name: 'made', task: 'CLASSIFICATION', createdAt: 0 } as const;
    const labels = ['a', 'b'];
    db.insert(dataset)
      .values({ id: datasetId, ...named })
      .run();
    const bySplit = { train: 2, val: 2, test: 0 };
    const countsJson = {
      items: 4,
      images: bySplit,
      bySplit: { train: [1, 1], val: [1, 1], test: [0, 0] },
      boxesBySplit: null,
      duplicatesAcrossSplits: 0,
    };
    const data = {
      id: randomUUIDv7(),
      datasetId,
      number: 1,
      state: 'READY',
      contentHash: 'c',
      splitSeed: 0,
      classesJson: labels,
      countsJson,
      createdAt: 0,
    } as const;
    db.insert(datasetVersion).values(data).run();
    db.insert(model)
      .values({ id: modelId, ...named })
      .run();
    db.insert(blob).values({ sha256: 'b', sizeBytes: 1, createdAt: Date.now() }).run();
    let onnxVersionId = '';
    const versions = (['CHECKPOINT', 'ONNX'] as const).map((format, i) => {
      const id = randomUUIDv7();
      const kind = format === 'ONNX' ? 'ONNX' : 'WEIGHTS';
      const { id: artifactId } = insertArtifact(
        db,
        { sha256: 'b', sizeBytes: 1 },
        { ownerType: 'MODEL_VERSION', ownerId: id, kind, name: 'x' },
      );
      const about = {
        precision: 'FP32',
        origin: 'TRAINED',
        preset: 'resnet50',
        labelsJson: labels,
        preprocessJson: presetPreprocess(32),
        signatureJson: onnxMeta,
      } as const;
      db.insert(modelVersion)
        .values({ id, modelId, number: i + 1, state: 'READY', format, artifactId, ...about, createdAt: 0 })
        .run();
      if (format === 'ONNX') onnxVersionId = id;
      return idOf('ModelVersion', id);
    });
    const deploymentId = randomUUIDv7();
    db.insert(deployment).values({ id: deploymentId, name: 'served', createdAt: 0 }).run();
    db.insert(deploymentRevision)
      .values({ deploymentId, number: 1, modelVersionId: onnxVersionId, settingsJson: {}, state: 'ACTIVE', createdAt: 0 })
      .run();
    const failed = [1, 2].map(() => {
      const id = randomUUIDv7();
      const kind: JobKindName = 'EVALUATE';
      db.insert(job).values({ id, kind, state: 'FAILED', specJson: {}, slotsNeeded: 1, priority: 0, createdAt: 0 }).run();
      return idOf('Job', id);
    });
    const [checkpoint, onnx] = versions;
    const datasetVersionId = idOf('DatasetVersion', data.id);
    inputs = {
      createDataset: {
        input: { name: 'zip', task: 'CLASSIFICATION', ...(await uploaded(api, 'a.zip', Buffer.from('zip'))) },
        change: { splitSeed: 1 },
      },
      createModel: {
        input: { name: 'onnx', task: 'CLASSIFICATION', ...(await uploaded(api, 'a.onnx', Buffer.from('onnx'))) },
        change: { labels },
      },
      startTraining: { input: { modelName: 'new', datasetVersionId, preset: 'resnet50' }, change: { hyperparameters: { epochs: 3 } } },
      startTuning: {
        input: { modelName: 'tuned', datasetVersionId, preset: 'resnet50', population: 2, generations: 1 },
        change: { generations: 2 },
      },
      startConversion: { input: { modelVersionId: checkpoint }, change: { datasetVersionId } },
      startCompression: { input: { modelVersionId: onnx, precision: 'FP16', datasetVersionId }, change: { budget: 2 } },
      startEvaluation: { input: { modelVersionId: onnx, datasetVersionId, split: 'VAL' }, change: { split: 'TRAIN' } },
      startBenchmark: { input: { modelVersionIds: [onnx], batchSizes: [1], intraOpThreads: [1] }, change: { batchSizes: [2] } },
      startLoadTest: { input: { deployment: 'served', rates: [1] }, change: { rates: [2] } },
      retryJob: { input: { jobId: failed[0] }, change: { jobId: failed[1] } },
    };
  });

  test.each(mutations)('of %s gives the same job for the same input, and is a conflict with another', async (mutation) => {
    const { input, change } = inputs[mutation] as (typeof inputs)[string];
    const made =
      { createDataset: 'datasetVersion { job { id } }', createModel: 'modelVersion { job { id } }', startTuning: 'study { job { id } }' }[
        mutation
      ] ?? 'job { id }';
    const send = (more: object = {}) => mutate(api, mutation, { ...input, ...more, idempotencyKey: `key of ${mutation}` }, made);
    const first = await send();
    expect(JSON.stringify(first)).toMatch(/"id":"[\w-]+"/);
    expect(await send()).toEqual(first);
    const type = `${mutation[0]?.toUpperCase()}${mutation.slice(1)}Input`;
    const query = `mutation ($input: ${type}!) { ${mutation}(input: $input) { ${made} userErrors { code field message } } }`;
    const { data, errors } = await ask(api, query, { input: { ...input, ...change, idempotencyKey: `key of ${mutation}` } });
    expect(errors).toBeUndefined();
    expect(data[mutation].userErrors).toMatchObject([{ code: 'IDEMPOTENCY_CONFLICT', field: ['idempotencyKey'] }]);
  });

  test('of one mutation is a conflict in another', async () => {
    const query = 'mutation ($input: StartConversionInput!) { startConversion(input: $input) { userErrors { code } } }';
    const { data } = await ask(api, query, { input: { ...inputs.startConversion?.input, idempotencyKey: 'key of startEvaluation' } });
    expect(data.startConversion.userErrors).toEqual([{ code: 'IDEMPOTENCY_CONFLICT' }]);
  });
});
