/** Keeps what a host has been sent waiting, so that a test knows what is in its queue when the next run begins. */
import { Agent } from 'node:http';
import { expect } from 'vitest';
import { eventually } from './eventually.ts';
import { inferJson, metric, spinJson } from './inference.ts';

/** Rounds of the model `spin` that take a hundred milliseconds or so on any machine. */
export const long = 10_000;
/** Requests that hold the permit one after the other. */
const held = 40;

/** Of a host with one permit that serves the model `spin` as `hold`, with priority 1. */
export function holding(url: () => string) {
  const runs = (model: string) => metric(url(), `whetstone_inference_runs_total{model="${model}"`);
  const ended = (model: string, outcome: string) =>
    metric(url(), `whetstone_inference_requests_total{model="${model}",version="1",outcome="${outcome}"}`);
  const waiting = () => metric(url(), 'whetstone_inference_queue_requests');
  const dispatched = () => metric(url(), 'whetstone_inference_dispatched_runs');

  /** Long runs of `hold`, one after the other, keep everything else waiting until the function that is returned is called. */
  async function hold(): Promise<{ queued: (count: number) => Promise<void>; release: () => void }> {
    const agent = new Agent({ maxSockets: held });
    const leaving = new AbortController();
    for (let n = 0; n < held; n += 1) {
      inferJson(url(), 'hold', spinJson(long), { agent, signal: leaving.signal }).catch(() => {});
    }
    const heldBack = async (count: number) => {
      const before = await ended('hold', 'ok');
      const total = (await waiting()) + (await dispatched());
      // Nothing has ended between the two readings.
      expect(await ended('hold', 'ok')).toBe(before);
      expect(total).toBe(held - (before - start) + count);
    };
    const start = await ended('hold', 'ok');
    await eventually(() => heldBack(0));
    return {
      queued: (count) => eventually(() => heldBack(count)),
      release() {
        leaving.abort();
        agent.destroy();
      },
    };
  }

  return { hold, runs, ended, waiting, dispatched };
}
