import { expect, test } from 'vitest';
import { eventually } from './support/eventually.ts';
import { inferJson, metric, spinJson, withHost } from './support/inference.ts';

let url = '';
withHost({ models: [{ name: 'spin', deadlineMs: 50 }] }, (host) => {
  url = host.url;
});

test('a run that overruns its estimate: 504 is sent before it has ended, 100 of 100', async () => {
  const dispatched = () => metric(url, 'whetstone_inference_dispatched_runs');
  const runs = () => metric(url, 'whetstone_inference_runs_total{model="spin"');
  let early = 0;
  for (let n = 0; n < 100; n += 1) {
    const before = await runs();
    // A tenth of a second or more on any machine; the warm-up has told of runs of no time at all.
    const { status } = await inferJson(url, 'spin', spinJson(10_000));
    if (status === 504 && (await runs()) === before) early += 1;
    await eventually(async () => expect(await dispatched()).toBe(0));
  }
  expect(early).toBe(100);
});
