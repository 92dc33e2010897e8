/**
 * `npm run bench:api`: Whetstone's API beside a bare Yoga + Pothos + better-sqlite3 server that reads the same rows without accounts, in
 * one run, the arms taking turns. 1,000 finished jobs of 20 metric points each. Prints each ratio with its goal.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { hashPassword } from '../src/accounts/passwords.ts';
import { insertUser } from '../src/accounts/users.ts';
import { openDatabase } from '../src/db.ts';
import { job, jobEvent, metricPoint } from '../src/jobs/tables.ts';
import { median, percentile } from './load.ts';

const jobs = 1000;
const pointsPerJob = 20;
const roundMs = 3000;
const rounds = 3;
/** So many that one collection of garbage is not the P99. */
const eventsPerRound = 1000;
const password = 'a passphrase for the benchmark';

const dataDir = mkdtempSync(join(tmpdir(), 'whetstone-bench-'));
const idOf = (n: number) => `00000000-0000-7000-8000-${String(n).padStart(12, '0')}`;
const globalId = (id: string) => Buffer.from(`Job:${id}`).toString('base64url');

/** Each arm appends to a job of its own. */
const watchedJob = { product: idOf(jobs), bare: idOf(jobs + 1) };

async function fill(): Promise<void> {
  const { db, close } = openDatabase(dataDir);
  const passwordHash = await hashPassword(password);
  insertUser(db, { name: 'bench', passwordHash, role: 'ADMIN' });
  db.transaction((tx) => {
    for (let n = 0; n < jobs; n += 1) {
      const id = idOf(n);
      // Lately, or the server would clear their curves away meanwhile.
      const at = Date.now() - jobs + n;
      tx.insert(job)
        .values({
          id,
          kind: 'TRAIN',
          state: 'SUCCEEDED',
          specJson: {},
          slotsNeeded: 1,
          priority: 0,
          createdAt: at,
          endedAt: at,
          nextSeq: 2,
        })
        .run();
      tx.insert(jobEvent)
        .values({ jobId: id, seq: 1, attemptNumber: 0, at, type: 'STATE', payloadJson: { state: 'QUEUED' } })
        .run();
      for (let step = 0; step < pointsPerJob; step += 1) {
        tx.insert(metricPoint)
          .values({ jobId: id, name: 'val.loss', step, value: 1 / (step + 1), attemptNumber: 1 })
          .run();
      }
    }
    // CANCELLING without an attempt: the scheduler leaves it alone, and its subscribers wait.
    for (const id of Object.values(watchedJob)) {
      const values = { kind: 'TRAIN', state: 'CANCELLING', specJson: {}, slotsNeeded: 1, priority: 0, createdAt: 1, nextSeq: 2 } as const;
      tx.insert(job)
        .values({ id, ...values })
        .run();
      tx.insert(jobEvent)
        .values({ jobId: id, seq: 1, attemptNumber: 0, at: 1, type: 'STATE', payloadJson: { state: 'QUEUED' } })
        .run();
    }
  });
  close();
}

interface Arm {
  name: 'product' | 'bare';
  url: string;
  child: ChildProcess;
  startMs: number;
  token: string | undefined;
  /** Events that its job has told. */
  told: number;
}

async function start(name: Arm['name']): Promise<Arm> {
  const startedAt = performance.now();
  const script = join(import.meta.dirname, 'api.server.ts');
  const child = spawn(process.execPath, [script, name, dataDir, watchedJob[name]], { stdio: ['pipe', 'pipe', 'inherit'] });
  const [url] = await new Promise<string[]>((resolve, reject) => {
    createInterface({ input: child.stdout as NonNullable<typeof child.stdout> }).once('line', (line) => resolve([line]));
    child.once('exit', () => reject(new Error(`The ${name} server did not start.`)));
  });
  const arm: Arm = { name, url: url as string, child, startMs: 0, token: undefined, told: 0 };
  await post(arm, '{ __typename }');
  arm.startMs = performance.now() - startedAt;
  if (name === 'product') {
    const login = `mutation { login(input: {name: "bench", password: "${password}"}) { credentials { accessToken } } }`;
    arm.token = JSON.parse(await post(arm, login)).data.login.credentials.accessToken;
  }
  return arm;
}

const agent = new Agent({ keepAlive: true, maxSockets: 200 });

function post(arm: Arm, query: string): Promise<string> {
  const body = JSON.stringify({ query });
  return new Promise((resolve, reject) => {
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      ...(arm.token ? { authorization: `Bearer ${arm.token}` } : {}),
    };
    const req = request(`${arm.url}/graphql`, { method: 'POST', agent, headers }, (res) => {
      let text = '';
      res.setEncoding('utf8');
      res.on('data', (chunk: string) => {
        text += chunk;
      });
      res.on('end', () => (text.includes('"errors"') ? reject(new Error(text)) : resolve(text)));
    });
    req.on('error', reject).end(body);
  });
}

async function load(arm: Arm, query: string, connections: number): Promise<number> {
  const endAt = performance.now() + roundMs;
  let done = 0;
  const startedAt = performance.now();
  const one = async () => {
    while (performance.now() < endAt) {
      await post(arm, query);
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: connections }, one));
  return (1000 * done) / (performance.now() - startedAt);
}

const queries = {
  product: {
    'newest 20 jobs': '{ jobs(first: 20) { nodes { id kind state createdAt } } }',
    'one job with its points': `{ job(id: "${globalId(idOf(500))}") { id kind state createdAt metrics { name steps values } } }`,
  },
  bare: {
    'newest 20 jobs': '{ jobs(first: 20) { id kind state createdAt } }',
    'one job with its points': `{ job(id: "${idOf(500)}") { id kind state createdAt points { name step value } } }`,
  },
} as const;

/** Lets the server append an event to its job. */
function tellEvent(arm: Arm): void {
  arm.child.stdin?.write('\n');
  arm.told += 1;
}

/** Milliseconds from the request for an event to its arrival, over all subscribers and events. */
async function events(arm: Arm, subscribers: number): Promise<number[]> {
  const query =
    arm.name === 'product'
      ? `subscription { jobEvents(id: "${globalId(watchedJob.product)}", after: ${1 + arm.told}) { seq ... on JobWarningEvent { message } } }`
      : 'subscription { events { seq message } }';
  const latencies: number[] = [];
  let arrived = 0;
  let tell = () => {};
  const clients = Array.from({ length: subscribers }, () => {
    const client = createClient({
      url: `${arm.url.replace('http', 'ws')}/graphql`,
      webSocketImpl: WebSocket,
      connectionParams: arm.token ? { authorization: `Bearer ${arm.token}` } : {},
      lazy: false,
    });
    client.subscribe(
      { query },
      {
        next({ data }) {
          const { message } = Object.values(data ?? {})[0] as { message: string };
          latencies.push(performance.timeOrigin + performance.now() - Number(message));
          arrived += 1;
          tell();
        },
        error: (error) => {
          throw new Error(JSON.stringify(error));
        },
        complete: () => {},
      },
    );
    return client;
  });
  // A first event tells that everybody listens.
  const all = () =>
    new Promise<void>((resolve) => {
      tell = () => arrived >= subscribers && resolve();
      tell();
    });
  for (let listening = false; !listening; ) {
    arrived = 0;
    tellEvent(arm);
    listening = await Promise.race([all().then(() => true), new Promise<boolean>((resolve) => setTimeout(() => resolve(false), 300))]);
  }
  // Stragglers of those events are not measured.
  for (let before = -1; before !== arrived; await new Promise((resolve) => setTimeout(resolve, 300))) before = arrived;
  latencies.length = 0;
  for (let n = 0; n < eventsPerRound; n += 1) {
    arrived = 0;
    tellEvent(arm);
    await all();
  }
  await Promise.all(clients.map((client) => client.dispose()));
  return latencies.sort((a, b) => a - b);
}

const rssMb = ({ child }: Arm) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) / 1024;

function report(what: string, product: number, bareValue: number, unit: string, goal: string): void {
  const ratio = (product / bareValue).toFixed(2);
  console.log(
    `${what.padEnd(44)} ${product.toFixed(1).padStart(9)} ${bareValue.toFixed(1).padStart(9)} ${unit.padEnd(4)} ratio ${ratio}  (goal ${goal})`,
  );
}

await fill();
const product = await start('product');
const bare = await start('bare');
try {
  console.log(`${''.padEnd(44)} whetstone      bare`);
  report('start to first answer', product.startMs, bare.startMs, 'ms', '< 2000 ms');
  await new Promise((resolve) => setTimeout(resolve, 2000));
  report('idle memory', rssMb(product), rssMb(bare), 'MB', '< 200 MB');
  for (const what of ['newest 20 jobs', 'one job with its points'] as const) {
    for (const connections of [1, 100]) {
      const rates: Record<Arm['name'], number[]> = { product: [], bare: [] };
      for (let round = 0; round < rounds; round += 1) {
        for (const arm of [product, bare]) rates[arm.name].push(await load(arm, queries[arm.name][what], connections));
      }
      report(`${what}, ${connections} connections`, median(rates.product), median(rates.bare), '/s', '≥ 0.5');
    }
  }
  for (const subscribers of [1, 50]) {
    const [ours, theirs] = [await events(product, subscribers), await events(bare, subscribers)];
    report(`event to ${subscribers} subscribers, P50`, percentile(ours, 0.5), percentile(theirs, 0.5), 'ms', 'none');
    report(`event to ${subscribers} subscribers, P99`, percentile(ours, 0.99), percentile(theirs, 0.99), 'ms', '≤ 2');
  }
} finally {
  product.child.kill();
  bare.child.kill();
  rmSync(dataDir, { recursive: true, force: true });
}
process.exit();
