/** `node endNative.ts spin.onnx idle|running`: opens the model with the native engine and ends; `running` in the middle of a run that never would. */

import type { Tensor } from '../../src/engine/engine.ts';
import { engines } from '../../src/engine/engines.ts';

const [file, state] = process.argv.slice(2) as [string, string];
const open = await engines.ONNXRUNTIME_NATIVE.load();
const session = await open(file, { intraOpThreads: 2 });
const rounds = (count: bigint) => new Map<string, Tensor>([['rounds', { datatype: 'INT64', shape: [1], data: BigInt64Array.of(count) }]]);
await session.run(rounds(3n));
console.log(state);
if (state === 'running') {
  void session.run(rounds(2n ** 60n));
  process.exit();
}
