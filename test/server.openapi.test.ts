/** The document at `/openapi.json` says what the server answers beside GraphQL: no more, no less. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { insertArtifact, placingBlobs, storeFile } from '../src/storage/blobs.ts';
import { downloadUrl, readLinkKey, signedUrl, thumbnailUrl } from '../src/storage/links.ts';
import type { Artifact } from '../src/storage/tables.ts';
import { type Answered, brokenRefs, type Document, operationsOf, undocumented } from './support/openapi.ts';
import { type TestServer, viewerOf } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { bytesOf, named, type Reply, type Sending, send, withRows } from './support/storage.ts';

let server: TestServer;
const replicaToken = 'r'.repeat(32);
withSharedServer(
  (running) => {
    server = running;
  },
  { WHETSTONE_REPLICA_TOKEN: replicaToken },
);
const documented = async (): Promise<Document> => (await send({ method: 'GET', address: `${server.url}/openapi.json` })).json;

/** Pages for people, not for programs. */
const undescribed = ['/', '/graphiql/'];

test('every route is documented, and every documented path is a route', async () => {
  const routes = server.paths.filter((path) => !undescribed.includes(path));
  const routeOf = (path: string) => routes.find((route) => route === path || (route.endsWith('/') && path.startsWith(route)));
  const used = Object.keys((await documented()).paths).map(routeOf);
  expect([...new Set(used)].sort()).toEqual(routes.sort());
});

test('it is whole: OpenAPI 3.1, no reference leads nowhere, each parameter of an address is described', async () => {
  const document = await documented();
  expect(document.openapi).toMatch(/^3\.1\./);
  expect(brokenRefs(document)).toEqual([]);
  for (const [path, { parameters = [] }] of Object.entries<Document>(document.paths)) {
    const described = parameters.filter((one: Document) => one.in === 'path').map(({ name }: Document) => name);
    expect(described, path).toEqual([...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name));
  }
});

/** Links to a file and to a part of one, as the API gives them. */
async function links(): Promise<Record<'curves' | 'file' | 'thumbnail' | 'dataset' | 'package' | 'report' | 'jobs', string>> {
  const { url, dataDir } = server;
  const path = join(dataDir, 'made');
  writeFileSync(path, bytesOf('file', 1000));
  const stored = (kind: Artifact['kind']) =>
    withRows(dataDir, async (db) => {
      const blob = await placingBlobs(() => storeFile({ config: { dataDir }, db }, path));
      return insertArtifact(db, blob, { ownerType: 'DATASET_VERSION', ownerId: 'version', kind, name: 'made' });
    });
  const services = { config: { publicUrl: undefined }, linkKey: readLinkKey(dataDir), viewer: await viewerOf(server) };
  const file = url + downloadUrl(services, await stored('DATASET_ZIP'));
  writeFileSync(path, bytesOf('thumbnails', 1000));
  const thumbnail = url + thumbnailUrl(services, await stored('THUMBNAILS'), 10, 20);
  const made = (path: string) => url + signedUrl(services, path);
  return {
    file,
    thumbnail,
    dataset: made('/files/datasets/nothing/YOLO'),
    curves: made('/files/curves/nothing'),
    package: made('/files/packages/nothing/BUNDLE'),
    report: made('/files/reports/nothing/HTML'),
    jobs: made('/files/reports/jobs/nothing,more/HTML'),
  };
}

test('what the server answers is what the document says, for each operation', async () => {
  const token = await server.as('ENGINEER');
  const viewer = await server.as('VIEWER');
  const answers: Answered[] = [];
  const ask = async (path: string, status: number, sent: Omit<Sending, 'address'> & { address?: string }): Promise<Reply> => {
    const reply = await send({ token, address: server.url + path, ...sent });
    expect(reply.status, `${sent.method} ${path}: ${reply.text}`).toBe(status);
    const operation = `${sent.method.toLowerCase()} ${path.replace(/\?.*/, '')}`;
    answers.push({ operation, status, contentType: reply.text ? reply.headers['content-type'] : undefined, value: reply.json });
    return reply;
  };
  const resumable = { 'tus-resumable': '1.0.0' };
  const { file, thumbnail, dataset, curves, package: packaged, report, jobs } = await links();

  for (const path of ['/health', '/metrics', '/ready', '/openapi.json']) {
    await ask(path, 200, { method: 'GET' });
    await ask(path, 200, { method: 'HEAD' });
    await ask(path, 401, { method: 'GET', token: 'wrong' });
    await ask(path, 403, { method: 'GET', headers: { origin: 'https://elsewhere.example' } });
  }
  const query = JSON.stringify({ query: '{ __typename }' });
  await ask('/graphql', 200, { method: 'POST', headers: { 'content-type': 'application/json' }, body: [query] });
  await ask('/graphql', 400, { method: 'POST', headers: { 'content-type': 'application/json' }, body: ['{'] });
  await ask('/graphql?query={__typename}', 200, { method: 'GET' });
  await ask('/graphql?query={__typename}', 200, { method: 'GET', headers: { accept: 'text/html' } });
  await ask('/graphql?query=mutation{__typename}', 405, { method: 'GET' });
  const post = (query: string, status: number, headers: object = {}, asker: string | undefined = token) =>
    ask('/graphql', status, {
      method: 'POST',
      token: asker,
      headers: { 'content-type': 'application/json', ...headers },
      body: [JSON.stringify({ query })],
    });
  const strict = { accept: 'application/graphql-response+json' };
  await post('{ nothing }', 400, strict);
  await post('{ users { nodes { id } } }', 401, {}, '');
  await post('{ users { nodes { id } } }', 401, {}, 'wrong');
  await post('{ users { nodes { id } } }', 403, strict);
  await post('{ node(id: "x") { id } }', 404, strict);
  await post('{ __typename }', 406, { accept: 'image/png' });
  await post('{ __typename }', 415, { 'content-type': 'text/plain' });
  await post('mutation { infer(input: {deployment: "nothing", image: "eA=="}) { userErrors { message } } }', 503);

  await ask('/uploads', 401, { method: 'GET', token: undefined });
  await ask('/uploads', 403, { method: 'GET', token: viewer });
  await ask('/uploads', 400, { method: 'POST', body: ['a'] });
  await ask('/uploads?filename=a.txt', 201, { method: 'POST', body: ['a'] });
  await ask('/uploads?filename=a.txt', 415, {
    method: 'POST',
    headers: { 'content-type': 'multipart/form-data; boundary=x' },
    body: ['a'],
  });
  await ask('/uploads', 204, { method: 'OPTIONS', headers: resumable });
  const create = { ...resumable, 'upload-length': '2', 'upload-metadata': named('a.txt') };
  const opened = await ask('/uploads', 201, { method: 'POST', headers: create });
  const address = server.url + opened.headers.location;
  await ask('/uploads', 200, { method: 'GET' });
  const append = (offset: number) => ({ ...resumable, 'upload-offset': String(offset), 'content-type': 'application/offset+octet-stream' });
  await ask('/uploads/{id}', 204, { method: 'PATCH', address, headers: append(0), body: ['a'] });
  await ask('/uploads/{id}', 409, { method: 'PATCH', address, headers: append(0), body: ['a'] });
  await ask('/uploads/{id}', 200, { method: 'HEAD', address, headers: resumable });
  await ask('/uploads/{id}', 200, { method: 'GET', address });
  await ask('/uploads/{id}', 204, { method: 'DELETE', address, headers: resumable });
  await ask('/uploads/{id}', 404, { method: 'GET', address });

  for (const method of ['GET', 'HEAD']) {
    await ask('/files/{artifact}', 200, { method, address: file });
    await ask('/files/{artifact}/{range}', 200, { method, address: thumbnail });
  }
  await ask('/files/{artifact}', 206, { method: 'GET', address: file, headers: { range: 'bytes=0-1' } });
  await ask('/files/{artifact}', 416, { method: 'GET', address: file, headers: { range: 'bytes=5000-' } });
  await ask('/files/{artifact}', 403, { method: 'GET', address: `${file}x` });
  await ask('/files/datasets/{version}/{form}', 404, { method: 'GET', address: dataset });
  for (const method of ['GET', 'HEAD']) {
    await ask('/files/curves/{job}', 404, { method, address: curves });
    await ask('/files/packages/{version}/{form}', 404, { method, address: packaged });
    await ask('/files/reports/{report}/{format}', 404, { method, address: report });
    await ask('/files/reports/jobs/{jobs}/{format}', 404, { method, address: jobs });
  }

  const accounts = await ask('/inference/accounts', 200, { method: 'GET', token: replicaToken });
  const had = { 'if-none-match': accounts.headers.etag as string };
  await ask('/inference/accounts', 304, { method: 'GET', token: replicaToken, headers: had });
  await ask('/inference/accounts', 401, { method: 'GET', headers: had });

  const document = await documented();
  expect(undocumented(document, answers)).toEqual([]);
  const asked = new Set(answers.map(({ operation }) => operation));
  // test/datasets.exports.test.ts downloads datasets.
  expect(operationsOf(document).filter((operation) => !asked.has(operation))).toEqual(['head /files/datasets/{version}/{form}']);
});

test('a method that is not documented is refused', async () => {
  const token = await server.as('ENGINEER');
  const { file, thumbnail, dataset } = await links();
  const refused: [method: string, address: string][] = [
    ...['PUT', 'PATCH', 'DELETE'].map((method): [string, string] => [method, `${server.url}/uploads`]),
    ...['PUT', 'POST'].map((method): [string, string] => [method, `${server.url}/uploads/nothing`]),
    ...['PUT', 'POST', 'PATCH', 'DELETE'].flatMap((method) =>
      [file, thumbnail, dataset].map((address): [string, string] => [method, address]),
    ),
  ];
  const document = await documented();
  for (const path of Object.keys(document.paths).filter((one) => !/\{|^.uploads/.test(one))) {
    const answers = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'].filter(
      (method) => document.paths[path][method.toLowerCase()],
    );
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'].filter((one) => !answers.includes(one))) {
      const { status, headers } = await send({ method, address: server.url + path });
      expect([status, headers.allow], `${method} ${path}`).toEqual([405, answers.sort().join(', ')]);
    }
  }
  for (const [method, address] of refused) {
    const { status } = await send({ method, address, token, headers: { 'tus-resumable': '1.0.0' } });
    expect(Math.floor(status / 100), `${method} ${address}`).toBe(4);
  }
});
