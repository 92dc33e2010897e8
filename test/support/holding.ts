/** Keeps what a host has been sent waiting, so that a test knows what is in its queue when the next run begins. */
import { Agent } from 'node:http';
import { expect, onTestFinished } from 'vitest';
import { eventually } from './eventually.ts';
import { call, inferJson, metric, spinJson } from './inference.ts';

/** Rounds of the model `spin` that take 50 ms on a fast machine. */
export const long = 10_000;
/** Clients that send long runs: enough that some of them wait while others send. */
const holders = 8;

/** Of a host with one permit that serves the model `spin` as `hold`, with priority 1. */
export function holding(url: () => string) {
  const runs = (model: string) => metric(url(), `whetstone_inference_runs_total{model="${model}"`);
  const ended = (model: string, outcome: string) =>
    metric(url(), `whetstone_inference_requests_total{model="${model}",version="1",outcome="${outcome}"}`);
  const dispatched = () => metric(url(), 'whetstone_inference_dispatched_runs');

  /** Requests that wait and runs that are dispatched, at one moment. */
  async function underWay(): Promise<number> {
    const text = (await call(`${url()}/metrics`)).body.toString();
    const numbers = text.matchAll(/^whetstone_inference_(?:queue_requests|dispatched_runs) (\d+)$/gm);
    return [...numbers].reduce((sum, [, number]) => sum + Number(number), 0);
  }

  /** Keeps everything else waiting until `release` is called: each client sends its next long run as soon as the last is answered. */
  async function hold(): Promise<{ queued: (count: number) => Promise<void>; release: () => void }> {
    const agent = new Agent({ maxSockets: holders });
    const leaving = new AbortController();
    const { signal } = leaving;
    const sending = async () => {
      while (!signal.aborted) await inferJson(url(), 'hold', spinJson(long), { agent, signal }).catch(() => {});
    };
    for (let n = 0; n < holders; n += 1) void sending();
    // There are never more: as many have all arrived, and none of the clients is between an answer and its next request.
    const queued = (count: number) => eventually(async () => expect(await underWay()).toBe(holders + count));
    const release = (): void => {
      leaving.abort();
      agent.destroy();
    };
    // A test that fails does not hold those after it.
    onTestFinished(release);
    await queued(0);
    return { queued, release };
  }

  return { hold, runs, ended, underWay, dispatched };
}
