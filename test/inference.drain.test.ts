import { once } from 'node:events';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { stopUnderLoad } from './support/drain.ts';
import { eventually } from './support/eventually.ts';
import { call, metric, withModelFiles } from './support/inference.ts';
import { type Listening, withChild, withListening } from './support/process.ts';
import { withFolder } from './support/server.ts';

test.each([1, 2, 3])('SIGTERM under load, time %i: exit 0, and every request that had arrived gets its answer', stopUnderLoad);

test('a drain ends in time although somebody still uploads: that upload is cut off, and one that becomes whole is answered', async () => {
  const { folder, settings } = await withModelFiles({ models: [{ name: 'identity', deadlineMs: 60_000 }] });
  writeFileSync(join(folder, 'settings.json'), JSON.stringify(settings));
  const drainMs = 2000;
  const args = ['test/support/controlledHost.ts', folder, String(drainMs)];
  await withListening(args, {}, 'inference host is ready', async ({ url, kill, exit }) => {
    const upload = async (length: number) => {
      const socket = connect(Number(new URL(url).port), '127.0.0.1').on('error', () => {});
      socket.write(`POST /v2/models/identity/infer HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\n`);
      return socket;
    };
    const body = JSON.stringify({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }] });
    const [endless, whole] = [await upload(60 * 2 ** 20), await upload(body.length)];
    endless.write('{');
    whole.write(body.slice(0, 20));
    await eventually(async () => expect(await metric(url, 'whetstone_inference_body_bytes')).toBeGreaterThan(2 ** 20));
    const moving = setInterval(() => endless.write('x'.repeat(2000)), 20);
    const answered = once(whole, 'data');
    const cut = once(endless, 'close');
    kill('SIGTERM');
    const startedMs = performance.now();
    try {
      // It has begun to drain.
      await eventually(async () => expect((await call(`${url}/v2/health/ready`)).status).toBe(503));
      whole.write(body.slice(20));
      expect(String((await answered)[0])).toMatch(/^HTTP\/1.1 200 .*"data":\[1,2,3,4\]/s);
      await cut;
      expect(await exit).toEqual({ code: 0, signal: null });
      // Its last answers have a second to leave, and the port stays open for half a second. Otherwise it would be killed after 30.
      expect(performance.now() - startedMs).toBeLessThan(drainMs + 10_000);
    } finally {
      clearInterval(moving);
    }
  }).finally(() => rmSync(folder, { recursive: true }));
});

test('a wrong configuration ends the process with what is wrong, each on a line', () =>
  withFolder(async (folder) => {
    const broken = join(folder, 'broken.json');
    writeFileSync(broken, JSON.stringify({ prot: 8000, models: 3 }));
    await withChild(['src/inference/main.ts', '--config', broken], {}, async (child) => {
      expect(await child.exit).toEqual({ code: 1, signal: null });
      expect(child.lines).toEqual(expect.arrayContaining([expect.stringContaining('prot'), expect.stringContaining('models')]));
    });
  }));

test('a host that was killed leaves folders that the next one removes, and that one leaves none', async () => {
  const { folder, settings } = await withModelFiles({ models: [{ name: 'one', model: 'identity' }] });
  const config = join(folder, 'models.json');
  writeFileSync(config, JSON.stringify(settings));
  const temporary = join(folder, 'temporary');
  mkdirSync(temporary);
  const runHost = (use: (host: Listening) => Promise<void>) =>
    withListening(['src/inference/main.ts', '--config', config], { TMPDIR: temporary }, 'inference host is ready', use);
  const owners = () => new Set(readdirSync(temporary).map((name) => name.split('-')[2]));
  try {
    await runHost(async (killed) => {
      killed.kill('SIGKILL');
      await killed.exit;
      expect(owners()).toEqual(new Set([String(killed.pid)]));
    });
    await runHost(async (next) => {
      expect(owners()).toEqual(new Set([String(next.pid)]));
      next.kill('SIGTERM');
      expect(await next.exit).toEqual({ code: 0, signal: null });
    });
    expect(readdirSync(temporary)).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
