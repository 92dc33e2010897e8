import { rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parseHostConfig } from '../src/inference/config.ts';
import { startHost } from '../src/inference/host.ts';
import { createLog } from '../src/log.ts';
import { inferJson, spinJson, withModelFiles } from './support/inference.ts';
import { withChild } from './support/process.ts';

const identityJson = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }] };

test.each([1, 2])('with %i permits a model answers without a pause while another one is loaded, whose warm-up is long', async (permits) => {
  const models = ['identity', 'chain-300'].map((name) => ({ name, deadlineMs: 60_000 }));
  const { folder, settings } = await withModelFiles({ permits, models });
  const { models: configs, ...config } = parseHostConfig(settings, folder, 8);
  const [identity, chain] = configs as [(typeof configs)[number], (typeof configs)[number]];
  const host = await startHost({ ...config, models: [identity] }, createLog({ logLevel: 'silent' }));
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  let loading = true;
  const loaded = host.load('chain', chain).finally(() => {
    loading = false;
  });
  // On a thread that loads, a request comes between two runs of the warm-up only: that makes ten answers.
  let answers = 0;
  while (loading) {
    expect((await inferJson(host.url, 'identity', identityJson, { agent })).status).toBe(200);
    answers += 1;
  }
  await loaded;
  expect(answers).toBeGreaterThan(50);
  agent.destroy();
  await host.stop();
  rmSync(folder, { recursive: true });
});

test('a host by itself, a run in which does not end, says so in a line and ends with a signal', async () => {
  const { folder, settings } = await withModelFiles({ models: [{ name: 'stubborn', deadlineMs: 500 }] });
  const config = join(folder, 'models.json');
  writeFileSync(config, JSON.stringify(settings));
  await withChild(['src/inference/main.ts', '--config', config], {}, async (child) => {
    const { url } = JSON.parse(await child.line((line) => line.includes('"inference host is ready"')));
    expect((await inferJson(url, 'stubborn', spinJson(1_000_000))).status).toBe(504);
    expect(await child.exit).toEqual({ code: null, signal: 'SIGKILL' });
    const said = child.lines.filter((line) => line.includes('does not end')).map((line) => JSON.parse(line));
    expect(said).toMatchObject([{ level: 60, model: 'stubborn/1', reason: expect.stringMatching(/^A run did not end within \d+ s/) }]);
  });
  rmSync(folder, { recursive: true });
});

test('a host that has no room for a copy of the file serves it', async () => {
  const { folder, settings } = await withModelFiles({ models: [{ name: 'chain-1' }] });
  const config = join(folder, 'models.json');
  writeFileSync(config, JSON.stringify(settings));
  // No file may be larger than 4 KB; the model has 262.
  const args = ['-c', 'ulimit -f 8; exec "$@"', 'limited', process.execPath, 'src/inference/main.ts', '--config', config];
  await withChild(
    args,
    {},
    async (child) => {
      await child.line((line) => line.includes('"inference host is ready"'));
    },
    '/bin/sh',
  );
  rmSync(folder, { recursive: true });
});
