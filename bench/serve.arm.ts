/**
 * The arms beside the host in `bench/serve.ts`. `engine`: for each line `<file> <ms>` on stdin it runs the model for so long, as many at
 * a time as `permits` says, with so many threads each, and prints the runs in a second. `bare`: a server that reads a body and answers.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Feed } from '../src/inference/engine.ts';
import { startPool } from '../src/inference/ort/pool.ts';
import { createRunningFile } from '../src/inference/running.ts';

const [arm, permits = '1', threads = '1'] = process.argv.slice(2);

if (arm === 'bare') {
  const server = createServer((req, res) => {
    req.on('data', () => {});
    req.on('end', () => res.setHeader('content-length', '2').end('{}'));
  });
  server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
} else {
  const count = Number(permits);
  const folder = mkdtempSync(join(tmpdir(), 'whetstone-bench-'));
  const runningFile = createRunningFile(folder, count);
  const engine = startPool({ permits: count, workers: 2 * count, runningFile });
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  const loaded = new Set<string>();
  const shape = [1, 3, 224, 224];
  const feeds: Feed[] = [{ name: 'image', datatype: 'FP32', shape, pieces: [new Uint8Array(4 * 3 * 224 * 224)] }];
  for await (const line of createInterface({ input: process.stdin })) {
    const [file, ms] = line.split(' ') as [string, string];
    if (!loaded.has(file)) await engine.load(file, file, Number(threads));
    loaded.add(file);
    const startedAt = performance.now();
    let runs = 0;
    // One computes and one is ready behind it, so that the engine never waits.
    const stream = async () => {
      for (; performance.now() - startedAt < Number(ms); runs += 1) await engine.start(file, feeds, ['y']).ended;
    };
    await Promise.all(Array.from({ length: 2 * count }, stream));
    console.log((1000 * runs) / (performance.now() - startedAt));
  }
}
