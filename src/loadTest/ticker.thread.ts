/**
 * Wakes the thread that sends, at each moment at which a request is due. Node's timers are late by up to a millisecond, and a loop that
 * looks at the clock takes a core from what is measured. A futex with a limit of time is late by a tenth of a millisecond.
 */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { nowMs } from '../inference/clock.ts';

/** Milliseconds from the start, ascending. */
export type TickerData = Float64Array;

const port = parentPort as MessagePort;
const nobody = new Int32Array(new SharedArrayBuffer(4));

port.once('message', (startMs: number) => {
  for (const due of workerData as TickerData) {
    for (let leftMs = startMs + due - nowMs(); leftMs > 0; leftMs = startMs + due - nowMs()) Atomics.wait(nobody, 0, 0, leftMs);
    port.postMessage(null);
  }
});
port.postMessage(null);
