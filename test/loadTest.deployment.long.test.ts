import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { by, deployed, health, item } from './support/deployments.ts';
import { inferJson, makeInferenceModels } from './support/inference.ts';
import type { TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { type Api, ask, jobWhen, modelVersionOf, mutate, succeeded } from './support/training.ts';

const models = mkdtempSync(join(tmpdir(), 'whetstone-models-'));
beforeAll(() => makeInferenceModels(models, ['identity']));
afterAll(() => rmSync(models, { recursive: true }));

const identityOf = (api: Api) => modelVersionOf(api, 'identity', join(models, 'identity.onnx'));
const start = async (api: Api, input: object): Promise<string> => (await mutate(api, 'startLoadTest', input, 'job { id }')).job.id;
const refusalsOf = async (api: Api, input: object) => {
  const query = 'mutation ($input: StartLoadTestInput!) { startLoadTest(input: $input) { job { id } userErrors { code field message } } }';
  return (await ask(api, query, { input })).data.startLoadTest.userErrors;
};
const fields = `revision modelVersion { id } deployment { name } deadlineMs secondsPerRate seed capacityPerSecond highestRate summary rates {
  rate offeredPerSecond answeredPerSecond requests answered overloaded unavailable expired failed notSent inDeadline meetsDeadline
  percentiles { percent kind ns } sendDelayP99Ms clientLate clientCores otherRequests
}`;

describe('a load test', () => {
  let server: TestServer;
  let api: Api;
  let version: string;
  withSharedServer((running) => {
    server = running;
  });
  beforeAll(async () => {
    api = { url: server.url, token: await server.as('ENGINEER') };
    version = await identityOf(api);
    await deployed(api, 'echo', version, { deadlineMs: 5000 });
  }, 120_000);

  test('drives a deployment at shares of its capacity, and tells what became of each request', async () => {
    const id = await start(api, { deployment: 'echo', secondsPerRate: 1, seed: 3 });
    const { result } = await succeeded(api, id);
    const { data } = await ask(
      api,
      `query ($id: ID!) { job(id: $id) { loadTest { ${fields} } } deployment(name: "echo") { loadTests { revision } } }`,
      { id },
    );
    const { loadTest } = data.job;
    expect(loadTest).toMatchObject({
      revision: 1,
      modelVersion: { id: version },
      deployment: { name: 'echo' },
      deadlineMs: 5000,
      secondsPerRate: 1,
      seed: 3,
      capacityPerSecond: result.capacityPerSecond,
      highestRate: result.highestRate,
    });
    expect(loadTest.capacityPerSecond).toBeGreaterThan(0);
    expect(loadTest.rates.map(({ rate }: { rate: number }) => rate / loadTest.capacityPerSecond)).toEqual(
      [0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.2].map((share) => expect.closeTo(share, 1)),
    );
    for (const one of loadTest.rates) {
      const { requests, answered, overloaded, unavailable, expired, failed, notSent } = one;
      expect(answered + overloaded + unavailable + expired + failed + notSent).toBe(requests);
      expect(one.percentiles.map(({ percent }: { percent: number }) => percent)).toEqual([50, 95, 99]);
      expect(one.otherRequests).toBe(0);
    }
    expect(loadTest.summary[0]).toMatch(/99 %/);
    expect(data.deployment.loadTests).toEqual([{ revision: 1 }]);

    const exported = async (format: string) => {
      const query =
        'query ($ids: [ID!]!, $format: ReportFormat!) { exportJobs(jobIds: $ids, format: $format) { fileName content sha256 } }';
      const { data, errors } = await ask(api, query, { ids: [id], format });
      expect(errors).toBeUndefined();
      return data.exportJobs;
    };
    const json = await exported('JSON');
    expect(json.fileName).toBe(`load-test-${json.sha256.slice(0, 12)}.json`);
    const facts = JSON.parse(json.content);
    expect(facts).toMatchObject({ kind: 'LOAD_TEST', deployment: 'echo', measured: { highestRate: loadTest.highestRate, seed: 3 } });
    expect(facts.measured.rates.map((one: { arrivals: number }) => one.arrivals)).toEqual(
      loadTest.rates.map(({ requests }: { requests: number }) => requests),
    );
    const lines = (await exported('CSV')).content.trimEnd().split('\r\n');
    expect(lines).toHaveLength(1 + loadTest.rates.length);
    expect(lines[0]).toMatch(/^rate,answeredPerSecond,.*,overloaded,.*,p99Ns,.*,clientLate,/);
    const markdown = (await exported('MARKDOWN')).content;
    for (const heading of ['Latency against throughput', 'What became of the requests', 'How it was measured']) {
      expect(markdown).toContain(`## ${heading}`);
    }
    const html = (await exported('HTML')).content;
    expect(html).toContain('<desc>The percentiles of the answered requests at each rate.');
    expect(html).toContain(json.sha256);
    for (const written of [markdown, html]) expect(written).not.toMatch(/undefined|NaN/);
  }, 120_000);

  test('of a deployment that answers others is refused until they are said to be able to wait; its own requests do not count', async () => {
    // The test before has sent requests within the last minutes.
    const own = await start(api, { deployment: 'echo', rates: [5], secondsPerRate: 1 });
    await succeeded(api, own);
    const { url } = await health(api);
    expect((await inferJson(url, 'echo', item(1), by(api))).status).toBe(200);
    expect(await refusalsOf(api, { deployment: 'echo', rates: [5] })).toEqual([
      { code: 'IN_USE', field: ['confirmServing'], message: expect.stringMatching(/^echo answered a request \d+ s ago/) },
    ]);
    await succeeded(api, await start(api, { deployment: 'echo', rates: [5], secondsPerRate: 1, confirmServing: true }));

    // Behind another job it waits, and meanwhile somebody begins to use the deployment.
    const measured = { modelVersionIds: [version], secondsMin: 60, secondsMax: 60 };
    const before = (await mutate(api, 'startBenchmark', measured, 'job { id }')).job.id;
    const waiting = await start(api, { deployment: 'echo', rates: [5], secondsPerRate: 1 });
    expect((await inferJson(url, 'echo', item(1), by(api))).status).toBe(200);
    await mutate(api, 'cancelJob', { jobId: before }, 'job { state }');
    const { failure } = await jobWhen(api, waiting, ({ state }) => state === 'FAILED');
    expect(failure).toMatchObject({ code: 'IN_USE', message: expect.stringMatching(/^echo answered a request/) });
  }, 120_000);

  test('is refused where it cannot be done, with the reason', async () => {
    const refused = async (input: object) => (await refusalsOf(api, { deployment: 'echo', confirmServing: true, ...input }))[0];
    expect(await refused({ deployment: 'nothing' })).toMatchObject({ code: 'NOT_FOUND', field: ['deployment'] });
    expect(await refused({ rates: Array.from({ length: 13 }, () => 1) })).toMatchObject({ code: 'INVALID', field: ['rates'] });
    expect(await refused({ rates: [0] })).toMatchObject({ code: 'INVALID', field: ['rates', '0'] });
    expect(await refused({ secondsPerRate: 61 })).toMatchObject({ code: 'INVALID', field: ['secondsPerRate'] });
    expect(await refused({ secondsPerRate: 60, deadlineMs: 60_000 })).toMatchObject({ code: 'LIMIT', field: ['secondsPerRate'] });
  });

  test('that is cancelled ends at once, and one whose model was replaced says so', async () => {
    const cancelled = await start(api, { deployment: 'echo', rates: [5], secondsPerRate: 60, confirmServing: true });
    await jobWhen(api, cancelled, ({ events }) => events.some(({ phase }: { phase?: string }) => phase === 'measurement'));
    await mutate(api, 'cancelJob', { jobId: cancelled }, 'job { state }');
    await jobWhen(api, cancelled, ({ state }) => state === 'CANCELLED');

    const replaced = await start(api, { deployment: 'echo', rates: [20], secondsPerRate: 60, confirmServing: true });
    await jobWhen(api, replaced, ({ events }) => events.some(({ phase }: { phase?: string }) => phase === 'measurement'));
    await deployed(api, 'echo', version);
    const { failure } = await jobWhen(api, replaced, ({ state }) => state === 'FAILED');
    expect(failure).toMatchObject({ code: 'DATA_INVALID', message: expect.stringContaining('echo has no version 1') });
  }, 120_000);
});
