import { rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { join } from 'node:path';
import { expect } from 'vitest';
import { eventually } from './eventually.ts';
import { call, inferJson, metric, spinJson, withModelFiles } from './inference.ts';
import { withHostProcess } from './process.ts';

/** SIGTERM to a host process with 20 clients, which send until it answers that it is stopping. */
export async function stopUnderLoad(): Promise<void> {
  const { folder, settings } = await withModelFiles({ models: [{ name: 'spin', deadlineMs: 60_000 }] });
  const config = join(folder, 'models.json');
  writeFileSync(config, JSON.stringify(settings));
  await withHostProcess(config, async ({ url, kill, exit }) => {
    const agent = new Agent({ keepAlive: true, maxSockets: 20 });
    const seen = new Set<string>();
    let stopped = false;
    const clients = Array.from({ length: 20 }, async () => {
      while (!stopped) {
        const outcome = await inferJson(url, 'spin', spinJson(50), { agent }).then(
          ({ status }) => String(status),
          ({ code }) => String(code),
        );
        seen.add(outcome);
        stopped ||= outcome !== '200';
      }
    });
    await eventually(async () => expect(await metric(url, 'whetstone_inference_queue_requests')).toBeGreaterThan(5));
    kill('SIGTERM');
    await Promise.all(clients);
    // It is still there to say so.
    expect((await call(`${url}/v2/health/ready`)).status).toBe(503);
    expect((await call(`${url}/v2/health/live`)).status).toBe(200);
    expect(await exit).toEqual({ code: 0, signal: null });
    expect([...seen].sort()).toEqual(['200', '503']);
    agent.destroy();
  }).finally(() => rmSync(folder, { recursive: true }));
}
