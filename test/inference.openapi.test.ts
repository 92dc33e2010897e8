/** The document at `/openapi.json` says what the host does: no more, no less. */
import { generateKeyPairSync } from 'node:crypto';
import { expect, test } from 'vitest';
import type { RunningHost } from '../src/inference/host.ts';
import { modelRoutes, routes } from '../src/inference/http.ts';
import { presetPreprocess } from '../src/vision/spec.ts';
import { eventually } from './support/eventually.ts';
import { photo } from './support/images.ts';
import { binaryBody, call, metric, type Sent, withHost } from './support/inference.ts';
import { type Answered, brokenRefs, type Document, operationsOf, undocumented } from './support/openapi.ts';

let url = '';
let host: RunningHost;
const generous = { deadlineMs: 30_000 };
withHost(
  {
    bodyBytesMax: 100_000,
    models: [
      { name: 'identity', version: 1, batchMax: 4, ...generous },
      { name: 'lookup', version: 1, ...generous },
      { name: 'spin', version: 1, deadlineMs: 20 },
      { name: 'brightness', version: 1, preprocess: presetPreprocess(32), ...generous },
      {
        name: 'rectangle',
        version: 1,
        task: 'DETECTION',
        outputLayout: 'BOXES_SCORES',
        preprocess: presetPreprocess(64, 'DETECTION'),
        ...generous,
      },
    ],
  },
  (running) => {
    host = running;
    url = running.url;
  },
);

const documented = async (): Promise<Document> => (await call(`${url}/openapi.json`)).json;

test('every route is documented, and every documented one is a route', async () => {
  const ofModels = ['/v2/models/{model}', '/v2/models/{model}/versions/{version}'].flatMap((address) =>
    Object.entries(modelRoutes).map(([name, [method]]) => `${method.toLowerCase()} ${address}${name && `/${name}`}`),
  );
  const others = Object.entries(routes).map(([path, [method]]) => `${method.toLowerCase()} ${path}`);
  expect(operationsOf(await documented()).sort()).toEqual([...ofModels, ...others].sort());
});

test('it is whole: OpenAPI 3.1, no reference leads nowhere, each parameter of an address is described', async () => {
  const document = await documented();
  expect(document.openapi).toMatch(/^3\.1\./);
  expect(brokenRefs(document)).toEqual([]);
  for (const [path, { parameters = [] }] of Object.entries<Document>(document.paths)) {
    const named = parameters.filter((one: Document) => one.in === 'path').map(({ name }: Document) => name);
    expect(named, path).toEqual([...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name));
  }
});

const post = (body: string | Uint8Array, headers: Record<string, string> = {}): Sent => ({ method: 'POST', body, headers });
const tensor = { name: 'x', datatype: 'FP32', shape: [1, 4] };
const request = JSON.stringify({ id: 'seven', inputs: [{ ...tensor, data: [1, 2, 3, 4] }] });
const binary = binaryBody(
  { parameters: { binary_data_output: true }, inputs: [{ ...tensor, parameters: { binary_data_size: 16 } }] },
  new Uint8Array(16),
);
const index = (n: number) => JSON.stringify({ inputs: [{ name: 'index', datatype: 'INT64', shape: [1], data: [n] }] });
const rounds = (n: number, timeout: number) =>
  JSON.stringify({ parameters: { timeout }, inputs: [{ name: 'rounds', datatype: 'INT64', shape: [1], data: [n] }] });
const image = await photo(60, 40).png().toBuffer();

/** By model: what comes behind its address, what is sent, and the status that it gets. */
const asked: [model: string, route: string, status: number, sent?: Sent][] = [
  ['identity', '', 200],
  ['identity', '/ready', 200],
  ['identity', '/config', 200],
  ['identity', '/infer', 200, post(request)],
  ['identity', '/infer', 200, post(binary.body, binary.headers)],
  ['identity', '/infer', 400, post('{}')],
  ['identity', '/infer', 413, post('x'.repeat(100_001))],
  ['identity', '/infer', 415, post(request, { 'content-encoding': 'br' })],
  ['identity', '/stats', 200],
  ['lookup', '/infer', 500, post(index(9))],
  ['spin', '/infer', 429, post(rounds(0, 1))],
  ['spin', '/infer', 504, post(rounds(10_000, 20_000))],
  ['brightness', '/predict', 200, post(image)],
  ['brightness', '/predict', 400, post('hello')],
  ['brightness', '/predict', 413, post('x'.repeat(100_001))],
  ['rectangle', '/predict', 200, post(image)],
  ['nobody', '', 404],
  ['nobody', '/ready', 404],
  ['nobody', '/config', 404],
  ['nobody', '/stats', 404],
  ['nobody', '/infer', 404, post(request)],
  ['nobody', '/predict', 404, post(image)],
];

test('what the host answers is what the document says, for each operation', async () => {
  const answers: Answered[] = [];
  const ask = async (operation: string, path: string, status: number, sent: Sent = {}) => {
    const { method = 'GET' } = sent;
    // A run continues behind its 504.
    await eventually(async () => expect(await metric(url, 'whetstone_inference_dispatched_runs')).toBe(0));
    const got = await call(url + path, sent);
    expect(got.status, `${method} ${path}`).toBe(status);
    const value = got.json ?? (got.headers['content-type'] === 'application/octet-stream' ? undefined : got.body.toString());
    answers.push({
      operation: `${method.toLowerCase()} ${operation}`,
      status: got.status,
      contentType: got.headers['content-type'],
      value,
    });
  };
  for (const [model, route, status, sent] of asked) {
    await ask(`/v2/models/{model}${route}`, `/v2/models/${model}${route}`, status, sent);
    await ask(`/v2/models/{model}/versions/{version}${route}`, `/v2/models/${model}/versions/1${route}`, status, sent);
  }
  for (const path of ['/v2', '/v2/health/live', '/v2/health/ready', '/v2/models/stats', '/metrics', '/openapi.json'])
    await ask(path, path, 200);
  await ask('/v2/repository/index', '/v2/repository/index', 200, post('{}'));

  const document = await documented();
  expect(undocumented(document, answers)).toEqual([]);
  const wentWell = new Set(answers.filter(({ status }) => status === 200).map(({ operation }) => operation));
  expect([...wentWell].sort()).toEqual(operationsOf(document).sort());
});

test('an answer that differs from the document is found', async () => {
  const answer = (status: number, contentType: string, value: unknown) => ({
    operation: 'get /v2/health/live',
    status,
    contentType,
    value,
  });
  const answers = [answer(200, 'application/json', { extra: 1 }), answer(418, 'application/json', {}), answer(200, 'text/html', '')];
  expect(undocumented(await documented(), answers)).toEqual([
    'get /v2/health/live → 418 is not documented',
    'get /v2/health/live → 200: text/html is not documented',
    expect.stringContaining("'extra' was unexpected"),
  ]);
});

test('what must not be asked for is not allowed by the schema of a request either', async () => {
  const { properties } = (await documented()).components.schemas.InferRequest;
  expect(properties.parameters.properties.sequence_id).toEqual({ not: {} });
});

/* The last one: from now on the host asks who is there. */
test('where there are accounts, each operation but those that say so needs a key or a token', async () => {
  const { publicKey } = generateKeyPairSync('ed25519');
  const key = { ...publicKey.export({ format: 'jwk' }), kid: 'test' };
  host.replaceAuth({ publicKeys: [key], users: [], keyOwners: [], endedSessions: [], apiKeys: [] });
  const document = await documented();
  const answers: Answered[] = [];
  for (const operation of operationsOf(document)) {
    const [method, path] = operation.split(' ') as [string, string];
    const address = url + path.replace('{model}', 'identity').replace('{version}', '1');
    const { status, headers, json } = await call(address, { method: method.toUpperCase() });
    const { security = document.security } = document.paths[path][method];
    expect(status === 401, operation).toBe(security.length > 0);
    if (status === 401) answers.push({ operation, status, contentType: headers['content-type'], value: json });
  }
  expect(undocumented(document, answers)).toEqual([]);
});
