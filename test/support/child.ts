/**
 * A child that speaks the protocol and does what its specification says, step by step: what the trainer and the importers do, and
 * what they must never do.
 */

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import type { Phase } from '../../src/jobs/protocol.ts';

export type Step = (
  | 'hello'
  | 'ok'
  /** An event without its envelope. */
  | { say: Record<string, unknown> }
  /** A line on fd 3 as it is. */
  | { raw: string }
  | { phase: Phase }
  /** An epoch and its checkpoint, unless the checkpoint that the attempt continues from has it. */
  | { epoch: number }
  /** Stands until the file exists, with heartbeats; when `moving` is set with progress instead, which may be described. */
  | { wait: string; moving?: true | Record<string, unknown> }
  | { write: string }
  /** Never ends. */
  | { hang: 'with heartbeats' | 'silent' }
  | { warnings: number; characters?: number }
  | { print: string; lines?: number; to?: 'stdout' | 'stderr' }
  /** Prints a variable of its environment. */
  | { show: string }
  /** A process that outlives the child's own end; `alone` has a process group of its own. */
  | { grandchild: 'in the group' | 'alone' }
  | { exit: number }
  | { signal: NodeJS.Signals }
) & { attempt?: number };

export interface Script {
  steps: Step[];
  /** What it does not obey: cancel and suspend, SIGTERM, the end of stdin. */
  ignores?: ('commands' | 'SIGTERM' | 'stdin')[];
  /** Files of `wait` and `write` lie here. */
  folder?: string;
  /** What the server waits for in its first attempt at finishing the job (see jobServer.ts). */
  finishWaits?: string;
}

interface Line {
  job: string;
  attempt: number;
  workDir: string;
  spec: Script & { resumeFrom: string | null };
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

let line: Line | undefined;
let n = 0;
let step = 0;
let phase: Phase = 'start';
let stopped: 'cancelled' | 'suspended' | null = null;

function raw(text: string): void {
  const bytes = Buffer.from(`${text}\n`);
  for (let written = 0; written < bytes.length; ) written += writeSync(3, bytes, written);
}

function say(event: Record<string, unknown>): void {
  n += 1;
  raw(JSON.stringify({ v: 1, job: line?.job, attempt: line?.attempt, n, t: Date.now(), ...event }));
}

const heartbeat = () => say({ type: 'heartbeat', phase, step, rssBytes: null });

function progress(about: true | Record<string, unknown>): void {
  step += 1;
  const nothing = { done: step, total: null, epoch: null, epochs: null, metrics: {}, itemsPerSecond: null, etaMs: null };
  say({ type: 'batch', phase, step, ...nothing, ...(about === true ? {} : about) });
}

function checkStop(): void {
  if (!stopped || line?.spec.ignores?.includes('commands')) return;
  say({ type: 'done', status: stopped, result: {} });
  process.exit(75);
}

async function run(todo: Step, { attempt, workDir, spec }: Line): Promise<void> {
  if (typeof todo === 'object' && todo.attempt !== undefined && todo.attempt !== attempt) return;
  if (todo === 'hello') {
    const device = { type: 'cpu', name: 'a processor', memoryBytes: null };
    say({ type: 'hello', pid: process.pid, device, versions: { node: process.version }, environment: { script: true }, resumed: null });
  } else if (todo === 'ok') {
    say({ type: 'done', status: 'ok', result: { attempt } });
    process.exit(0);
  } else if ('say' in todo) say(todo.say);
  else if ('raw' in todo) raw(todo.raw);
  else if ('phase' in todo) {
    phase = todo.phase;
    say({ type: 'phase', phase, total: null });
  } else if ('epoch' in todo) {
    const resumed = spec.resumeFrom ? JSON.parse(readFileSync(spec.resumeFrom, 'utf8')).epoch : 0;
    if (todo.epoch <= resumed) return;
    const metrics = { 'val.loss': 1 / todo.epoch };
    say({ type: 'epoch', epoch: todo.epoch, epochs: 9, step: todo.epoch * 10, metrics, best: true, durationMs: 1 });
    const file = `epoch-${todo.epoch}.json`;
    const text = JSON.stringify({ epoch: todo.epoch });
    writeFileSync(join(workDir, file), text, { flush: true });
    say({ type: 'checkpoint', file, sha256: sha256(text), sizeBytes: text.length, epoch: todo.epoch, batch: 0 });
  } else if ('wait' in todo) {
    while (!existsSync(join(spec.folder ?? workDir, todo.wait))) {
      if (todo.moving) progress(todo.moving);
      else heartbeat();
      await setTimeout(10);
      checkStop();
    }
  } else if ('write' in todo) writeFileSync(join(spec.folder ?? workDir, todo.write), '');
  else if ('hang' in todo) {
    for (;;) {
      if (todo.hang === 'with heartbeats') heartbeat();
      await setTimeout(10);
      checkStop();
    }
  } else if ('warnings' in todo) {
    for (let i = 1; i <= todo.warnings; i += 1)
      say({ type: 'warning', code: 'COUNTED', message: `warning ${i}`.padEnd(todo.characters ?? 0) });
  } else if ('print' in todo) {
    const stream = process[todo.to ?? 'stdout'];
    const text = Array.from({ length: todo.lines ?? 1 }, (_, i) => `${todo.print}${todo.lines ? ` ${i + 1}` : ''}\n`).join('');
    await new Promise((resolve) => stream.write(text, resolve));
  } else if ('show' in todo) console.log(process.env[todo.show] ?? 'is not set');
  else if ('grandchild' in todo) {
    const { pid } = spawn('sleep', ['1000'], { stdio: 'inherit', detached: todo.grandchild === 'alone' });
    say({ type: 'warning', code: 'GRANDCHILD', message: String(pid) });
  } else if ('exit' in todo) process.exit(todo.exit);
  else {
    process.kill(process.pid, todo.signal);
    await setTimeout(60_000);
  }
}

async function main(first: Line): Promise<void> {
  line = first;
  if (first.spec.ignores?.includes('SIGTERM')) process.on('SIGTERM', () => console.log('SIGTERM was ignored'));
  for (const todo of first.spec.steps) {
    checkStop();
    await run(todo, first);
  }
}

createInterface({ input: process.stdin })
  .on('line', (text) => {
    const read = JSON.parse(text);
    if (!line) main(read);
    else stopped = read.command === 'cancel' ? 'cancelled' : 'suspended';
  })
  .on('close', () => {
    if (!line?.spec.ignores?.includes('stdin')) process.kill(-process.pid, 'SIGKILL');
  });
