/** Models that people bring: said in other words than ours, and used without being uploaded again. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { by, deployed, health } from './support/deployments.ts';
import { type Files, writeZip } from './support/images.ts';
import { call, inferJson, makeInferenceModels } from './support/inference.ts';
import type { TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { type Api, ask, datasetVersionOf, jobWhen, modelVersionOf, mutate, uploaded } from './support/training.ts';

const folder = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
const names = ['external', 'brightness', 'classifier-open', 'classifier-square', 'rectangle', 'places-named', 'places-suppressed', 'text'];
beforeAll(() => makeInferenceModels(folder, names));
afterAll(() => rmSync(folder, { recursive: true }));

let server: TestServer;
let api: Api;
withSharedServer((running) => {
  server = running;
});
beforeAll(async () => {
  api = { url: server.url, token: await server.as('ENGINEER') };
});

const shares = { version: 1, width: 32, height: 32, mode: 'STRETCH', mean: [0, 0, 0], std: [1, 1, 1] };
const letterbox = { ...shares, width: 64, height: 64, mode: 'LETTERBOX' };
const versionOf = (name: string, about?: object) => modelVersionOf(api, name, join(folder, `${name}.onnx`), about);

const versionFields = `modelVersion { id number state origin sha256 lineageHash labels preprocess { width } parent { number } }`;
const redescribe = (input: object) => mutate(api, 'describeModelVersion', input, versionFields);

/** The user errors of a mutation that makes nothing. */
async function refused(name: string, input: object) {
  const type = `${(name[0] as string).toUpperCase()}${name.slice(1)}Input`;
  const query = `mutation ($input: ${type}!) { ${name}(input: $input) { userErrors { code field message } } }`;
  return (await ask(api, query, { input })).data[name].userErrors;
}

const flat = (background: string) =>
  sharp({ create: { width: 32, height: 32, channels: 3, background } })
    .png()
    .toBuffer();

test('labels and preprocessing that were forgotten are set later: a version of the same bytes, which serves', async () => {
  const bare = await versionOf('brightness');
  const { modelVersion: second } = await redescribe({ modelVersionId: bare, labels: ['red', 'green', 'blue'], preprocess: shares });
  expect(second).toMatchObject({ number: 2, state: 'READY', origin: 'DESCRIBED', parent: { number: 1 }, preprocess: { width: 32 } });
  const query = 'query ($id: ID!) { node(id: $id) { ... on ModelVersion { sha256 lineageHash labels } } }';
  const { node } = (await ask(api, query, { id: bare })).data;
  expect([node.sha256, node.labels, node.lineageHash === second.lineageHash]).toEqual([second.sha256, null, false]);

  const { modelVersion: third } = await redescribe({ modelVersionId: second.id, labels: ['rot', 'grün', 'blau'] });
  expect(third).toMatchObject({ number: 3, labels: ['rot', 'grün', 'blau'], preprocess: { width: 32 }, parent: { number: 2 } });
  expect((await redescribe({ modelVersionId: bare, labels: ['rot', 'grün', 'blau'], preprocess: shares })).modelVersion.id).toBe(third.id);

  await deployed(api, 'colours', third.id, { deadlineMs: 30_000 });
  const { url } = await health(api);
  const { json } = await call(`${url}/v2/models/colours/predict`, by(api, { method: 'POST', body: await flat('#10e020') }));
  expect(json.classes[0].label).toBe('grün');
});

test.each([
  ['labels', { labels: ['one', 'two'] }, 'There are 2 labels, but the model has 3 classes'],
  ['preprocess', { preprocess: { ...shares, width: 64 } }, 'the model takes batch × 3 × 32 × 32'],
])('%s that do not fit the file are refused', async (field, input, says) => {
  const modelVersionId = await versionOf('brightness');
  const errors = await refused('describeModelVersion', { modelVersionId, ...input });
  expect(errors).toEqual([{ code: 'INVALID', field: [field], message: expect.stringContaining(says) }]);
});

test('a detector of another exporter brings its class names, and its layout is told from its shape', async () => {
  const modelVersionId = await versionOf('places-named', { task: 'DETECTION', preprocess: letterbox });
  const query = 'query ($id: ID!) { node(id: $id) { ... on ModelVersion { labels } } }';
  expect((await ask(api, query, { id: modelVersionId })).data.node.labels).toEqual(['cat', "dog's", 'eel']);
  expect(await deployed(api, 'named', modelVersionId)).toMatchObject({ active: { number: 1 } });
});

test.each<[string, string, object, object, string]>([
  ['sizes that nobody says', 'classifier-open', {}, {}, 'say in `dims` how large height, width are'],
  [
    'a size of no dimension',
    'classifier-open',
    { preprocess: shares },
    { dims: [{ name: 'side', size: 32 }] },
    'There are: batch, height, width',
  ],
  ['a size that is preprocessed otherwise', 'classifier-open', { preprocess: shares }, { dims: [{ name: 'width', size: 64 }] }, 'makes 32'],
  ['a layout that nobody says', 'rectangle', { task: 'DETECTION', preprocess: letterbox, labels: ['a', 'b'] }, {}, 'say `outputLayout`'],
  ['text as an output, as scikit-learn has it', 'text', {}, {}, 'is of the type STRING: tensors of BOOL, UINT8'],
  ['boxes or objectness', 'places-suppressed', { task: 'DETECTION', preprocess: letterbox, labels: ['a'] }, {}, 'say `outputLayout`'],
])('deploy says at once what is missing or wrong: %s', async (_, name, about, settings, says) => {
  const modelVersionId = await versionOf(name, {
    ...about,
    name: `${name}-${Object.keys({ ...about, ...settings })}`.replaceAll(',', '-'),
  });
  const errors = await refused('deploy', { name: 'unservable', modelVersionId, settings });
  expect(errors).toEqual([{ code: 'INVALID', field: ['settings'], message: expect.stringContaining(says) }]);
});

test('an import says at once that the preprocessing contradicts the dimensions of the file, and names them', async () => {
  const upload = await uploaded(api, 'square.onnx', readFileSync(join(folder, 'classifier-square.onnx')));
  const input = { name: 'square', task: 'CLASSIFICATION', ...upload, preprocess: { ...shares, height: 16 } };
  const { modelVersion } = await mutate(api, 'createModel', input, 'modelVersion { job { id } }');
  const { failure } = await jobWhen(api, modelVersion.job.id, ({ state }) => state === 'FAILED' || state === 'SUCCEEDED');
  expect(failure).toMatchObject({
    code: 'PREPROCESS_INVALID',
    message: expect.stringContaining('two dimensions size, but the preprocessing makes them 16 and 32'),
  });
});

test('open height and width come from the preprocessing', async () => {
  const modelVersionId = await versionOf('classifier-open', { name: 'sized', preprocess: shares });
  expect(await deployed(api, 'sized', modelVersionId)).toMatchObject({ active: { number: 1 } });
});

describe('a model whose weights lie in a second file', () => {
  const data = Buffer.from(new Float32Array(16).fill(1).buffer);
  const version = 'query ($id: ID!) { node(id: $id) { ... on ModelVersion { sha256 sizeBytes } } }';

  test('becomes one file, from two uploads or from a zip, and serves', async () => {
    const second = await uploaded(api, 'weights.bin', data);
    const two = await versionOf('external', { name: 'two', dataUploadId: second.uploadId, dataSha256: second.sha256 });
    const zip = join(folder, 'external.zip');
    await writeZip(zip, { 'external/external.onnx': readFileSync(join(folder, 'external.onnx')), 'external/weights.bin': data });
    const packed = await modelVersionOf(api, 'packed', zip);
    const [{ node: ofTwo }, { node: ofZip }] = [
      (await ask(api, version, { id: two })).data,
      (await ask(api, version, { id: packed })).data,
    ];
    expect(ofTwo).toEqual(ofZip);
    await deployed(api, 'summed', two, { deadlineMs: 30_000 });
    const inputs = [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }];
    const { json } = await inferJson((await health(api)).url, 'summed', { inputs }, by(api));
    expect(json.outputs[0].data).toEqual([10, 10, 10, 10]);
  });

  test('alone is refused with what to do', async () => {
    const first = await uploaded(api, 'external.onnx', readFileSync(join(folder, 'external.onnx')));
    const input = { name: 'alone', task: 'CLASSIFICATION', ...first };
    const { modelVersion } = await mutate(api, 'createModel', input, 'modelVersion { job { id } }');
    const { failure } = await jobWhen(api, modelVersion.job.id, ({ state }) => state === 'FAILED');
    expect(failure).toMatchObject({
      code: 'MODEL_UNSAFE',
      message: expect.stringMatching(/in weights\.bin, which was not uploaded.*external_data=False/),
    });
  });

  test.each([
    ['dataSha256', async () => ({ dataUploadId: (await uploaded(api, 'weights.bin', data)).uploadId }), 'Give the SHA-256'],
    ['dataUploadId', async () => ({ dataUploadId: 'nothing', dataSha256: '0'.repeat(64) }), 'no upload with this id'],
  ])('%s that is wrong is named', async (field, input, says) => {
    const first = await uploaded(api, 'external.onnx', readFileSync(join(folder, 'external.onnx')));
    const errors = await refused('createModel', { name: 'wrong', task: 'CLASSIFICATION', ...first, ...(await input()) });
    expect(errors).toEqual([expect.objectContaining({ field: [field], message: expect.stringContaining(says) })]);
  });
});

test('an evaluation matches the classes by name: another order is right, and what the model does not know is named', async () => {
  const colours = { blue: '#0000ff', green: '#00ff00', red: '#ff0000' };
  const files: Files = {};
  for (const [name, colour] of Object.entries(colours)) {
    for (const split of ['train', 'val']) files[`${split}/${name}/1.png`] = await flat(colour);
  }
  const datasetVersionId = await datasetVersionOf(api, 'colours', files);
  const about = { labels: ['red', 'green', 'blue'], preprocess: shares };
  const input = { modelVersionId: await versionOf('brightness', about), datasetVersionId, split: 'VAL' };
  const { job } = await mutate(api, 'startEvaluation', input, 'job { id }');
  const { result } = await jobWhen(api, job.id, ({ state }) => state === 'SUCCEEDED');
  expect(result.metrics).toMatchObject({ images: 3, top1: 1 });

  const { modelVersion } = await redescribe({ modelVersionId: input.modelVersionId, labels: ['red', 'green', 'violet'] });
  expect(await refused('startEvaluation', { ...input, modelVersionId: modelVersion.id })).toEqual([
    {
      code: 'INVALID',
      field: ['datasetVersionId'],
      message: expect.stringMatching(/does not know 1 of the dataset's 3 classes: blue\. It knows red, green, violet\./),
    },
  ]);
});
