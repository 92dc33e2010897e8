/** A client that leaves at any point of its request gives back what the request held: the model can be unloaded. */

import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseHostConfig } from '../src/inference/config.ts';
import { type RunningHost, startHost } from '../src/inference/host.ts';
import { createLog } from '../src/log.ts';
import { eventually } from './support/eventually.ts';
import { call, inferJson, metric, spinJson, withModelFiles } from './support/inference.ts';

/** Answers with so many numbers. */
const swollen = 'swollen-262144';
let host: RunningHost;
let folder = '';
let config: ReturnType<typeof parseHostConfig>;
beforeAll(async () => {
  const made = await withModelFiles({
    models: ['hold', 'spin', 'identity', 'stubborn', swollen].map((name) => ({
      name,
      model: name === 'hold' ? 'spin' : name,
      deadlineMs: 60_000,
    })),
  });
  folder = made.folder;
  config = parseHostConfig(made.settings, folder, 8);
  host = await startHost(config, createLog({ logLevel: 'silent' }));
});
afterAll(async () => {
  await host.stop();
  rmSync(folder, { recursive: true });
});

const small = JSON.stringify({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1], data: [0] }] });
const rows = 20_000;
const large = JSON.stringify({ inputs: [{ name: 'x', datatype: 'FP32', shape: [rows, 4], data: new Array(4 * rows).fill(1.5) }] });
const request = (model: string, body: string, sent = body.length, headers = '') =>
  `POST /v2/models/${model}/infer HTTP/1.1\r\nHost: x\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body.slice(0, sent)}`;
const spin = (rounds: number) => request('spin', JSON.stringify(spinJson(rounds)));
const bodyBytes = () => metric(host.url, 'whetstone_inference_body_bytes');
const waiting = () => metric(host.url, 'whetstone_inference_queue_requests');
const dispatched = () => metric(host.url, 'whetstone_inference_dispatched_runs');
const runs = () => metric(host.url, `whetstone_inference_runs_total{model="${swollen}"`);
const answered = () => metric(host.url, `whetstone_inference_requests_total{model="${swollen}",version="1",outcome="ok"}`);

/** Some tenths of a second on any machine: what is to happen during such a run takes milliseconds. */
const long = 30_000;
/** So many runs of another model come first. */
const held = async (count: number) => {
  for (let n = 1; n <= count; n += 1) {
    inferJson(host.url, 'hold', spinJson(long)).catch(() => {});
    await eventually(async () => expect((await waiting()) + (await dispatched())).toBe(n));
  }
};
const reached = (reading: () => Promise<number>, value: number) => eventually(async () => expect(await reading()).toBe(value));

test.each<[point: string, model: string, text: string, before: number, there: (socket: Socket) => Promise<unknown>]>([
  // The answer is 100: the host waits for the body.
  ['its headers', 'identity', request('identity', large, 0, 'Expect: 100-continue\r\n'), 0, (socket) => once(socket, 'readable')],
  [
    'half of its body',
    'identity',
    request('identity', large, 50_000),
    0,
    () => eventually(async () => expect(await bodyBytes()).toBeGreaterThan(0)),
  ],
  ['the queue', 'spin', spin(10), 2, () => reached(waiting, 1)],
  ['its place behind a run', 'spin', spin(10), 1, () => reached(dispatched, 2)],
  ['its run', 'spin', spin(long), 0, () => reached(dispatched, 1)],
  [
    'the compression of its answer',
    swollen,
    request(swollen, small, small.length, 'Accept-Encoding: gzip\r\n'),
    0,
    () => eventually(async () => expect(await runs()).toBeGreaterThan(0)),
  ],
  [
    'its answer, which it does not read',
    swollen,
    request(swollen, small),
    0,
    () => eventually(async () => expect(await answered()).toBeGreaterThan(0)),
  ],
])('%s', async (_, name, text, before, there) => {
  const model = config.models.find((one) => one.name === name) as (typeof config.models)[number];
  const id = `${name}/1`;
  await held(before);
  const { hostname, port } = new URL(host.url);
  const socket = connect(Number(port), hostname);
  socket.write(text);
  await there(socket);
  socket.destroy();
  await host.unload(id);
  expect((await call(`${host.url}/metrics`)).body.toString()).not.toContain(`model="${name}"`);
  await reached(bodyBytes, 0);
  await eventually(async () => expect([await waiting(), await dispatched()]).toEqual([0, 0]));
  await host.load(id, model);
});

test('what a run still reads stays counted until it has ended, though its client has gone', async () => {
  const { hostname, port } = new URL(host.url);
  const socket = connect(Number(port), hostname);
  // One kernel, which takes a while and cannot be stopped.
  socket.write(request('stubborn', JSON.stringify(spinJson(20_000))));
  await reached(dispatched, 1);
  socket.destroy();
  const readings: number[] = [];
  await eventually(async () => {
    const text = (await call(`${host.url}/metrics`)).body.toString();
    const [bytes, runsLeft] = ['body_bytes', 'dispatched_runs'].map((name) =>
      Number(new RegExp(`^whetstone_inference_${name} (.+)`, 'm').exec(text)?.[1]),
    );
    if (runsLeft) readings.push(bytes as number);
    expect([bytes, runsLeft]).toEqual([0, 0]);
  });
  expect(readings.length).toBeGreaterThan(0);
  expect(readings).not.toContain(0);
});
