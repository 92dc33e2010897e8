import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { describePrediction, predict } from '../src/cli/predict.ts';
import { routes } from '../src/inference/http.ts';
import { readRunning } from '../src/inference/runningFile.ts';
import { by, deployed, deploymentOf, echoesDuringSwap, health, hostPid, item, settled } from './support/deployments.ts';
import { nextAnswer, withEvents } from './support/events.ts';
import { eventually } from './support/eventually.ts';
import { call, inferJson, makeInferenceModels, spinJson } from './support/inference.ts';
import { withServerProcess } from './support/process.ts';
import { adminName, adminPassword, client, type TestServer, withFolder } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { blobOf } from './support/storage.ts';
import { type Api, ask, modelVersionOf, mutate } from './support/training.ts';

const models = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
beforeAll(() => makeInferenceModels(models, ['brightness', 'identity', 'spin', 'rectangle']));
afterAll(() => rmSync(models, { recursive: true }));

const versionOf = (api: Api, name: string, about?: object) => modelVersionOf(api, name, join(models, `${name}.onnx`), about);

const rgb = { version: 1, width: 32, height: 32, mode: 'STRETCH', mean: [0, 0, 0], std: [1, 1, 1] };

describe('a deployment', () => {
  let server: TestServer;
  let api: Api;
  let identity = '';
  let brightness = '';
  let spin = '';
  withSharedServer((running) => {
    server = running;
  });
  beforeAll(async () => {
    api = { url: server.url, token: await server.as('ENGINEER') };
  });

  test('there is no inference host before the first one', async () => {
    expect(await health(api)).toEqual({ state: 'IDLE', url: null, restarts: 0, reason: null });
  });

  test('is warm before it takes a request, shows a client, and answers images over HTTP and GraphQL', async () => {
    brightness = await versionOf(api, 'brightness', { labels: ['red', 'green', 'blue'], preprocess: rgb });
    expect(await deployed(api, 'colours', brightness, { deadlineMs: 30_000 })).toMatchObject({
      active: { number: 1, settings: { deadlineMs: 30_000, batchMax: 1 } },
      revisions: [{ number: 1, state: 'ACTIVE', reason: null }],
    });
    // The host learns that everything was tried after the revision has become ACTIVE.
    await eventually(async () => expect(await health(api)).toMatchObject({ state: 'READY' }));
    const { url } = await health(api);
    const { data } = await ask(api, '{ deployment(name: "colours") { snippet(language: PYTHON) } }');
    expect(data.deployment.snippet).toContain(`requests.post("${url}/v2/models/colours/predict"`);
    const image = await sharp({ create: { width: 40, height: 30, channels: 3, background: '#10e020' } })
      .png()
      .toBuffer();
    const { json } = await call(`${url}/v2/models/colours/predict?top=1`, by(api, { method: 'POST', body: image }));
    expect(json).toMatchObject({ model_name: 'colours', model_version: '1', classes: [{ label: 'green', index: 1 }] });
    const input = { deployment: 'colours', image: image.toString('base64'), top: 2 };
    const { prediction } = await mutate(api, 'infer', input, 'prediction { revision classes { label index probability } }');
    expect(prediction).toMatchObject({ revision: 1, classes: [{ label: 'green' }, { label: 'blue' }] });
    const images = [image.toString('base64'), Buffer.from('hello').toString('base64')];
    const batch = { deployment: 'colours', images, top: 1 };
    const { results } = await mutate(api, 'inferBatch', batch, 'results { prediction { classes { label } } error { code field } }');
    expect(results).toEqual([
      { prediction: { classes: [{ label: 'green' }] }, error: null },
      { prediction: null, error: { code: 'INVALID', field: ['images', '1'] } },
    ]);
  });

  test('a name that is no name of a deployment is NOT_FOUND', async () => {
    const query = 'mutation ($i: InferInput!) { infer(input: $i) { userErrors { code } } }';
    for (const deployment of ['.', '..', '', '/', '../stats', '%2e', 'stats', 'x\0', '\ud800', 'nobody']) {
      const { errors } = await ask(api, query, { i: { deployment, image: 'aGVsbG8=' } });
      expect(
        errors?.map((e) => e.extensions.code),
        deployment,
      ).toEqual(['NOT_FOUND']);
    }
  });

  test('its requests are counted, for those who subscribe', async () => {
    const query = 'subscription { inferenceStats(deployment: "colours") { deployments { name revision answered computeMs } } }';
    const { inferenceStats } = await withEvents(server.url, query, api.token, async (items) => (await nextAnswer(items))?.data);
    expect(inferenceStats).toEqual({ deployments: [{ name: 'colours', revision: 1, answered: 3, computeMs: expect.any(Number) }] });
  });

  test('`whetstone predict` says what images show, also one that is too large for a document', () =>
    withFolder(async (folder) => {
      const session = { url: api.url, accessToken: async () => api.token };
      const green = sharp({ create: { width: 700, height: 600, channels: 3, background: '#10e020' } });
      for (const [name, file] of Object.entries({ 'a.png': green.png(), 'b.tiff': green.tiff({ compression: 'none' }) })) {
        writeFileSync(join(folder, name), await file.toBuffer());
        const prediction = await predict(session, 'colours', join(folder, name), { top: 1 });
        expect(prediction).toMatchObject({ revision: 1, classes: [{ label: 'green', index: 1 }], detections: null });
        expect(describePrediction(name, prediction)).toMatch(new RegExp(`^${name}: green \\d+\\.\\d %$`));
      }
      await expect(predict(session, 'colours', join(folder, 'none.png'), {})).rejects.toThrow('There is no file');
      await expect(predict(session, 'none', join(folder, 'b.tiff'), {})).rejects.toThrow('none');
    }));

  test('of a detector answers boxes over GraphQL', async () => {
    const preprocess = { ...rgb, width: 64, height: 64, mode: 'LETTERBOX' };
    const rectangle = await versionOf(api, 'rectangle', { task: 'DETECTION', labels: ['red', 'green'], preprocess });
    await deployed(api, 'boxes', rectangle, { deadlineMs: 30_000, outputLayout: 'BOXES_SCORES' });
    const pink = { create: { width: 64, height: 32, channels: 3, background: '#ff00ff' } } as const;
    const image = await sharp({ create: { width: 128, height: 96, channels: 3, background: '#000' } })
      .composite([{ input: pink, left: 32, top: 16 }])
      .png()
      .toBuffer();
    const input = { deployment: 'boxes', image: image.toString('base64'), score: 0.5 };
    const { prediction } = await mutate(
      api,
      'infer',
      input,
      'prediction { classes { label } detections { label index score x y width height } }',
    );
    expect(prediction).toEqual({
      classes: null,
      detections: [{ label: 'red', index: 0, score: 1, x: 32, y: 16, width: 64, height: 32 }],
    });
    await mutate(api, 'undeploy', { name: 'boxes' }, 'deployment { name }');
  });

  test('is not called as an address of the protocol, whatever the routes are', async () => {
    const input = (name: string) => ({ name, modelVersionId: brightness });
    const mutation = 'mutation ($i: DeployInput!) { deploy(input: $i) { userErrors { field message } } }';
    const taken = Object.keys(routes).flatMap((path) => /^\/v2\/models\/(\w+)$/.exec(path)?.[1] ?? []);
    expect(taken).toContain('stats');
    for (const name of taken) {
      const { data } = await ask(api, mutation, { i: input(name) });
      expect(data.deploy.userErrors).toEqual([{ field: ['name'], message: expect.stringContaining('take another name') }]);
    }
  });

  test('a wrong argument of `infer` and of `rollback` is named: a deployment that takes no images is not blamed on the image', async () => {
    const image = Buffer.from('hello').toString('base64');
    const errorsOf = async (name: 'infer' | 'inferBatch' | 'rollback', input: object) => {
      const type = `${name[0]?.toUpperCase()}${name.slice(1)}Input`;
      const result = name === 'inferBatch' ? 'results { error { field } }' : '';
      const { data } = await ask(api, `mutation ($i: ${type}!) { ${name}(input: $i) { ${result} userErrors { code field } } }`, {
        i: input,
      });
      return data[name].results?.map(({ error }: { error: object }) => error) ?? data[name].userErrors;
    };
    expect(await errorsOf('infer', { deployment: 'colours', image, top: 0 })).toEqual([{ code: 'INVALID', field: ['top'] }]);
    expect(await errorsOf('infer', { deployment: 'colours', image, score: 1.5 })).toEqual([{ code: 'INVALID', field: ['score'] }]);
    expect(await errorsOf('inferBatch', { deployment: 'colours', images: [image], score: 1.5 })).toEqual([{ field: ['score'] }]);
    expect(await errorsOf('inferBatch', { deployment: 'colours', images: [image] })).toEqual([{ field: ['images', '0'] }]);
    expect(await errorsOf('inferBatch', { deployment: 'nothing', images: [image] })).toEqual([{ field: ['deployment'] }]);
    await deployed(api, 'tensors', await versionOf(api, 'brightness'), { deadlineMs: 30_000 });
    expect(await errorsOf('infer', { deployment: 'tensors', image })).toEqual([{ code: 'INVALID', field: ['deployment'] }]);
    expect(await errorsOf('inferBatch', { deployment: 'tensors', images: [image] })).toEqual([{ field: ['deployment'] }]);
    await mutate(api, 'undeploy', { name: 'tensors' }, 'deployment { name }');
    expect(await errorsOf('rollback', { name: 'colours', revision: 7 })).toEqual([{ code: 'NOT_FOUND', field: ['revision'] }]);
  });

  test('an image that is none, and a name that is none, are said', async () => {
    const query = 'mutation ($i: InferInput!) { infer(input: $i) { prediction { revision } userErrors { code field message } } }';
    const wrong = async (input: object) => ask(api, query, { i: { image: Buffer.from('hello').toString('base64'), ...input } });
    const { data } = await wrong({ deployment: 'colours' });
    expect(data.infer).toEqual({
      prediction: null,
      userErrors: [{ code: 'INVALID', field: ['image'], message: expect.stringContaining('not a JPEG') }],
    });
    const { errors } = await wrong({ deployment: 'colour' });
    const message = expect.stringMatching(/^There is no deployment colour\. Did you mean colours\? There are: .*colours/);
    expect(errors?.[0]).toMatchObject({ message, extensions: { code: 'NOT_FOUND' } });
  });

  test('an API key opens its deployments as soon as it is shown, no others, and nothing once it is revoked', async () => {
    const { url } = await health(api);
    const ready = async (token: string) => (await call(`${url}/v2/models/colours/ready`, by({ url, token }))).status;
    expect((await call(`${url}/v2/models/colours/ready`)).status).toBe(401);
    const createKey = (name: string, deployments: string[]) => mutate(api, 'createApiKey', { name, deployments }, 'secret apiKey { id }');
    await deployed(api, 'others', brightness, { deadlineMs: 30_000 });
    const [mine, other] = [await createKey('mine', ['colours']), await createKey('other', ['others'])];
    expect([await ready(mine.secret), await ready(other.secret)]).toEqual([200, 403]);
    const used = async () => (await ask(api, '{ apiKeys { nodes { name lastUsedAt } } }')).data.apiKeys.nodes;
    await eventually(async () => expect(await used()).toContainEqual({ name: 'mine', lastUsedAt: expect.any(String) }));
    await mutate(api, 'revokeApiKey', { apiKeyId: mine.apiKey.id }, 'apiKey { id }');
    expect(await ready(mine.secret)).toBe(401);
    await mutate(api, 'undeploy', { name: 'others' }, 'deployment { name }');
  });

  test('a new user infers at once, and no more as soon as they are disabled or have logged out', async () => {
    const { url } = await health(api);
    const admin = { url: server.url, token: await server.admin() };
    const ready = async (token: string) => (await call(`${url}/v2/models/colours/ready`, by({ url, token }))).status;
    const { user } = await mutate(admin, 'createUser', { name: 'grace', role: 'ENGINEER', password: adminPassword }, 'user { id }');
    const { accessToken } = await server.login('grace', adminPassword);
    expect(await ready(accessToken)).toBe(200);
    const disable = (disabled: boolean) => mutate(admin, 'disableUser', { userId: user.id, disabled }, 'user { id }');
    await disable(true);
    expect(await ready(accessToken)).toBe(401);
    await disable(false);
    const next = await server.login('grace', adminPassword);
    expect(await ready(next.accessToken)).toBe(200);
    await mutate(admin, 'logout', { refreshToken: next.refreshToken }, '');
    expect(await ready(next.accessToken)).toBe(401);
  });

  test('a next version takes its place without a lost or a wrong answer', async () => {
    identity = await versionOf(api, 'identity');
    await deployed(api, 'echo', identity, { deadlineMs: 60_000 });
    const { answered, wrong } = await echoesDuringSwap(api, { requests: 200, connections: 20 }, () =>
      deployed(api, 'echo', identity, { deadlineMs: 60_000, batchMax: 4 }),
    );
    expect([wrong, [...answered.keys()].sort()]).toEqual([[], ['1', '2']]);
    const { url } = await health(api);
    expect((await call(`${url}/v2/models/echo/versions/2`, by(api))).status).toBe(200);
    await eventually(async () => expect((await call(`${url}/v2/models/echo/versions/1`, by(api))).status).toBe(404));
  });

  test('what cannot be warmed up never takes a request, and says why', async () => {
    spin = await versionOf(api, 'spin');
    const after = await deployed(api, 'echo', spin, { batchMax: 2 });
    expect(after.active.number).toBe(2);
    expect(after.revisions[0]).toEqual({ number: 3, state: 'FAILED', reason: expect.stringContaining('batchMax must be 1') });
    const { url } = await health(api);
    expect((await inferJson(url, 'echo', item(7), by(api))).json.model_version).toBe('2');
  });

  test('a file whose bytes were flipped is not loaded: what served goes on', async () => {
    const { data } = await ask(api, 'query ($id: ID!) { node(id: $id) { ... on ModelVersion { sha256 } } }', { id: identity });
    const file = blobOf(server.dataDir, data.node.sha256);
    const bytes = readFileSync(file);
    chmodSync(file, 0o600);
    writeFileSync(
      file,
      bytes.map((byte, i) => (i === 50 ? byte ^ 1 : byte)),
    );
    const after = await deployed(api, 'echo', identity, { deadlineMs: 60_000 });
    writeFileSync(file, bytes);
    expect(after.revisions[0]).toMatchObject({ state: 'FAILED', reason: expect.stringContaining('not the one that was meant') });
    expect((await inferJson((await health(api)).url, 'echo', item(8), by(api))).json.model_version).toBe('2');
  });

  test('can be tried by a viewer, over GraphQL and with their access token, but a key of theirs does not work', async () => {
    const { url } = await health(api);
    const viewer = { url: server.url, token: await server.as('VIEWER') };
    const image = await sharp({ create: { width: 8, height: 8, channels: 3, background: '#10e020' } })
      .png()
      .toBuffer();
    const input = { deployment: 'colours', image: image.toString('base64'), top: 1 };
    const { prediction } = await mutate(viewer, 'infer', input, 'prediction { classes { label } }');
    expect(prediction).toEqual({ classes: [{ label: 'green' }] });
    const direct = await call(`${url}/v2/models/colours/predict?top=1`, by(viewer, { method: 'POST', body: image }));
    expect([direct.status, direct.headers['whetstone-revision'], direct.headers['whetstone-model-version']]).toEqual([200, '1', '1']);
    const refused = await ask(viewer, 'mutation { createApiKey(input: { name: "mine" }) { secret userErrors { message } } }');
    expect(refused.data.createApiKey).toEqual({ secret: null, userErrors: [{ message: expect.stringContaining('does not have INFER') }] });

    // A key that was made before the role was taken away.
    const admin = { url: server.url, token: await server.admin() };
    const { user } = await mutate(admin, 'createUser', { name: 'hopper', role: 'ENGINEER', password: adminPassword }, 'user { id }');
    const { accessToken } = await server.login('hopper', adminPassword);
    const { secret } = await mutate({ url: server.url, token: accessToken }, 'createApiKey', { name: 'old' }, 'secret');
    const status = async (token: string) => (await call(`${url}/v2/models/colours`, by({ url, token }))).status;
    expect([await status(secret), await status(accessToken)]).toEqual([200, 200]);
    await mutate(admin, 'updateUser', { userId: user.id, role: 'VIEWER' }, 'user { id }');
    expect([await status(secret), await status(accessToken)]).toEqual([403, 200]);
  });

  test('a key for a deployment that there is not is refused with those that there are', async () => {
    const mutation = 'mutation ($i: CreateApiKeyInput!) { createApiKey(input: $i) { secret userErrors { code field message } } }';
    const { data } = await ask(api, mutation, { i: { name: 'camera', deployments: ['colours', 'ecko'] } });
    expect(data.createApiKey.secret).toBeNull();
    const message = expect.stringMatching(/^There is no deployment ecko\. Did you mean echo\? There are: .*colours.* Deploy it first\.$/);
    expect(data.createApiKey.userErrors).toEqual([{ code: 'NOT_FOUND', field: ['deployments'], message }]);
  });

  test('rolls back to what served before, which is a new revision, and the audit log says so', async () => {
    await mutate(api, 'rollback', { name: 'echo' }, 'deployment { name }');
    const { active, revisions } = await settled(api, 'echo');
    expect(active).toMatchObject({ number: 5, settings: { batchMax: 1 } });
    expect(revisions.map((r: { state: string }) => r.state)).toEqual(['ACTIVE', 'FAILED', 'FAILED', 'RETIRED', 'RETIRED']);
    const { data } = await server.graphql('{ auditLog(first: 1) { nodes { action detail } } }', {}, await server.admin());
    expect(data.auditLog.nodes).toMatchObject([{ action: 'rollback', detail: { name: 'echo', revision: 5 } }]);
  });

  test('its model version cannot be deleted while it serves; undeployed it answers 404 and the version can go', async () => {
    const admin: Api = { url: server.url, token: await server.admin() };
    const remove = 'mutation ($i: DeleteModelVersionInput!) { deleteModelVersion(input: $i) { userErrors { code message } } }';
    const deleted = async () => (await ask(admin, remove, { i: { modelVersionId: identity } })).data.deleteModelVersion.userErrors;
    expect(await deleted()).toEqual([{ code: 'IN_USE', message: expect.stringContaining('deployment echo serves') }]);
    await mutate(api, 'undeploy', { name: 'echo' }, 'deployment { name }');
    const { url } = await health(api);
    await eventually(async () => expect((await inferJson(url, 'echo', item(1), by(api))).status).toBe(404));
    expect(await deploymentOf(api, 'echo')).toBeNull();
    expect(await deleted()).toEqual([]);
  });

  test.each([
    ['a name that is none', { name: '../x' }, 'INVALID', ['name']],
    ['a deadline beyond its range', { settings: { deadlineMs: 100_000 } }, 'INVALID', ['settings', 'deadlineMs']],
    [
      'a version that there is not',
      { modelVersionId: Buffer.from('ModelVersion:x').toString('base64url') },
      'NOT_FOUND',
      ['modelVersionId'],
    ],
  ])('is refused with %s', async (_what, change, code, field) => {
    const query = 'mutation ($i: DeployInput!) { deploy(input: $i) { userErrors { code field } } }';
    const { data } = await ask(api, query, { i: { name: 'other', modelVersionId: brightness, ...change } });
    expect(data.deploy.userErrors).toEqual([{ code, field }]);
  });

  test('a host that is killed comes back with its deployments; GraphQL does not notice', async () => {
    const pid = hostPid() as number;
    const { url } = await health(api);
    process.kill(pid, 'SIGKILL');
    await eventually(async () => expect(await health(api)).toMatchObject({ state: 'READY', restarts: 1 }));
    expect(hostPid()).not.toBe(pid);
    expect(await health(api)).not.toMatchObject({ url: null });
    expect(url).not.toBeNull();
    expect((await call(`${(await health(api)).url}/v2/models/colours/ready`, by(api))).status).toBe(200);
    expect(await deploymentOf(api, 'colours')).toMatchObject({ active: { number: 1 } });
  });

  test('a model under which the host died three times is not loaded again; the others serve', async () => {
    await deployed(api, 'spinning', spin, { deadlineMs: 60_000 });
    const { restarts } = await health(api);
    for (let death = 1; death <= 3; death += 1) {
      const { url } = await health(api);
      const lost = inferJson(url, 'spinning', spinJson(10_000_000), by(api)).catch(({ code }) => code);
      await eventually(() => expect(readRunning(join(server.dataDir, 'inference'))).toHaveLength(1));
      process.kill(hostPid() as number, 'SIGKILL');
      expect(await lost).toBe('ECONNRESET');
      await eventually(async () => expect(await health(api)).toMatchObject({ state: 'READY', restarts: restarts + death }));
    }
    expect(await deploymentOf(api, 'spinning')).toMatchObject({
      active: null,
      revisions: [{ state: 'FAILED', reason: 'The inference host died 3 times within an hour while it loaded or ran this model.' }],
    });
    const { url } = await health(api);
    // It is there, and its revisions say what is wrong with it.
    expect((await call(`${url}/v2/models/spinning/ready`, by(api))).status).toBe(503);
    expect((await call(`${url}/v2/models/colours/ready`, by(api))).status).toBe(200);
  });
});

test('the death of the server takes the host with it, and the next server serves what was deployed', () =>
  withFolder(async (dataDir) => {
    const env = { WHETSTONE_DATA_DIR: dataDir, WHETSTONE_LOG_LEVEL: 'info' };
    await withServerProcess(env, async (child) => {
      const server = client({ url: child.url } as TestServer, dataDir);
      const api: Api = { url: child.url, token: await server.admin() };
      await deployed(api, 'echo', await versionOf(api, 'identity'));
      const pid = hostPid(child.pid) as number;
      expect(pid).toBeGreaterThan(0);
      child.kill('SIGKILL');
      await child.exit;
      await eventually(async () => expect(() => process.kill(pid, 0)).toThrow('ESRCH'));
    });
    await withServerProcess(env, async (child) => {
      const server = client({ url: child.url } as TestServer, dataDir);
      const api: Api = { url: child.url, token: (await server.login(adminName, adminPassword)).accessToken };
      await eventually(async () => expect(await health(api)).toMatchObject({ state: 'READY' }));
      expect((await inferJson((await health(api)).url, 'echo', item(3), by(api))).json.outputs[0].data[0]).toBe(3);
      const pid = hostPid(child.pid) as number;
      child.kill('SIGTERM');
      expect((await child.exit).code).toBe(0);
      expect(() => process.kill(pid, 0)).toThrow('ESRCH');
    });
  }));
