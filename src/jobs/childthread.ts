/** The thread of a Node child that speaks with the server: see `childio.ts`. */
import { writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import type { ChildThreadData, Said, ToChildThread } from './childio.ts';
import type { Phase } from './protocol.ts';

const eventsFd = 3;
const heartbeatMs = 5000;
/** Characters of a line on stdin. */
const lineMax = 16 * 2 ** 20;

const { state, stateIndex, stops } = workerData as ChildThreadData;
const port = parentPort as MessagePort;
let envelope: Extract<ToChildThread, { envelope: unknown }>['envelope'] | undefined;
let phase: Phase = 'start';
let n = 0;

function say(event: Said): void {
  if (!envelope) return;
  n += 1;
  if (event.type === 'phase') phase = event.phase;
  const line = Buffer.from(`${JSON.stringify({ ...envelope, n, t: Date.now(), ...event })}\n`);
  try {
    for (let written = 0; written < line.length; ) written += writeSync(eventsFd, line, written);
  } catch {
    // The server has gone, though stdin may still be open: nobody would end this process.
    endGroup();
  }
}

function endGroup(): void {
  try {
    process.kill(-process.pid, 'SIGKILL');
  } catch {
    // Not started as the leader of a group.
    process.kill(process.pid, 'SIGKILL');
  }
}

const heartbeat = setInterval(
  () => say({ type: 'heartbeat', phase, step: Atomics.load(state, stateIndex.step), rssBytes: process.memoryUsage.rss() }),
  heartbeatMs,
);

const input = new Socket({ fd: 0, readable: true, writable: false }).setEncoding('utf8');
let rest = '';
let specified = false;
input.on('data', (chunk: string) => {
  const lines = (rest + chunk).split('\n');
  rest = lines.pop() as string;
  if (rest.length > lineMax) endGroup();
  for (const line of lines) {
    if (specified) Atomics.store(state, stateIndex.stop, Math.max(0, stops.indexOf(JSON.parse(line).command)));
    else port.postMessage(line);
    specified = true;
  }
});
input.on('error', endGroup).on('end', endGroup);

port.on('message', (message: ToChildThread) => {
  if ('envelope' in message) envelope = message.envelope;
  else if ('say' in message) say(message.say);
  else {
    clearInterval(heartbeat);
    input.removeListener('end', endGroup).destroy();
    port.close();
  }
});
