/**
 * `node --expose-gc nativeMemory.ts ENGINE FILE cycles|RUNS`. `cycles` opens and closes the model 10,000 times, and writes by how many bytes the
 * process grew for each of the last 5,000. Otherwise it writes the peak of resident bytes after so many runs at once.
 */
import { readFileSync } from 'node:fs';
import type { Tensor } from '../../src/engine/engine.ts';

const { startRuntime } = await import('../../src/engine/native.ts');
const [engine, file, what] = process.argv.slice(2) as ['ONNXRUNTIME_NATIVE' | 'OPENVINO', string, string];
const runs = what === 'cycles' ? 1 : Number(what);
const runtime = startRuntime({ threadsMax: runs });
const open = () => runtime.open(file, { engine, intraOpThreads: 1, runs });
const cycles = 10_000;
const input = new Map<string, Tensor>([['x', { datatype: 'FP32', shape: [1, 512], data: new Float32Array(512) }]]);

if (what === 'cycles') {
  let halfway = 0;
  for (let n = 1; n <= cycles; n += 1) {
    await (await open()).close();
    if (n === cycles / 2 || n === cycles) globalThis.gc?.();
    if (n === cycles / 2) halfway = process.memoryUsage.rss();
  }
  console.log((process.memoryUsage.rss() - halfway) / (cycles / 2));
} else {
  const session = await open();
  for (let round = 0; round < 20; round += 1) await Promise.all(Array.from({ length: runs }, () => session.run(input)));
  console.log(1024 * Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]));
}
