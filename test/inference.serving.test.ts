import { once } from 'node:events';
import { Agent } from 'node:http';
import { connect } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { eventually } from './support/eventually.ts';
import { holding, long } from './support/holding.ts';
import { inferJson, spinJson, withHost } from './support/inference.ts';

let url = '';
withHost(
  {
    queueRequestsMax: 600,
    models: [
      { name: 'spin', deadlineMs: 60_000 },
      // No other test uses it: 500 times one slow run in the past would be a miss that can be predicted.
      { name: 'left', model: 'spin', deadlineMs: 60_000 },
      { name: 'hold', model: 'spin', priority: 1, deadlineMs: 60_000 },
      { name: 'urgent', model: 'spin', priority: 1, deadlineMs: 60_000 },
      { name: 'short', model: 'spin', deadlineMs: 50 },
      { name: 'identity', deadlineMs: 60_000, batchMax: 8 },
      { name: 'lookup', deadlineMs: 60_000, batchMax: 8 },
      { name: 'picked', model: 'picked--1', deadlineMs: 60_000, batchMax: 8 },
    ],
  },
  (host) => {
    url = host.url;
  },
);

const { hold, runs, ended, underWay, dispatched } = holding(() => url);
const spin = (rounds: number, parameters = {}) => inferJson(url, 'spin', spinJson(rounds, parameters));

// Each test begins with an idle host.
afterEach(() => eventually(async () => expect(await underWay()).toBe(0)));

describe('deadlines', () => {
  test('a run that overruns its estimate: 504 is sent before it has ended', async () => {
    for (let n = 0; n < 3; n += 1) {
      const before = await runs('short');
      // So long that it has not ended when the answer has come and the runs are asked for. What a busy machine begins too late is 429, and not run.
      const got = await eventually(async () => {
        const answer = await inferJson(url, 'short', spinJson(5 * long));
        expect(answer.status).toBe(504);
        return answer;
      });
      expect(got.json.error).toContain('deadline');
      expect(await runs('short')).toBe(before);
      await eventually(async () => expect(await dispatched()).toBe(0));
    }
  });

  test('a miss that can be predicted is a 429 with Retry-After, at once', async () => {
    const { release } = await hold();
    const got = await spin(0, { timeout: 1000 });
    release();
    expect(got.status).toBe(429);
    expect(Number(got.headers['retry-after'])).toBeGreaterThanOrEqual(1);
  });

  test('and needs no tensor and no image', async () => {
    const { release } = await hold();
    const input = { name: 'rounds', datatype: 'INT64', shape: [1], parameters: { binary_data_size: 8 } };
    const json = JSON.stringify({ inputs: [input], parameters: { timeout: 1000 } });
    const { hostname, port } = new URL(url);
    for (const [path, headers, sent] of [
      ['spin/infer', `inference-header-content-length: ${json.length}\r\n`, json],
      ['short/predict', '', ''],
    ] as const) {
      const socket = connect(Number(port), hostname);
      socket.write(`POST /v2/models/${path} HTTP/1.1\r\nhost: x\r\n${headers}content-length: ${sent.length + 8}\r\n\r\n${sent}`);
      const [answer] = await once(socket, 'data');
      socket.destroy();
      expect(String(answer)).toMatch(/^HTTP\/1\.1 429 .*\r\nretry-after: \d+/s);
    }
    release();
  });

  test('the timeout of a request counts, in microseconds', async () => {
    expect((await spin(0, { timeout: 1 })).status).toBe(429);
    expect((await spin(0, { timeout: 20_000_000 })).status).toBe(200);
  });
});

test('a model with priority 1 overtakes a queue of 100 of another, and no request of that can say that it is as urgent', async () => {
  const { queued, release } = await hold();
  const order: number[] = [];
  const agent = new Agent({ maxSockets: 200 });
  const others = Array.from({ length: 100 }, (_, n) => inferJson(url, 'spin', spinJson(10), { agent }).then(() => order.push(n)));
  await queued(100);
  const pushing = inferJson(url, 'spin', spinJson(10, { priority: 1 }), { agent }).then(() => order.push(-2));
  await queued(101);
  const first = inferJson(url, 'urgent', spinJson(10), { agent }).then(() => order.push(-1));
  await queued(102);
  release();
  await Promise.all([first, pushing, ...others]);
  // A client may read two answers in another order than they were sent in.
  expect(order.indexOf(-1)).toBeLessThanOrEqual(1);
  expect(order.indexOf(-2)).toBeGreaterThan(50);
  agent.destroy();
});

test('500 clients that hang up cause no more runs than there are permits', async () => {
  const { queued, release } = await hold();
  const agent = new Agent({ maxSockets: 1000 });
  const leaving = new AbortController();
  const clients = Array.from({ length: 500 }, () => inferJson(url, 'left', spinJson(10), { agent, signal: leaving.signal }));
  await queued(500);
  leaving.abort();
  await Promise.allSettled(clients);
  // One may have been computed before the host saw that its client had left.
  await eventually(async () => expect((await ended('left', 'cancelled')) + (await ended('left', 'ok'))).toBe(500));
  release();
  await eventually(async () => expect(await dispatched()).toBe(0));
  expect(await runs('left')).toBeLessThanOrEqual(1);
  agent.destroy();
});

describe('batches', () => {
  test('what waits together is computed together, and each gets its own rows', async () => {
    const item = (n: number) => ({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [n, n + 0.25, -1, 7] }] });
    const before = await runs('identity');
    const { queued, release } = await hold();
    const asked = Array.from({ length: 32 }, (_, n) => inferJson(url, 'identity', item(n)));
    await queued(32);
    release();
    const got = await Promise.all(asked);
    expect(got.map(({ json }) => json.outputs[0].data)).toEqual(asked.map((_, n) => item(n).inputs[0]?.data));
    expect((await runs('identity')) - before).toBe(4);
  });

  test('one that the model fails on does not take its neighbours with it', async () => {
    const index = (n: number) => ({ inputs: [{ name: 'index', datatype: 'INT64', shape: [1], data: [n] }] });
    const { queued, release } = await hold();
    const asked = [0, 1, 9, 2, 0].map((n) => inferJson(url, 'lookup', index(n)));
    await queued(5);
    release();
    const got = await Promise.all(asked);
    expect(got.map(({ status }) => status)).toEqual([200, 200, 500, 200, 200]);
    expect(got[3]?.json.outputs[0].data).toEqual([5, 6]);
  });

  test('nobody gets what was found for another where the model finds more or fewer rows than it is given', async () => {
    const row = (data: number[]) => inferJson(url, 'picked', { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data }] });
    const before = await runs('picked');
    for (const round of [0, 1]) {
      const { queued, release } = await hold();
      const asked = [row([0, 1, 1, 0]), row([-2, 0, 0, 0]), row([-2, 0, 0, 1])];
      await queued(3);
      release();
      const found = (await Promise.all(asked)).map(({ json }) => [json.outputs[0].shape, json.outputs[0].data]);
      expect(found).toEqual([
        [
          [3, 2],
          [0, 0, 0, 1, 0, 2],
        ],
        [[0, 2], []],
        [
          [1, 2],
          [0, 3],
        ],
      ]);
      // A batch was tried once, and not again.
      expect((await runs('picked')) - before).toBe(4 + 3 * round);
    }
  });
});

test('5,000 requests with distinct payloads over 100 connections: no answer belongs to another', async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 100 });
  let next = 0;
  const wrong: number[] = [];
  const client = async () => {
    for (let n = next; n < 5000; n = next) {
      next += 1;
      const data = [n, 2 * n, -n, 1];
      const { status, json } = await inferJson(
        url,
        'identity',
        { id: `${n}`, inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data }] },
        { agent },
      );
      if (status !== 200 || json.id !== `${n}` || `${json.outputs[0].data}` !== `${data}`) wrong.push(n);
    }
  };
  await Promise.all(Array.from({ length: 100 }, client));
  expect(wrong).toEqual([]);
  agent.destroy();
});
