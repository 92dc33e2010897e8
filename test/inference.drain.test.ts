import { rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventually } from './support/eventually.ts';
import { call, inferJson, metric, spinJson, withModelFiles } from './support/inference.ts';
import { type Child, withChild } from './support/process.ts';

let config = '';
let folder = '';
beforeAll(async () => {
  const made = await withModelFiles({ models: [{ name: 'spin', deadlineMs: 60_000 }] });
  folder = made.folder;
  config = join(folder, 'models.json');
  writeFileSync(config, JSON.stringify(made.settings));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function withHostProcess(use: (url: string, child: Child) => Promise<void>): Promise<void> {
  await withChild(['src/inference/main.ts', '--config', config], {}, async (child) => {
    const ready = await child.line((line) => line.includes('"inference host is ready"'));
    await use(JSON.parse(ready).url, child);
  });
}

test.each([1, 2, 3])('SIGTERM under load, time %i: exit 0, and every request that had arrived gets its answer', async () => {
  await withHostProcess(async (url, child) => {
    const agent = new Agent({ keepAlive: true, maxSockets: 20 });
    const seen = new Map<string, number>();
    let stopped = false;
    // Clients that go on until they are told that the host is stopping.
    const clients = Array.from({ length: 20 }, async () => {
      while (!stopped) {
        const outcome = await inferJson(url, 'spin', spinJson(50), { agent }).then(
          ({ status }) => String(status),
          ({ code }) => String(code),
        );
        seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
        stopped ||= outcome !== '200';
      }
    });
    await eventually(async () => expect(await metric(url, 'whetstone_inference_queue_requests')).toBeGreaterThan(5));
    child.kill('SIGTERM');
    await Promise.all(clients);
    // It is still there to say so.
    expect((await call(`${url}/v2/health/ready`)).status).toBe(503);
    expect((await call(`${url}/v2/health/live`)).status).toBe(200);
    expect(await child.exit).toEqual({ code: 0, signal: null });
    expect([...seen.keys()].sort()).toEqual(['200', '503']);
    agent.destroy();
  });
});

test('a wrong configuration ends the process with what is wrong, each on a line', async () => {
  const broken = join(folder, 'broken.json');
  writeFileSync(broken, JSON.stringify({ prot: 8000, models: 3 }));
  await withChild(['src/inference/main.ts', '--config', broken], {}, async (child) => {
    expect(await child.exit).toEqual({ code: 1, signal: null });
    expect(child.lines).toEqual(expect.arrayContaining([expect.stringContaining('prot'), expect.stringContaining('models')]));
  });
});
