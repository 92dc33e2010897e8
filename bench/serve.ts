/**
 * `npm run bench:serve`: the inference host with each of its engines, beside ONNX Runtime alone (in Python) and a bare `node:http` server that reads
 * the same body. All take turns in one run. Requests carry an image of 224 × 224 as a binary tensor (602 KB) over 4 connections. Prints
 * each ratio with its goal. `-- --parts engine,null,overload` measures some of it, `-- --engines native,onnxruntime-node,openvino` some
 * engines, `-- --seconds 10` longer rounds.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import type { Engine } from '../src/engine/engine.ts';
import { engines } from '../src/engine/engines.ts';
import { permitsOf } from '../src/inference/config.ts';
import { postOf, type Reply } from '../src/loadTest/connection.ts';
import { trainerPython } from '../src/python.ts';
import { binaryBody, metric, type Settings, withModelFiles } from '../test/support/inference.ts';
import { type Listening, withHostProcess } from '../test/support/process.ts';
import { closedLoop, cpuMs, median, openLoop, percentile, sortedMs } from './load.ts';

const { values } = parseArgs({
  options: {
    parts: { type: 'string', default: 'engine,null,overload' },
    engines: { type: 'string', default: 'native,onnxruntime-node,openvino' },
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '3' },
    overloadSeconds: { type: 'string', default: '60' },
  },
});
const busyBefore = (loadavg()[0] as number) > 0.5;
const roundMs = 1000 * Number(values.seconds);
const rounds = Number(values.rounds);
const overloadMs = 1000 * Number(values.overloadSeconds);
const connections = 4;
const cores = availableParallelism();
const permits = permitsOf(cores, 1);
/** So HTTP and the clients, who would be on another machine, have a core. */
const permitsBeside = Math.max(1, cores - 1);
/** Served ÷ engine alone, and the native runtime with all cores ÷ onnxruntime-node. */
const goals: [ms: number, served: number, native: number | null][] = [
  [2, 0.9, 1.25],
  [12, 0.97, 1.1],
  [100, 0.99, null],
];
/** Of the overload: the model takes about 12 ms. */
const deadlineMs = 200;

/** By the names of their rows: the engine of the host, and that of its models. */
const hostEngines = {
  native: { host: 'ONNXRUNTIME_NATIVE', model: 'ONNXRUNTIME_NATIVE' },
  'onnxruntime-node': { host: 'ONNXRUNTIME_CPU', model: 'AUTO' },
  openvino: { host: 'ONNXRUNTIME_NATIVE', model: 'OPENVINO' },
} as const;
type Row = keyof typeof hostEngines;

const children: ChildProcess[] = [];
const folders: string[] = [];

/** A program of this folder beside the host, and the lines that it prints. */
function startArm(program: string, ...args: string[]): { child: ChildProcess; line: () => Promise<string> } {
  const interpreter = program.endsWith('.py') ? trainerPython : process.execPath;
  const child = spawn(interpreter, [join(import.meta.dirname, program), ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  children.push(child);
  const lines = createInterface({ input: child.stdout as NonNullable<typeof child.stdout> })[Symbol.asyncIterator]();
  return { child, line: async () => String((await lines.next()).value) };
}

/** Those that are asked for and here; the others are printed with the reason. */
async function rowsHere(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const row of values.engines.split(',') as Row[]) {
    if (!hostEngines[row]) throw new Error(`There is no engine ${row}. There are: ${Object.keys(hostEngines).join(', ')}.`);
    const { host, model } = hostEngines[row];
    const engine: Engine = engines[model === 'AUTO' ? host : model];
    const missing = await engine.missing('');
    if (missing === null) rows.push(row);
    else console.log(`${row} is left out. ${missing}`);
  }
  return rows;
}

/** With a host of each row that has the models of this configuration. */
async function withHosts(
  folder: string,
  { models, ...settings }: Settings,
  rows: readonly Row[],
  use: (hosts: Listening[]) => Promise<void>,
): Promise<void> {
  const [row, ...others] = rows;
  if (!row) return use([]);
  const { host: engine, model } = hostEngines[row];
  const config = join(folder, `${row}.json`);
  writeFileSync(config, JSON.stringify({ ...settings, engine, models: models.map((one) => ({ ...one, engine: model })) }));
  await withHostProcess(config, (host) => withHosts(folder, { models, ...settings }, others, (hosts) => use([host, ...hosts])));
}

/** ONNX Runtime in Python, without any of our code: with a core left, and in the two ways that take them all. */
const engineArms = [
  [permitsBeside, 1],
  [cores, 1],
  [1, cores],
].map(([runs, threads]) => ({
  says: `${runs} × ${threads} threads`,
  ...startArm('engine.py', String(runs), String(threads)),
}));
async function engineRate(file: string, ms: number, { child, line } = engineArms[0] as (typeof engineArms)[number]): Promise<number> {
  child.stdin?.write(`${file} ${ms}\n`);
  return Number(await line());
}

function imageRequest(model: string, parameters = {}): Buffer {
  const tensor = new Uint8Array(4 * 3 * 224 * 224);
  const input = { name: 'image', datatype: 'FP32', shape: [1, 3, 224, 224], parameters: { binary_data_size: tensor.length } };
  const { body, headers } = binaryBody({ inputs: [input], parameters: { binary_data_output: true, ...parameters } }, tensor);
  return postOf(`/v2/models/${model}/infer`, headers, body);
}

const rateOf = (replies: Reply[], ms: number): number => (1000 * replies.filter(({ status }) => status === 200).length) / ms;
const residentMb = (pid: number): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;

function report(what: string, ours: number, theirs: number, unit: string, goal: string): void {
  const numbers = `${ours.toFixed(2).padStart(9)} ${theirs.toFixed(2).padStart(9)} ${unit.padEnd(4)}`;
  console.log(`${what.padEnd(62)} ${numbers} ratio ${(ours / theirs).toFixed(3)}  (goal ${goal})`);
}

/** Models that take about these times here: as many matrix products as they need. */
async function calibrated(): Promise<string[]> {
  const products = 120;
  const { folder } = await withModelFiles({ models: [{ name: `chain-${products}` }] });
  folders.push(folder);
  const rate = () => engineRate(join(folder, `chain-${products}.onnx`), 1000);
  // The first second warms up.
  await rate();
  const eachMs = (1000 * permitsBeside) / (await rate()) / products;
  return goals.map(([ms]) => `chain-${Math.max(1, Math.round(ms / eachMs))}`);
}

/** The median rate of each of `arms`, measured in turn; the first round warms up. */
async function medians(arms: (() => Promise<number>)[]): Promise<number[]> {
  const rates = arms.map(() => [] as number[]);
  for (let round = 0; round <= rounds; round += 1) {
    for (const [i, arm] of arms.entries()) {
      const rate = await arm();
      if (round > 0) rates[i]?.push(rate);
    }
  }
  return rates.map(median);
}

/** Hosts `leaving` a core, and hosts with as many permits as there are cores. */
async function besideEngine(rows: Row[], leaving: Listening[], all: Listening[], folder: string, names: string[]): Promise<void> {
  for (const [i, name] of names.entries()) {
    const [ms, goal, nativeGoal] = goals[i] as (typeof goals)[number];
    const served =
      ({ url }: Listening, runs: number) =>
      () =>
        servedRate(url, name, runs);
    const rates = await medians([
      ...leaving.map((host) => served(host, permitsBeside)),
      ...all.map((host) => served(host, permits)),
      ...engineArms.map((arm) => () => engineRate(join(folder, `${name}.onnx`), roundMs, arm)),
    ]);
    const alone = rates.slice(2 * rows.length);
    const best = Math.max(...alone);
    const { says } = engineArms[alone.indexOf(best)] as (typeof engineArms)[number];
    for (const [at, row] of rows.entries()) {
      const [beside, byAll] = [rates[at], rates[rows.length + at]] as [number, number];
      report(`${row}, model of about ${ms} ms, served ÷ engine alone`, beside, alone[0] as number, '/s', `≥ ${goal}`);
      report(`  ${permits} permits ÷ the machine's best, ${says}`, byAll, best, '/s', 'none');
      const node = rows.indexOf('onnxruntime-node');
      if (node >= 0 && node !== at)
        report(
          `  ${permits} permits ÷ those of onnxruntime-node`,
          byAll,
          rates[rows.length + node] as number,
          '/s',
          row === 'native' && nativeGoal ? `≥ ${nativeGoal}` : 'none',
        );
      await timeOf(row, all[at] as Listening, name, alone[0] as number, byAll);
    }
  }
}

/**
 * Where the processor's time of a request goes, and what a host that took none could answer on this machine: the clients are on it too, and
 * with all permits taken they and HTTP take the cores from the engine.
 */
async function timeOf(row: Row, { url, pid }: Listening, name: string, aloneRate: number, served: number): Promise<void> {
  const before = { host: cpuMs(pid), clients: process.cpuUsage() };
  const count = (await closedLoop(url, imageRequest(name), connections * permits, 3 * roundMs)).length;
  const engineMs = (1000 * permitsBeside) / aloneRate;
  const hostMs = (cpuMs(pid) - before.host) / count;
  const { user, system } = process.cpuUsage(before.clients);
  const clientsMs = (user + system) / 1000 / count;
  const rest = `${(hostMs - engineMs).toFixed(2)} ms the rest of the host, ${clientsMs.toFixed(2)} ms the clients`;
  console.log(`  ${row}, processor time of a request: ${engineMs.toFixed(2)} ms the engine alone, ${rest}`);
  report(`  ${permits} permits ÷ what a host without any cost could answer`, served, (1000 * cores) / (engineMs + clientsMs), '/s', 'none');
}

/** Processor time of the host for a refused request and for an answered one; the client sends the body of both. */
async function refusals(rows: Row[], hosts: Listening[], name: string): Promise<void> {
  for (const [i, row] of rows.entries()) {
    const { url, pid } = hosts[i] as Listening;
    const costOf = async (request: Buffer, status: number) => {
      const before = cpuMs(pid);
      const replies = await closedLoop(url, request, 1, roundMs);
      const others = replies.filter((reply) => reply.status !== status);
      if (others[0]) throw new Error(`Not ${status} but ${others[0].status}: ${others[0].text}`);
      return (cpuMs(pid) - before) / replies.length;
    };
    const answered = await costOf(imageRequest(name), 200);
    const refused = await costOf(imageRequest(name, { timeout: 1 }), 429);
    report(`${row}, model of about ${goals[0]?.[0]} ms, processor time: refusal ÷ answer`, refused, answered, 'ms', '≤ 0.33');
  }
}

const servedRate = async (url: string, name: string, runs: number): Promise<number> =>
  rateOf(await closedLoop(url, imageRequest(name), connections * runs, roundMs), roundMs);

async function besideBareServer(rows: Row[], hosts: Listening[]): Promise<void> {
  const bare = startArm('bare.ts');
  const arms = [{ url: await bare.line(), pid: bare.child.pid as number }, ...hosts];
  const replies = arms.map(() => [] as Reply[]);
  const cpus = arms.map(() => 0);
  for (let round = 0; round <= rounds; round += 1) {
    for (const [i, { url, pid }] of arms.entries()) {
      const before = cpuMs(pid);
      const answered = await closedLoop(url, imageRequest('null'), 1, roundMs);
      if (round === 0) continue;
      replies[i]?.push(...answered);
      cpus[i] = (cpus[i] as number) + cpuMs(pid) - before;
    }
  }
  const [theirs, ...all] = replies.map(sortedMs) as [number[], ...number[][]];
  const [theirCpu, ...cpuOf] = cpus.map((ms, i) => ms / (replies[i] as Reply[]).length) as [number, ...number[]];
  for (const [i, row] of rows.entries()) {
    const ours = all[i] as number[];
    report(`${row}, null model, 602 KB, host ÷ bare server, P50`, percentile(ours, 0.5), percentile(theirs, 0.5), 'ms', '≤ 1.3');
    report(`${row}, null model, 602 KB, host ÷ bare server, P99`, percentile(ours, 0.99), percentile(theirs, 0.99), 'ms', '≤ 2');
    report(`${row}, null model, 602 KB, processor time of a request`, cpuOf[i] as number, theirCpu, 'ms', 'none');
  }
}

async function overload(row: Row, { url, pid }: Listening, name: string, runs: number): Promise<void> {
  const request = imageRequest(name);
  const aloneP50 = async () => percentile(sortedMs(await closedLoop(url, request, 1, 1000)), 0.5);
  await closedLoop(url, request, connections * runs, roundMs);
  const closedRate = async () => rateOf(await closedLoop(url, request, connections * runs, 2 * roundMs), 2 * roundMs);
  const first = await closedRate();
  const before = { p50: await aloneP50(), mb: residentMb(pid) };
  let peakMb = 0;
  const watch = setInterval(() => {
    peakMb = Math.max(peakMb, residentMb(pid));
  }, 500);
  const replies = await openLoop(url, request, 2 * first, overloadMs);
  clearInterval(watch);
  const after = [await aloneP50()];
  while (after.length < 5) after.push(await aloneP50());
  // The machine may have become faster or slower meanwhile.
  const capacity = (first + (await closedRate())) / 2;

  const accepted = replies.filter(({ status }) => status === 200);
  const inTime = accepted.filter(({ ms, inWindow }) => inWindow && ms <= deadlineMs);
  // With a permit for each core the clients take from what computes.
  const goal = runs < cores ? '≥ 0.95' : '≥ 0.9';
  report(`${row}, twice the capacity, ${runs} permits: in time ÷ capacity`, (1000 * inTime.length) / overloadMs, capacity, '/s', goal);
  const byStatus = Object.entries(Object.groupBy(replies, ({ status }) => String(status)));
  console.log(`  statuses: ${byStatus.map(([status, all]) => `${status} × ${all?.length}`).join(', ')} (goal: 200 and 429 only)`);
  const [p50, p95, p99] = [0.5, 0.95, 0.99].map((p) => percentile(sortedMs(accepted), p).toFixed(0));
  console.log(`  accepted: P50 ${p50} ms, P95 ${p95} ms (goal < 200), P99 ${p99} ms (goal < 500)`);
  console.log(`  resident memory: ${before.mb.toFixed(0)} MB before, ${peakMb.toFixed(0)} MB at most`);
  console.log(
    `  one connection: P50 ${before.p50.toFixed(1)} ms before; after, second by second: ${after.map((ms) => ms.toFixed(1)).join(', ')} ms`,
  );
  console.log(`  waiting when it was over: ${await metric(url, 'whetstone_inference_queue_requests')}`);
}

try {
  const parts = values.parts.split(',');
  const rows = await rowsHere();
  const names = await calibrated();
  console.log(
    `${cpus()[0]?.model}, ${cores} cores, ${permits} permits of 1 thread, ${rounds} rounds of ${roundMs / 1000} s, ${overloadMs / 1000} s of overload`,
  );
  if (busyBefore) console.log('The machine was busy with other work when this began: the ratios below say little.');
  console.log(`${''.padEnd(62)}      host     other`);
  const { folder, settings } = await withModelFiles({ permits, models: [...names, 'null'].map((name) => ({ name, deadlineMs: 60_000 })) });
  folders.push(folder);
  await withHosts(folder, settings, rows, async (all) => {
    const leave = (leaving: Listening[]) => besideEngine(rows, leaving, all, folder, names);
    if (parts.includes('engine')) await withHosts(folder, { ...settings, permits: permitsBeside }, rows, leave);
    if (parts.includes('null')) {
      await besideBareServer(rows, all);
      await refusals(rows, all, names[0] as string);
    }
  });
  if (parts.includes('overload')) {
    const strict = { ...settings, models: settings.models.map((model) => ({ ...model, deadlineMs })) };
    for (const runs of new Set([permitsBeside, permits])) {
      for (const row of rows) {
        await withHosts(folder, { ...strict, permits: runs }, [row], ([host]) =>
          overload(row, host as Listening, names[1] as string, runs),
        );
      }
    }
  }
} finally {
  for (const child of children) child.kill();
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}
process.exit();
