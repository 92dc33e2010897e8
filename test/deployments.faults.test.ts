/** The life of a deployment under faults: names that are taken away and given again, hosts that hang, models that do not end. */
import { mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readRunning } from '../src/inference/runningFile.ts';
import { by, deployed, deploymentOf, health, hostPid, item, settled } from './support/deployments.ts';
import { nativeMissing, whyNoNative } from './support/engines.ts';
import { eventually } from './support/eventually.ts';
import { binaryBody, call, type Got, inferJson, makeInferenceModels, spinJson } from './support/inference.ts';
import { withServerProcess } from './support/process.ts';
import { adminName, adminPassword, client, type TestServer, withFolder } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { blobOf } from './support/storage.ts';
import { type Api, ask, modelVersionOf, mutate } from './support/training.ts';

const models = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
beforeAll(() => makeInferenceModels(models, ['plus-1', 'plus-2', 'stubborn', 'chain-300', 'patient']));
afterAll(() => rmSync(models, { recursive: true }));

const versionOf = (api: Api, name: string) => modelVersionOf(api, name, join(models, `${name}.onnx`));
const versions: Record<string, string> = {};
let server: TestServer;
let api: Api;

/** A server with the models, for the tests of a group. */
function withModels(): void {
  withSharedServer(
    (running) => {
      server = running;
    },
    { WHETSTONE_INFERENCE_PERMITS: '1' },
  );
  beforeAll(async () => {
    api = { url: server.url, token: await server.as('ENGINEER') };
    for (const name of ['plus-1', 'plus-2', 'stubborn', 'chain-300']) versions[name] = await versionOf(api, name);
  }, 120_000);
}

const deploy = (name: string, model: string, settings?: object) =>
  mutate(api, 'deploy', { name, modelVersionId: versions[model], settings }, 'deployment { name }');
const undeploy = (name: string) => mutate(api, 'undeploy', { name }, 'deployment { name }');
const isServed = async (model: string) => {
  await deploy(model, model, { deadlineMs: 30_000 });
  expect(await settled(api, model)).toMatchObject({ active: { number: 1 } });
};

/** What a model adds to 10; its status where it does not answer; GONE where no host listens. */
async function added(name: string): Promise<unknown> {
  const { url } = await health(api);
  const lost = (): Partial<Got> => ({ status: 0 });
  const { status, json } = url === null ? lost() : await inferJson(url, name, item(10), by(api)).catch(lost);
  return status === 200 ? json.outputs[0].data[0] - 10 : status || 'GONE';
}

describe('a name that is taken away and given to another model answers with that one, or not yet', () => {
  withModels();
  /** Asks until the new model answers; gives everything else that came. */
  async function answersUntilNew(name: string): Promise<unknown[]> {
    const others = new Set<unknown>();
    await eventually(async () => {
      const answer = await added(name);
      if (answer !== 2) others.add(answer);
      expect(answer).toBe(2);
    });
    expect(await settled(api, name)).toMatchObject({ active: { number: 1 }, revisions: [{ state: 'ACTIVE' }] });
    return [...others].filter((answer) => answer !== 503 && answer !== 'GONE');
  }

  // The more looks, the later in the round.
  test.each([0, 1, 2, 3, 5, 8, 13, 21, 34])('after %i looks at it', async (looks) => {
    await deploy('again', 'plus-1', { deadlineMs: 30_000 });
    for (let n = 0; n < looks; n += 1) await deploymentOf(api, 'again');
    await undeploy('again');
    await deploy('again', 'plus-2', { deadlineMs: 30_000 });
    expect(await answersUntilNew('again')).toEqual([]);
    await undeploy('again');
    expect(await added('again')).toBe(404);
  });

  test.each([0, 1, 3, 8, 21])('and %i looks after the host was killed', async (looks) => {
    await deploy('again', 'plus-1', { deadlineMs: 30_000 });
    await settled(api, 'again');
    process.kill(hostPid() as number, 'SIGKILL');
    for (let n = 0; n < looks; n += 1) await deploymentOf(api, 'again');
    await undeploy('again');
    await deploy('again', 'plus-2', { deadlineMs: 30_000 });
    expect(await answersUntilNew('again')).toEqual([]);
    await undeploy('again');
  });

  // onnxruntime-node loads one model after the other.
  test.skipIf(nativeMissing !== null)(`also while another takes minutes to load${whyNoNative}`, async () => {
    await deploy('again', 'plus-1', { deadlineMs: 30_000 });
    await settled(api, 'again');
    await mutate(
      api,
      'deploy',
      { name: 'slow', modelVersionId: await versionOf(api, 'patient'), settings: { dims: [{ name: 'm', size: 300_000 }] } },
      'deployment { name }',
    );
    await undeploy('again');
    expect(await added('again')).toBe(404);
    await deploy('again', 'plus-2', { deadlineMs: 30_000 });
    expect(await answersUntilNew('again')).toEqual([]);
    expect((await deploymentOf(api, 'slow')).loading).not.toBeNull();
    await undeploy('again');
    process.kill(hostPid() as number, 'SIGKILL');
    await settled(api, 'slow');
  });
});

describe('the host', () => {
  withModels();

  test('after a crash a deployment serves as soon as it is loaded, while that whose runs it was is still being loaded', async () => {
    await isServed('plus-1');
    // By its name it would be the first.
    await deployed(api, 'a-slow', versions['chain-300'] as string, { deadlineMs: 60_000 });
    await eventually(async () => expect(await health(api)).toMatchObject({ state: 'READY' }));
    const image = new Uint8Array(4 * 3 * 224 * 224);
    const input = { name: 'image', datatype: 'FP32', shape: [1, 3, 224, 224], parameters: { binary_data_size: image.length } };
    const { body, headers } = binaryBody({ inputs: [input] }, image);
    const { url } = await health(api);
    const sent = { method: 'POST', body, headers: { ...headers, ...by(api).headers } };
    const lost = Array.from({ length: 10 }, () => call(`${url}/v2/models/a-slow/infer`, sent).catch(() => null));
    await eventually(() => expect(readRunning(join(server.dataDir, 'inference'))).toHaveLength(1));
    process.kill(hostPid() as number, 'SIGKILL');
    await Promise.all(lost);
    await eventually(async () => expect(await added('plus-1')).toBe(1));
    expect(await added('a-slow')).toBe(503);
    expect(await health(api)).toMatchObject({ state: expect.toBeOneOf(['RESTARTING', 'DEGRADED']) });
    await eventually(async () => expect(await health(api)).toMatchObject({ state: 'READY', reason: null }));
    await undeploy('a-slow');
  });

  test('a newer deploy takes the place of a revision that is still being loaded, and rollback goes to what has served', async () => {
    await deploy('newest', 'plus-1', { deadlineMs: 30_000 });
    await settled(api, 'newest');
    await deploy('newest', 'chain-300', { deadlineMs: 60_000 });
    await deploy('newest', 'plus-2', { deadlineMs: 30_000 });
    expect(await settled(api, 'newest')).toMatchObject({ active: { number: 3 }, loading: null });
    const { data } = await ask(api, '{ deployment(name: "newest") { revisions { number state } } }');
    expect(data.deployment.revisions).toEqual([
      { number: 3, state: 'ACTIVE' },
      { number: 2, state: 'RETIRED' },
      { number: 1, state: 'RETIRED' },
    ]);
    await mutate(api, 'rollback', { name: 'newest' }, 'deployment { name }');
    await settled(api, 'newest');
    expect(await added('newest')).toBe(1);
    await undeploy('newest');
  });

  test('what served and cannot be loaded for a while stays ACTIVE, is said to be missing, and comes back; the others serve', async () => {
    await isServed('plus-2');
    const { data } = await ask(api, 'query ($id: ID!) { node(id: $id) { ... on ModelVersion { sha256 } } }', { id: versions['plus-2'] });
    const file = blobOf(server.dataDir, data.node.sha256);
    renameSync(file, `${file}.away`);
    process.kill(hostPid() as number, 'SIGKILL');
    await eventually(async () =>
      expect(await health(api)).toMatchObject({ state: 'DEGRADED', reason: expect.stringContaining('plus-2/1 cannot be served: ENOENT') }),
    );
    expect(await (await fetch(`${server.url}/ready`)).json()).toEqual({ status: 'ready', inference: 'DEGRADED' });
    const { url } = await health(api);
    const ready = await fetch(`${url}/v2/health/ready`);
    expect([ready.status, await ready.json()]).toEqual([503, { error: '1 of 2 models are not loaded.' }]);
    expect([await added('plus-1'), await added('plus-2')]).toEqual([1, 503]);
    expect(await deploymentOf(api, 'plus-2')).toMatchObject({ active: { number: 1 }, revisions: [{ state: 'ACTIVE', reason: null }] });
    renameSync(`${file}.away`, file);
    await eventually(async () => expect(await added('plus-2')).toBe(2));
    await eventually(async () => expect(await health(api)).toMatchObject({ state: 'READY', reason: null }));
  });

  test('runs that do not end: health says so, the host is replaced, and the others serve again', async () => {
    await deployed(api, 'endless', versions.stubborn as string, { deadlineMs: 500 });
    const { url, restarts } = await health(api);
    const statuses: unknown[] = [];
    let asking: Promise<unknown>[] = [];
    const asked = () =>
      inferJson(url, 'endless', spinJson(1_000_000), by(api)).then(
        ({ status }) => statuses.push(status),
        ({ code }) => statuses.push(code),
      );
    await eventually(async () => {
      // What a slow machine cannot begin within its deadline is not run, and is answered as if it were.
      if (statuses.length === asking.length) asking = [...asking, asked(), asked()];
      expect(await health(api)).toMatchObject({ state: 'DEGRADED', reason: expect.stringContaining('past its deadline') });
    });
    expect((await fetch(`${url}/v2/health/ready`)).status).toBe(503);
    await Promise.all(asking);
    expect(statuses).toContain(504);
    expect(statuses.filter((status) => status !== 504 && status !== 429)).toEqual([]);
    await eventually(async () => expect(await health(api)).toMatchObject({ state: 'READY', restarts: restarts + 1 }));
    expect([await added('plus-1'), await added('plus-2')]).toEqual([1, 2]);
    // It has two deaths left.
    expect(await deploymentOf(api, 'endless')).toMatchObject({ active: { number: 1 } });
    await undeploy('endless');
  });

  test('a host that hangs is found out and replaced; what is deployed meanwhile serves', async () => {
    const pid = hostPid() as number;
    const { restarts } = await health(api);
    process.kill(pid, 'SIGSTOP');
    const asked = deploy('meanwhile', 'plus-2', { deadlineMs: 30_000 });
    await eventually(async () =>
      expect(await health(api)).toMatchObject({ state: 'DEGRADED', reason: expect.stringContaining('has not answered') }),
    );
    await asked;
    await eventually(async () => expect(await health(api)).toMatchObject({ state: 'READY', restarts: restarts + 1 }));
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
    expect(await settled(api, 'meanwhile')).toMatchObject({ active: { number: 1 } });
    expect([await added('plus-1'), await added('meanwhile')]).toEqual([1, 2]);
    // Nobody is to blame.
    expect(await deploymentOf(api, 'plus-1')).toMatchObject({ revisions: [{ state: 'ACTIVE' }] });
  });
});

test('a host that hangs does not keep the port from the next server', () =>
  withFolder(async (dataDir) => {
    const env = { WHETSTONE_DATA_DIR: dataDir, WHETSTONE_LOG_LEVEL: 'info' };
    await withServerProcess(env, async (child) => {
      const first: Api = { url: child.url, token: await client({ url: child.url } as TestServer, dataDir).admin() };
      await deployed(first, 'echo', await versionOf(first, 'plus-1'));
      const { port } = new URL((await health(first)).url);
      const pid = hostPid(child.pid) as number;
      process.kill(pid, 'SIGSTOP');
      child.kill('SIGKILL');
      await eventually(() => expect(() => process.kill(child.pid, 0)).toThrow('ESRCH'));
      expect(readFileSync(`/proc/${pid}/stat`, 'utf8')).toContain(') T ');
      await withServerProcess({ ...env, WHETSTONE_INFERENCE_PORT: port }, async (second) => {
        const { accessToken } = await client({ url: second.url } as TestServer, dataDir).login(adminName, adminPassword);
        const next: Api = { url: second.url, token: accessToken };
        await eventually(async () => expect(await health(next)).toMatchObject({ state: 'READY' }));
        expect(hostPid(second.pid)).not.toBe(pid);
        expect((await inferJson((await health(next)).url, 'echo', item(3), by(next))).json.outputs[0].data[0]).toBe(4);
      });
    });
  }));
