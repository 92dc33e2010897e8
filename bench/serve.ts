/**
 * `npm run bench:serve`: the inference host beside its engine alone and beside a bare `node:http` server, in one run, the arms taking
 * turns. Requests carry an image of 224 × 224 as a binary tensor (602 KB) over 4 connections. Prints each ratio with its goal.
 * `-- --seconds 10` measures longer.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { nodeFlags } from '../src/inference/channel.ts';
import { binaryBody, metric, withModelFiles } from '../test/support/inference.ts';

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '3' }, rounds: { type: 'string', default: '3' } } });
const busyBefore = (loadavg()[0] as number) > 0.5;
const roundMs = 1000 * Number(values.seconds);
const rounds = Number(values.rounds);
const connections = 4;
const permits = Math.max(1, availableParallelism() - 1);
const goals: [ms: number, goal: number][] = [
  [2, 0.9],
  [12, 0.97],
  [100, 0.99],
];
const deadlineMs = 200;

const children: ChildProcess[] = [];
const folders: string[] = [];

/** A process and the lines that it prints. */
function start(...args: string[]): { child: ChildProcess; line: () => Promise<string> } {
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  children.push(child);
  const lines = createInterface({ input: child.stdout as NonNullable<typeof child.stdout> })[Symbol.asyncIterator]();
  return { child, line: async () => String((await lines.next()).value) };
}

const engineArm = start(join(import.meta.dirname, 'serve.arm.ts'), 'engine', String(permits));
async function engineRate(file: string, ms: number): Promise<number> {
  engineArm.child.stdin?.write(`${file} ${ms}\n`);
  return Number(await engineArm.line());
}

interface Reply {
  status: number;
  ms: number;
}

/** A connection that costs the machine as little as can be: bytes out, the status line and the length of the body in. */
class Client {
  readonly #socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #tell: (reply: Reply) => void = () => {};
  #sentAt = 0;
  busy = false;

  constructor(url: string) {
    const { hostname, port } = new URL(url);
    this.#socket = connect({ host: hostname, port: Number(port), noDelay: true });
    this.#socket.on('data', (bytes) => this.#read(bytes));
    this.#socket.on('error', () => {});
  }

  send(request: Buffer): Promise<Reply> {
    this.busy = true;
    this.#sentAt = performance.now();
    this.#socket.write(request);
    return new Promise((resolve) => {
      this.#tell = resolve;
    });
  }

  #read(bytes: Buffer): void {
    this.#received = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes]);
    const end = this.#received.indexOf('\r\n\r\n');
    if (end < 0) return;
    const head = this.#received.subarray(0, end).toString('latin1');
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1]);
    if (this.#received.length < end + 4 + length) return;
    this.#received = Buffer.alloc(0);
    this.busy = false;
    this.#tell({ status: Number(head.slice(9, 12)), ms: performance.now() - this.#sentAt });
  }

  close(): void {
    this.#socket.destroy();
  }
}

function requestBytes(path: string): Buffer {
  const tensor = new Uint8Array(4 * 3 * 224 * 224);
  const input = { name: 'image', datatype: 'FP32', shape: [1, 3, 224, 224], parameters: { binary_data_size: tensor.length } };
  const { body, headers } = binaryBody({ inputs: [input], parameters: { binary_data_output: true } }, tensor);
  const lines = Object.entries({ host: 'localhost', 'content-length': body.length, ...headers }).map(
    ([name, value]) => `${name}: ${value}`,
  );
  return Buffer.concat([Buffer.from(`POST ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`), body]);
}

/** Each connection sends the next request when it has its answer. */
async function closedLoop(url: string, path: string, count: number, ms: number): Promise<Reply[]> {
  const request = requestBytes(path);
  const clients = Array.from({ length: count }, () => new Client(url));
  const replies: Reply[] = [];
  const endAt = performance.now() + ms;
  await Promise.all(
    clients.map(async (client) => {
      while (performance.now() < endAt) replies.push(await client.send(request));
    }),
  );
  for (const client of clients) client.close();
  return replies;
}

/** Requests come at this rate, whatever becomes of those before. */
async function openLoop(url: string, path: string, perSecond: number, ms: number): Promise<Reply[]> {
  const request = requestBytes(path);
  const clients: Client[] = [];
  const replies: Promise<Reply>[] = [];
  const startedAt = performance.now();
  for (let elapsed = 0; elapsed < ms; elapsed = performance.now() - startedAt) {
    while (replies.length < (elapsed * perSecond) / 1000) {
      let client = clients.find(({ busy }) => !busy);
      if (!client) {
        client = new Client(url);
        clients.push(client);
      }
      replies.push(client.send(request));
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const all = await Promise.all(replies);
  for (const client of clients) client.close();
  return all;
}

const percentile = (sorted: number[], p: number): number => sorted[Math.max(0, Math.ceil(p * sorted.length) - 1)] ?? Number.NaN;
const median = (all: number[]): number =>
  percentile(
    all.toSorted((a, b) => a - b),
    0.5,
  );
const sortedMs = (replies: Reply[]): number[] => replies.map(({ ms }) => ms).sort((a, b) => a - b);
const rateOf = (replies: Reply[]): number => (1000 * replies.filter(({ status }) => status === 200).length) / roundMs;

function report(what: string, ours: number, theirs: number, unit: string, goal: string): void {
  const numbers = `${ours.toFixed(2).padStart(9)} ${theirs.toFixed(2).padStart(9)} ${unit.padEnd(4)}`;
  console.log(`${what.padEnd(46)} ${numbers} ratio ${(ours / theirs).toFixed(3)}  (goal ${goal})`);
}

/** Models that take about these times here: as many matrix products as they need. */
async function calibrated(): Promise<string[]> {
  const probe = await withModelFiles({ models: [{ name: 'chain-20' }, { name: 'chain-120' }] });
  folders.push(probe.folder);
  const msOf = async (name: string) => (1000 * permits) / (await engineRate(join(probe.folder, `${name}.onnx`), 1000));
  const [few, many] = [await msOf('chain-20'), await msOf('chain-120')];
  const each = (many - few) / 100;
  return goals.map(([ms]) => `chain-${Math.max(1, Math.round((ms - few) / each + 20))}`);
}

try {
  const names = await calibrated();
  const made = await withModelFiles({ permits, models: [...names, 'null'].map((name) => ({ name, deadlineMs: 60_000 })) });
  folders.push(made.folder);
  const config = join(made.folder, 'models.json');
  writeFileSync(config, JSON.stringify(made.settings));
  const host = start(...nodeFlags, join(import.meta.dirname, '..', 'src', 'inference', 'main.ts'), '--config', config);
  let line = '';
  while (!line.includes('"inference host is ready"')) line = await host.line();
  const { url } = JSON.parse(line) as { url: string };
  const bareUrl = await start(join(import.meta.dirname, 'serve.arm.ts'), 'bare').line();
  const pathOf = (name: string) => `/v2/models/${name}/infer`;

  console.log(
    `${cpus()[0]?.model}, ${availableParallelism()} cores, ${permits} permits of 1 thread, ${rounds} rounds of ${roundMs / 1000} s`,
  );
  if (busyBefore) console.log('The machine was busy with other work when this began: the ratios below say little.');
  console.log(`${''.padEnd(46)}      host     other`);
  const capacity = new Map<string, number>();
  for (const [i, name] of names.entries()) {
    const [ms, goal] = goals[i] as [number, number];
    const rates = { host: [] as number[], engine: [] as number[] };
    for (let round = 0; round <= rounds; round += 1) {
      const engine = await engineRate(join(made.folder, `${name}.onnx`), roundMs);
      const served = rateOf(await closedLoop(url, pathOf(name), connections * permits, roundMs));
      // The first round warms up.
      if (round > 0) rates.engine.push(engine) && rates.host.push(served);
    }
    capacity.set(name, median(rates.host));
    report(`model of about ${ms} ms, served ÷ engine alone`, median(rates.host), median(rates.engine), '/s', `≥ ${goal}`);
  }

  const latencies = { host: [] as Reply[], bare: [] as Reply[] };
  for (let round = 0; round <= rounds; round += 1) {
    const ours = await closedLoop(url, pathOf('null'), 1, roundMs);
    const theirs = await closedLoop(bareUrl, '/', 1, roundMs);
    if (round > 0) latencies.host.push(...ours) && latencies.bare.push(...theirs);
  }
  const [ours, theirs] = [sortedMs(latencies.host), sortedMs(latencies.bare)];
  report('null model, 602 KB, host ÷ bare server, P50', percentile(ours, 0.5), percentile(theirs, 0.5), 'ms', '≤ 1.3');
  report('null model, 602 KB, host ÷ bare server, P99', percentile(ours, 0.99), percentile(theirs, 0.99), 'ms', '≤ 2');

  const [, middle = ''] = names;
  const twice = 2 * (capacity.get(middle) ?? 0);
  host.child.kill('SIGTERM');
  await new Promise((resolve) => host.child.once('exit', resolve));
  const models = made.settings.models.map((model) => ({ ...model, deadlineMs }));
  writeFileSync(config, JSON.stringify({ ...made.settings, models }));
  const second = start(...nodeFlags, join(import.meta.dirname, '..', 'src', 'inference', 'main.ts'), '--config', config);
  for (line = ''; !line.includes('"inference host is ready"'); ) line = await second.line();
  const { url: strictUrl } = JSON.parse(line) as { url: string };
  const overload = await openLoop(strictUrl, pathOf(middle), twice, 3 * roundMs);
  const accepted = overload.filter(({ status }) => status === 200);
  const inTime = accepted.filter(({ ms }) => ms <= deadlineMs);
  report('twice the capacity: answers in time ÷ capacity', (1000 * inTime.length) / (3 * roundMs), twice / 2, '/s', '≥ 0.9');
  const byStatus = Object.entries(Object.groupBy(overload, ({ status }) => String(status)));
  console.log(`  statuses: ${byStatus.map(([status, replies]) => `${status} × ${replies?.length}`).join(', ')}`);
  const sorted = sortedMs(accepted);
  console.log(`  accepted: P50 ${percentile(sorted, 0.5).toFixed(0)} ms, P95 ${percentile(sorted, 0.95).toFixed(0)} ms (goal < 200)`);
  const after = sortedMs(await closedLoop(strictUrl, pathOf(middle), 1, 1000));
  console.log(
    `  right after: P50 ${percentile(after, 0.5).toFixed(1)} ms; waiting ${await metric(strictUrl, 'whetstone_inference_queue_requests')}`,
  );
} finally {
  for (const child of children) child.kill();
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}
process.exit();
