/**
 * `node --expose-gc nativeMemory.ts FILE cycles|RUNS` writes bytes. With `cycles` it opens and closes the model 10,000 times: the growth of the process
 * for each of the last 5,000. Otherwise its peak of resident memory after so many runs at once.
 */
import { readFileSync } from 'node:fs';
import type { Tensor } from '../../src/engine/engine.ts';
import { engines } from '../../src/engine/engines.ts';

const [file, what] = process.argv.slice(2) as [string, string];
const open = await engines.ONNXRUNTIME_NATIVE.load();
const cycles = 10_000;
const input = new Map<string, Tensor>([['x', { datatype: 'FP32', shape: [1, 512], data: new Float32Array(512) }]]);

if (what === 'cycles') {
  let halfway = 0;
  for (let n = 1; n <= cycles; n += 1) {
    const session = await open(file, { intraOpThreads: 1 });
    await session.close();
    if (n === cycles / 2 || n === cycles) globalThis.gc?.();
    if (n === cycles / 2) halfway = process.memoryUsage.rss();
  }
  console.log((process.memoryUsage.rss() - halfway) / (cycles / 2));
} else {
  const session = await open(file, { intraOpThreads: 1 });
  for (let round = 0; round < 20; round += 1) await Promise.all(Array.from({ length: Number(what) }, () => session.run(input)));
  console.log(1024 * Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]));
}
