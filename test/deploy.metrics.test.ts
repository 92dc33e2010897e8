/** The metrics of a server and of an inference host, and whether dashboard and alerts ask for such that are there. */
import { describe, expect, test } from 'vitest';
import { announceJob } from '../src/jobs/enqueue.ts';
import { cancelJob } from '../src/jobs/moves.ts';
import { nextAnswer, withEvents } from './support/events.ts';
import { eventually } from './support/eventually.ts';
import { inferJson, metric, withHost } from './support/inference.ts';
import { nobody, submit } from './support/jobs.ts';
import { kindsOf, scripted } from './support/kinds.ts';
import { askedFor, expressions, samplesOf } from './support/prometheus.ts';
import type { TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';

let server: TestServer;
let host: string;
withSharedServer(
  (running) => {
    server = running;
  },
  {},
  kindsOf(scripted),
);
withHost({ models: [{ name: 'echo', model: 'identity' }] }, ({ url }) => {
  host = url;
});

const value = (start: string) => metric(server.url, start);
const textOf = async (url: string) => (await fetch(`${url}/metrics`)).text();
const item = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }] };

describe('the server', () => {
  test('times GraphQL by the root fields of the schema, whatever a client calls them', async () => {
    const count = (operation: string, field: string) =>
      value(`whetstone_graphql_operation_duration_seconds_count{operation="${operation}",field="${field}"}`);
    const token = await server.admin();
    await server.graphql(
      'query Mine { a: viewer { name } b: viewer { name } ...F __typename } fragment F on Query { system { version } }',
      {},
      token,
    );
    await server.graphql('{ nonsense }', {}, token);
    expect([await count('query', 'viewer'), await count('query', 'system'), await count('mutation', 'login')]).toEqual([1, 1, 1]);
    expect(await textOf(server.url)).not.toMatch(/nonsense|Mine|__typename/);
  });

  test('times HTTP by route and class of the status; paths without a route are one', async () => {
    const count = (route: string, status: string) =>
      value(`whetstone_http_request_duration_seconds_count{route="${route}",status="${status}"}`);
    const before = await count('/health', '2xx');
    for (const path of ['/health', '/no-such-path', '/neither-this']) await fetch(server.url + path);
    await eventually(async () => {
      expect([(await count('/health', '2xx')) - (before || 0), await count('none', '4xx')]).toEqual([1, 2]);
    });
  });

  test('does not count the life of an event stream as the time of a request', async () => {
    await withEvents(server.url, 'subscription { system { __typename } }', await server.admin(), (items) => nextAnswer(items));
    await fetch(`${server.url}/health`);
    expect(await textOf(server.url)).not.toMatch(/field="system".*operation="subscription"|operation="subscription"/);
  });

  test('times jobs by kind: their wait, and how long they took by how they ended', async () => {
    const { db, bus, jobKinds } = server.services;
    const job = submit(db, { kind: 'EVALUATE' });
    announceJob(bus, job);
    submit(db, { kind: 'CONVERT', steps: ['hello', { exit: 65 }] });
    await eventually(async () => {
      expect(await value('whetstone_job_queue_wait_seconds_count{kind="EVALUATE"}')).toBe(1);
      expect(await value('whetstone_job_duration_seconds_count{kind="EVALUATE",state="SUCCEEDED"}')).toBe(1);
      expect(await value('whetstone_job_duration_seconds_count{kind="CONVERT",state="FAILED"}')).toBe(1);
    });
    // What has not happened yet is 0, not missing: `increase()` does not see the first of a series.
    expect(await value('whetstone_job_duration_seconds_count{kind="TRAIN",state="FAILED"}')).toBe(0);

    expect(await value('whetstone_job_queue_oldest_seconds{kind="BENCHMARK"}')).toBe(0);
    const day = 86_400_000;
    const waiting = submit(db, { kind: 'BENCHMARK', priority: -1 });
    db.$client.prepare('UPDATE job SET createdAt = createdAt - ?, notBefore = ? WHERE id = ?').run(day, Date.now() + 60_000, waiting.id);
    expect(await value('whetstone_job_queue_oldest_seconds{kind="BENCHMARK"}')).toBeGreaterThanOrEqual(day / 1000);
    cancelJob(db, jobKinds, nobody, waiting.id);
    expect(await value('whetstone_job_queue_oldest_seconds{kind="BENCHMARK"}')).toBe(0);
  });

  test('says what the disk and the database take, and how late the event loop is', async () => {
    const names = ['disk_free', 'disk_size', 'database_size', 'database_wal_size'];
    const sizes = await Promise.all(names.map((name) => value(`whetstone_${name}_bytes`)));
    for (const size of sizes) expect(size).toBeGreaterThan(0);
    expect(await value('whetstone_ready')).toBe(1);
    await eventually(async () => expect(await value('nodejs_event_loop_delay_seconds_count')).toBeGreaterThan(0));
  });
});

test('the inference host times a request from its head to its answer, beside the four parts of it', async () => {
  expect((await inferJson(host, 'echo', item)).status).toBe(200);
  expect(await metric(host, 'whetstone_inference_request_duration_seconds_count{model="echo",version="1"}')).toBe(1);
  const parts = ['queue', 'preprocessing', 'compute', 'postprocessing'].map((part) =>
    metric(host, `whetstone_inference_seconds_sum{model="echo",version="1",part="${part}"}`),
  );
  const sum = (await Promise.all(parts)).reduce((all, one) => all + one, 0);
  expect(await metric(host, 'whetstone_inference_request_duration_seconds_sum')).toBeGreaterThanOrEqual(sum);
});

test('the dashboard and the alerts ask for metrics and labels that are there', async () => {
  await inferJson(host, 'echo', item);
  const samples = samplesOf(`${await textOf(server.url)}\n${await textOf(host)}`);
  // Prometheus itself adds these.
  samples.set('up', new Set());
  const added = ['job', 'instance'];
  const all = expressions();
  expect(all.length).toBeGreaterThan(40);
  for (const expression of all) {
    const { metrics, labels } = askedFor(expression);
    expect(metrics, expression).not.toEqual([]);
    for (const name of metrics) expect(samples.has(name), `${name} in ${expression}`).toBe(true);
    const known = metrics.flatMap((name) => [...(samples.get(name) as Set<string>)]);
    for (const label of labels) expect([...known, ...added], expression).toContain(label);
  }
});
