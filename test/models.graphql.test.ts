import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { classifiers } from '../src/jobs/classifiers.ts';
import { hyperparametersOf } from '../src/jobs/hyperparameterInfo.ts';
import { modelVersion } from '../src/models/tables.ts';
import { nextAnswer, withEvents } from './support/events.ts';
import { makeModelFiles } from './support/onnx.ts';
import { type TestServer, withServer } from './support/server.ts';
import { post, withRows } from './support/storage.ts';

const folder = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
beforeAll(() => makeModelFiles(folder, ['classifier.onnx', 'squeezenet.onnx', 'text.onnx']));
afterAll(() => rmSync(folder, { recursive: true }));

const create = `mutation ($i: CreateModelInput!) {
  createModel(input: $i) { model { id } modelVersion { id state precision job { id } } userErrors { code field message } }
}`;

/** Sends a file the way a client does; without user errors its job has ended when this returns. */
async function send(server: TestServer, token: string, fileName: string, input: object = {}) {
  const bytes = readFileSync(join(folder, fileName));
  const { json } = await post(server.url, token, fileName, bytes);
  const upload = { uploadId: json.uploadId, sha256: createHash('sha256').update(bytes).digest('hex') };
  const { data, errors } = await server.graphql(create, { i: { name: 'shapes', task: 'CLASSIFICATION', ...upload, ...input } }, token);
  expect(errors).toBeUndefined();
  const jobId = data.createModel.modelVersion?.job.id;
  if (jobId) {
    const read = async (items: Parameters<typeof nextAnswer>[0]) => {
      while (await nextAnswer(items));
    };
    await withEvents(server.url, 'subscription ($id: ID!) { jobEvents(id: $id) { seq } }', token, read, { id: jobId });
  }
  return data.createModel;
}

const whole = `{
  model(name: "shapes") {
    id name task notes createdByName aliases { name version { number } }
    versions(first: 1) { nodes { number } pageInfo { hasNextPage endCursor } }
    version {
      id number state format precision origin preset sizeBytes sha256 weightsHash lineageHash labels aliases gate downloadUrl deletedAt
      model { name } parent { number } lineage { number } datasetVersion { number }
      job { kind state }
      preprocess { version width height mode cropFraction padColor channels mean std layout }
      signature {
        inputs { name elementType shape } outputs { name elementType shape } operators { name count } opsets { domain version }
        irVersion producer parameters classCount metadata
      }
    }
  }
}`;

const labels = ['circle', 'square', 'star'];
const preprocess = { width: 8, height: 8, mode: 'STRETCH', mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] };

test('a file becomes a model that can be inspected and downloaded', () =>
  withServer(async (server) => {
    const engineer = await server.as('ENGINEER');
    const created = await send(server, engineer, 'classifier.onnx', { labels, preprocess, notes: 'three shapes' });
    expect(created).toMatchObject({ modelVersion: { state: 'IMPORTING', precision: null }, userErrors: [] });
    const { data, errors } = await server.graphql(whole, {}, await server.as('VIEWER'));
    expect(errors).toBeUndefined();
    const bytes = readFileSync(join(folder, 'classifier.onnx'));
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const { downloadUrl, lineageHash, ...version } = data.model.version;
    expect({ ...data.model, version }).toEqual({
      id: created.model.id,
      name: 'shapes',
      task: 'CLASSIFICATION',
      notes: 'three shapes',
      createdByName: 'engineer',
      aliases: [],
      versions: { nodes: [{ number: 1 }], pageInfo: { hasNextPage: false, endCursor: expect.any(String) } },
      version: {
        id: created.modelVersion.id,
        number: 1,
        state: 'READY',
        format: 'ONNX',
        precision: 'FP32',
        origin: 'UPLOADED',
        preset: null,
        sizeBytes: bytes.length,
        sha256,
        weightsHash: null,
        labels,
        aliases: [],
        gate: null,
        deletedAt: null,
        model: { name: 'shapes' },
        parent: null,
        lineage: [],
        datasetVersion: null,
        job: { kind: 'IMPORT_MODEL', state: 'SUCCEEDED' },
        preprocess: { version: 1, cropFraction: 1, padColor: [114, 114, 114], channels: 'RGB', layout: 'NCHW', ...preprocess },
        signature: {
          inputs: [{ name: 'image', elementType: 'FLOAT', shape: ['batch', '3', '8', '8'] }],
          outputs: [{ name: 'y', elementType: 'FLOAT', shape: ['batch', '3'] }],
          operators: ['Conv', 'Flatten', 'GlobalAveragePool', 'Relu'].map((name) => ({ name, count: 1 })),
          opsets: [{ domain: 'ai.onnx', version: 18 }],
          irVersion: 9,
          producer: 'test',
          parameters: 81,
          classCount: null,
          metadata: {},
        },
      },
    });
    expect(lineageHash).toMatch(/^[0-9a-f]{64}$/);
    const answer = await fetch(new URL(downloadUrl, server.url));
    expect(answer.headers.get('content-disposition')).toContain('classifier.onnx');
    expect(Buffer.from(await answer.arrayBuffer())).toEqual(bytes);
  }));

test('operators of a real topology are counted, the most frequent first', () =>
  withServer(async (server) => {
    const engineer = await server.as('ENGINEER');
    await send(server, engineer, 'squeezenet.onnx');
    const { data } = await server.graphql(whole, {}, engineer);
    const { operators, inputs } = data.model.version.signature;
    expect(operators.slice(0, 2).map((o: { name: string }) => o.name)).toContain('Conv');
    expect(operators.map((o: { count: number }) => o.count)).toEqual(
      operators.map((o: { count: number }) => o.count).sort((a: number, b: number) => b - a),
    );
    expect(operators.find((o: { name: string }) => o.name === 'Conv').count).toBe(26);
    expect(inputs).toEqual([{ name: 'data_0', elementType: 'FLOAT', shape: ['1', '3', '224', '224'] }]);
  }));

test('a broken file says what is wrong with it, and its version shows nothing', () =>
  withServer(async (server) => {
    const engineer = await server.as('ENGINEER');
    const { modelVersion } = await send(server, engineer, 'text.onnx');
    const query = `query ($id: ID!) { node(id: $id) { ... on ModelVersion {
      state precision signature { parameters } downloadUrl sha256 job { state failure { code message } }
    } } }`;
    expect((await server.graphql(query, { id: modelVersion.id }, engineer)).data.node).toEqual({
      state: 'FAILED',
      precision: null,
      signature: null,
      downloadUrl: null,
      sha256: null,
      job: { state: 'FAILED', failure: { code: 'MODEL_INVALID', message: 'The file is not ONNX, or not all of it is there.' } },
    });
    expect((await server.graphql('{ model(name: "shapes") { version { number } } }', {}, engineer)).data.model.version).toBeNull();
  }));

test('input that will not do comes back as user errors with the field', () =>
  withServer(async (server) => {
    const engineer = await server.as('ENGINEER');
    const refused = await send(server, engineer, 'classifier.onnx', { preset: 'resnet50' });
    expect(refused).toEqual({
      model: null,
      modelVersion: null,
      userErrors: [{ code: 'INVALID', field: ['preset'], message: 'An ONNX file has its own topology: leave the preset out.' }],
    });
  }));

const mutate = (server: TestServer, token: string, name: string, input: object, fields: string) =>
  server
    .graphql(
      `mutation ($i: ${name[0]?.toUpperCase()}${name.slice(1)}Input!) { ${name}(input: $i) { ${fields} userErrors { code field } } }`,
      { i: input },
      token,
    )
    .then(({ data, errors }) => {
      expect(errors).toBeUndefined();
      return data[name];
    });

test('aliases, notes, lists and deletion', () =>
  withServer(async (server) => {
    const [engineer, admin] = [await server.as('ENGINEER'), await server.as('ADMIN')];
    const one = await send(server, engineer, 'classifier.onnx');
    const two = await send(server, engineer, 'classifier.onnx', { labels });
    const other = await send(server, engineer, 'squeezenet.onnx', { name: 'zebras' });
    const modelId = one.model.id;
    expect(two.model.id).toBe(modelId);

    const alias = { modelId, name: 'production', modelVersionId: one.modelVersion.id };
    const aliases = 'model { aliases { name version { number aliases } } }';
    expect(await mutate(server, engineer, 'setModelAlias', alias, aliases)).toEqual({
      model: { aliases: [{ name: 'production', version: { number: 1, aliases: ['production'] } }] },
      userErrors: [],
    });
    expect(await mutate(server, engineer, 'setModelAlias', { ...alias, name: 'A' }, 'model { id }')).toEqual({
      model: null,
      userErrors: [{ code: 'INVALID', field: ['name'] }],
    });
    const changed = await mutate(server, engineer, 'updateModel', { modelId, name: 'figures', notes: 'good' }, 'model { name notes }');
    expect(changed.model).toEqual({ name: 'figures', notes: 'good' });

    const list = `query ($f: ModelFilter, $o: ModelOrder = NAME, $n: Int = 20, $after: String) {
      models(filter: $f, orderBy: $o, first: $n, after: $after) { nodes { name } pageInfo { hasNextPage endCursor } }
    }`;
    const models = async (variables: object) => (await server.graphql(list, variables, engineer)).data.models;
    const names = async (variables: object) => (await models(variables)).nodes.map((m: { name: string }) => m.name);
    expect(await names({})).toEqual(['figures', 'zebras']);
    expect(await names({ o: 'CREATED_AT' })).toEqual(['zebras', 'figures']);
    expect(await names({ f: { alias: 'production', format: 'ONNX', task: 'CLASSIFICATION', nameContains: 'FIG' } })).toEqual(['figures']);
    const first = await models({ n: 1 });
    expect(first.pageInfo.hasNextPage).toBe(true);
    expect(await names({ n: 1, after: first.pageInfo.endCursor })).toEqual(['zebras']);

    const byAlias = '{ model(name: "figures") { version(alias: "production") { number } other: version(number: 2) { labels } } }';
    expect((await server.graphql(byAlias, {}, engineer)).data.model).toEqual({ version: { number: 1 }, other: { labels } });

    // The version that is deleted stays in the lineage of the other one.
    await withRows(server.dataDir, (db) => {
      const rowOf = (id: string) => String(Buffer.from(id, 'base64url')).split(':')[1] as string;
      db.update(modelVersion)
        .set({ parentId: rowOf(one.modelVersion.id) })
        .where(eq(modelVersion.id, rowOf(two.modelVersion.id)))
        .run();
    });
    const gone = await mutate(
      server,
      admin,
      'deleteModelVersion',
      { modelVersionId: one.modelVersion.id },
      'modelVersion { number deletedAt downloadUrl }',
    );
    expect(gone.modelVersion).toEqual({ number: 1, deletedAt: expect.any(String), downloadUrl: null });
    const left =
      '{ model(name: "figures") { aliases { name } versions { nodes { number parent { number deletedAt sha256 } lineage { number } } } } }';
    const { data } = await server.graphql(left, {}, engineer);
    expect(data.model).toEqual({
      aliases: [],
      versions: {
        nodes: [
          {
            number: 2,
            parent: { number: 1, deletedAt: gone.modelVersion.deletedAt, sha256: expect.any(String) },
            lineage: [{ number: 1 }],
          },
        ],
      },
    });
    expect((await server.graphql('query ($id: ID!) { node(id: $id) { id } }', { id: one.modelVersion.id }, engineer)).data.node).toBeNull();

    expect((await mutate(server, admin, 'deleteModel', { modelId: other.model.id }, 'model { name }')).model).toEqual({ name: 'zebras' });
    expect(await names({})).toEqual(['figures']);
  }));

test('presets say what a training can be told', () =>
  withServer(async (server) => {
    const query = `query ($task: Task) { presets(task: $task) {
      name title task description parameters macs hasPublicWeights hyperparameters { name type description default minimum maximum values }
    } }`;
    const viewer = await server.as('VIEWER');
    const { data } = await server.graphql(query, { task: 'CLASSIFICATION' }, viewer);
    // Those of timm follow, where it is installed.
    const presets = data.presets.filter(({ name }: { name: string }) => !name.startsWith('timm:'));
    expect(presets.map(({ name }: { name: string }) => name)).toEqual(Object.keys(classifiers));
    expect(data.presets.slice(0, presets.length)).toEqual(presets);
    expect(data.presets[0]).toMatchObject({ name: 'resnet18', title: 'ResNet18', task: 'CLASSIFICATION', hasPublicWeights: true });
    expect(data.presets[0]).toMatchObject({ parameters: 11_689_512, macs: expect.closeTo(1.8e9, -8) });
    const transformer = presets.at(-1);
    expect(transformer.description).toMatch(/ViT B\/16 \(.*86\.6 million parameters, 17\.\d billion .* at 224 px .* no other image size/);
    const [imageSize] = transformer.hyperparameters;
    expect(imageSize).toMatchObject({ name: 'imageSize', default: 224, minimum: 224, maximum: 224 });
    expect(data.presets[0].hyperparameters).toEqual(hyperparametersOf('resnet18').map(({ search: _, ...said }) => said));
    expect(data.presets[0].hyperparameters).toContainEqual({
      name: 'optimizer',
      type: 'ENUM',
      description: 'SGD uses Nesterov momentum.',
      default: 'ADAMW',
      minimum: null,
      maximum: null,
      values: ['ADAMW', 'SGD'],
    });
  }));
