/**
 * `npm run bench:tui`: the terminal UI on a terminal of its own (`script`, 80 × 24), with a server of scripted jobs. Prints beside their goals: the
 * time to the first screen, the memory, and the time from a key to its frame in lists of 1,000 jobs and 10,000 log lines. Then a job ends ten epochs
 * a second for a minute: bytes to the terminal and processor time.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs, stripVTControlCharacters } from 'node:util';
import { eq } from 'drizzle-orm';
import { inTransaction, openDatabase } from '../src/db.ts';
import { job } from '../src/jobs/tables.ts';
import type { Step } from '../test/support/child.ts';
import { submit, withJobServer } from '../test/support/jobs.ts';
import { cpuMs } from './load.ts';

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '60' }, keys: { type: 'string', default: '200' } } });
const [seconds, keys] = [Number(values.seconds), Number(values.keys)];
const updatesPerSecond = 10;
const folder = mkdtempSync(join(tmpdir(), 'whetstone-bench-'));
const root = join(import.meta.dirname, '..');
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: { tui: string } };

const mebibytesOf = (pid: number, what: 'VmRSS' | 'VmHWM'): number =>
  Number(new RegExp(`^${what}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;

interface Pty {
  pid: number;
  /** Everything that was written to the terminal. */
  bytes(): number;
  /** Waits for a text in what is written from now on. */
  shows(text: string): Promise<void>;
  type(text: string): void;
  /** Milliseconds from a key to the first byte of the frame that it changes. */
  frame(key: string): Promise<number>;
  end(): Promise<void>;
}

function open(args: string[]): Pty {
  const pidFile = join(folder, 'pid');
  const command = `echo $$ > '${pidFile}'; stty cols 80 rows 24; ${scripts.tui} ${args.join(' ')}`;
  const PATH = `${dirname(process.execPath)}${delimiter}${process.env.PATH}`;
  const settings = { PATH, TERM: 'xterm-256color', COLORTERM: 'truecolor', LANG: 'C.UTF-8', XDG_CONFIG_HOME: folder };
  const child = spawn('script', ['-qec', command, '/dev/null'], { cwd: root, env: settings, stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  let count = 0;
  let text = '';
  const watchers = new Set<() => void>();
  child.stdout.on('data', (chunk: Buffer) => {
    count += chunk.length;
    text = (text + chunk.toString()).slice(-100_000);
    for (const watcher of watchers) watcher();
  });
  /** Resolves when `condition` holds after something was written. */
  const when = (condition: () => boolean) =>
    new Promise<void>((resolve) => {
      const look = () => {
        if (!condition()) return;
        watchers.delete(look);
        resolve();
      };
      watchers.add(look);
      look();
    });
  return {
    get pid() {
      return Number(readFileSync(pidFile, 'utf8'));
    },
    bytes: () => count,
    async shows(wanted) {
      const late = setTimeout(() => {
        console.error(`The terminal has no ${wanted}:\n${stripVTControlCharacters(text).slice(-3000)}`);
        process.exit(1);
      }, 60_000);
      await when(() => stripVTControlCharacters(text).includes(wanted));
      clearTimeout(late);
      text = '';
    },
    type: (typed) => void child.stdin.write(typed),
    async frame(key) {
      const before = count;
      const startedAt = performance.now();
      child.stdin.write(key);
      await when(() => count > before);
      return performance.now() - startedAt;
    },
    async end() {
      child.stdin.write('q');
      await ended;
    },
  };
}

const p95 = (measured: number[]): number => measured.toSorted((a, b) => a - b)[Math.ceil(0.95 * measured.length) - 1] as number;

function report(what: string, value: string, goal: string): void {
  console.log(`${what.padEnd(52)} ${value.padStart(12)}  (${goal})`);
}

/** Moves up and down, a key after the other's frame. */
async function scroll(terminal: Pty, what: string, down: string, up: string): Promise<void> {
  const measured: number[] = [];
  const cpuBefore = cpuMs(terminal.pid);
  for (let i = 0; i < keys; i += 1) {
    measured.push(await terminal.frame(Math.floor(i / 20) % 2 === 0 ? down : up));
    // The rest of the frame, and what comes by itself.
    await delay(50);
  }
  report(`${what}: P95 of key to frame`, `${p95(measured).toFixed(1)} ms`, 'goal < 50 ms');
  report(`${what}: processor time of a key`, `${((cpuMs(terminal.pid) - cpuBefore) / keys).toFixed(1)} ms`, 'stated');
}

function fill(): void {
  const { db, close } = openDatabase(join(folder, 'data'));
  inTransaction(db, (tx) => {
    for (let i = 0; i < 1000; i += 1) {
      const { id } = submit(tx as never, { steps: [] });
      // Rows that differ: a frame that scrolled over equal ones would be the same.
      const specJson = { steps: [], fileName: `model-${i}.onnx` };
      tx.update(job).set({ specJson, state: 'SUCCEEDED', startedAt: Date.now(), endedAt: Date.now() }).where(eq(job.id, id)).run();
    }
  });
  // The job ends its next epoch whenever a file appears.
  const epochs = Array.from({ length: seconds * updatesPerSecond }, (_, i): Step[] => [{ epoch: i + 1 }, { wait: `epoch ${i + 1}` }]);
  submit(db, { folder, steps: ['hello', { print: 'line', lines: 10_000 }, { wait: 'start' }, ...epochs.flat(), { wait: 'seen' }, 'ok'] });
  close();
}

async function bootstrap(url: string): Promise<string> {
  const ask = async (query: string, input: object) => {
    const body = JSON.stringify({ query, variables: { input } });
    const answer = await fetch(`${url}/graphql`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    return ((await answer.json()) as { data: Record<string, { credentials?: { accessToken: string } }> }).data;
  };
  const token = readFileSync(join(folder, 'data', 'bootstrap-token'), 'utf8').trim();
  const account = { name: 'bench', password: 'a passphrase for the benchmark' };
  await ask('mutation ($input: BootstrapInput!) { bootstrap(input: $input) { user { name } } }', { token, ...account });
  return account.password;
}

console.log(`Load of the machine before: ${loadavg()[0]?.toFixed(1)} on ${availableParallelism()} cores.`);
try {
  fill();
  await withJobServer(join(folder, 'data'), async ({ url }) => {
    const password = await bootstrap(url);
    // The first start bundles, and logs in.
    const first = open(['jobs', '--url', url]);
    await first.shows('Log in to');
    first.type(`bench\r${password}\r`);
    await first.shows('RUNNING');
    await first.end();

    const starts: number[] = [];
    for (let i = 0; i < 5; i += 1) {
      const startedAt = performance.now();
      const terminal = open(['jobs', '--url', url]);
      await terminal.shows('RUNNING');
      starts.push(performance.now() - startedAt);
      await terminal.end();
    }
    report('start to the first screen, the slowest of 5', `${Math.max(...starts).toFixed(0)} ms`, 'goal < 1000 ms');

    const terminal = open(['jobs', '--url', url]);
    await terminal.shows('RUNNING');
    await delay(5000);
    report('memory on the list of jobs', `${mebibytesOf(terminal.pid, 'VmRSS').toFixed(0)} MiB`, 'goal < 150 MiB');
    // To its end, page after page, so that all of them are there.
    for (let i = 0; i < 40; i += 1) {
      terminal.type('G');
      await delay(100);
    }
    await scroll(terminal, '1,000 jobs', 'k', 'j');
    terminal.type('g');
    await delay(500);
    terminal.type('\r');
    await terminal.shows('log');
    terminal.type('l');
    await terminal.shows('10000 lines');
    await scroll(terminal, '10,000 log lines', 'k', 'j');
    await scroll(terminal, '10,000 log lines by half a page', '\x15', '\x04');
    terminal.type('l');
    await terminal.shows('cancel');

    const [bytesBefore, cpuBefore] = [terminal.bytes(), cpuMs(terminal.pid)];
    writeFileSync(join(folder, 'start'), '');
    for (let i = 1; i <= seconds * updatesPerSecond; i += 1) {
      await delay(1000 / updatesPerSecond);
      writeFileSync(join(folder, `epoch ${i}`), '');
    }
    const bytes = (terminal.bytes() - bytesBefore) / seconds;
    const cpu = (cpuMs(terminal.pid) - cpuBefore) / seconds / 10;
    report(`10 updates a second, ${seconds} s: bytes to the terminal`, `${bytes.toFixed(0)} B/s`, 'stated');
    report(`10 updates a second, ${seconds} s: processor time`, `${cpu.toFixed(1)} %`, 'stated, of one core');
    report('memory after all of this', `${mebibytesOf(terminal.pid, 'VmRSS').toFixed(0)} MiB`, 'goal < 150 MiB');
    report('memory, the most', `${mebibytesOf(terminal.pid, 'VmHWM').toFixed(0)} MiB`, 'stated');
    await terminal.end();
    writeFileSync(join(folder, 'seen'), '');
  });
} finally {
  rmSync(folder, { recursive: true, force: true });
}
