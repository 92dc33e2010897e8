/**
 * `node measureEngines.ts MODEL.onnx PROBE PRECISION FOLDER` opens the model in each engine that is here, and runs it with the inputs of the probe
 * set. It prints JSON by the engine's name: how far the outputs are from those in the set, and what is wrong with them.
 */
import { type EngineName, engines } from '../../src/engine/engines.ts';
import { gateFailures } from '../../src/models/gate.ts';
import { measureModel } from './benchmarkChild.ts';

const [file, probe, precision, folder] = process.argv.slice(2) as [string, string, 'FP32' | 'FP16' | 'INT8', string];
const names: EngineName[] = [];
for (const [name, { missing }] of Object.entries(engines))
  if ((await missing(process.env.PATH ?? '')) === null) names.push(name as EngineName);
const cells = await measureModel(folder, names, { file, probe, precision }, 64);
console.log(JSON.stringify(Object.fromEntries(names.map((name, n) => [name, judged(cells[n].telemetry.gate)]))));

function judged({ reference, inputs, outputs }: { reference: string; inputs: number; outputs: Parameters<typeof gateFailures>[0] }) {
  const share = Math.max(...outputs.map(({ largestDifference, tolerance }) => (largestDifference ?? Number.POSITIVE_INFINITY) / tolerance));
  return { reference, inputs, failures: gateFailures(outputs), ofTolerance: share };
}
