/**
 * `node --expose-gc engineMemory.ts ENGINE FILE cycles|closed|RUNS`. `cycles` opens and closes the model 10,000 times, and writes by how many bytes
 * the process grew for each of the last 5,000. `closed` opens it four times, closes all, and writes by how many bytes the process is larger than
 * before. Otherwise it writes the peak of resident bytes after so many runs of a native engine at once.
 */
import { readFileSync } from 'node:fs';
import type { Tensor } from '../../src/engine/engine.ts';
import { engines } from '../../src/engine/engines.ts';

const [engine, file, what] = process.argv.slice(2) as ['ONNXRUNTIME_NATIVE' | 'OPENVINO', string, string];

async function growthOfCycle(cycles: number): Promise<number> {
  const open = await engines[engine].load();
  let halfway = 0;
  for (let n = 1; n <= cycles; n += 1) {
    await (await open(file, { intraOpThreads: 1 })).close();
    // Between its own full collections V8 gathers 4 kB of garbage a cycle, and it keeps the pages of 30 MB afterwards.
    if (n % 100 === 0) globalThis.gc?.();
    if (n === cycles / 2) halfway = process.memoryUsage.rss();
  }
  return (process.memoryUsage.rss() - halfway) / (cycles / 2);
}

async function growthOfClosed(models: number): Promise<number> {
  const before = process.memoryUsage.rss();
  const open = await engines[engine].load();
  const opened = await Promise.all(Array.from({ length: models }, () => open(file, { intraOpThreads: 1 })));
  await Promise.all(opened.map((session) => session.close()));
  return process.memoryUsage.rss() - before;
}

async function peakOf(runs: number): Promise<number> {
  const { startRuntime } = await import('../../src/engine/native.ts');
  const session = await startRuntime({ threadsMax: runs }).open(file, { engine, intraOpThreads: 1, runs });
  const input = new Map<string, Tensor>([['x', { datatype: 'FP32', shape: [1, 512], data: new Float32Array(512) }]]);
  for (let round = 0; round < 20; round += 1) await Promise.all(Array.from({ length: runs }, () => session.run(input)));
  return 1024 * Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
}

if (what === 'cycles') console.log(await growthOfCycle(10_000));
else if (what === 'closed') console.log(await growthOfClosed(4));
else console.log(await peakOf(Number(what)));
