/**
 * Loads `model.onnx` of its working folder with the engine that will serve it, optimisations included (they compute what is
 * constant, which may never end: the caller limits this process) and writes one `LoadResult` to file descriptor 3. It runs the model only on
 * `probe.safetensors`, where that is there: a foreign file is never run.
 */
import { existsSync, writeSync } from 'node:fs';
import type { EngineSession } from '../../engine/engine.ts';
import { engines, servingEngine } from '../../engine/engines.ts';
import { largestDifference, readProbe } from '../probe.ts';
import type { LoadResult } from './loaded.ts';

/** As the inspection cuts names. */
const cut = (name: string): string => [...name].slice(0, 200).join('');

async function repeatProbe({ signature, run }: EngineSession): Promise<(number | null)[]> {
  const { input, outputs } = readProbe('probe.safetensors');
  const { outputs: results } = await run(new Map([[String(signature.inputs[0]?.name), { datatype: 'FP32', ...input }]]));
  return outputs.map((output, n) => {
    const found = results.get(String(signature.outputs[n]?.name));
    const difference = largestDifference(found?.data as Float32Array, output.data);
    return Number.isFinite(difference) ? difference : null;
  });
}

async function load(): Promise<LoadResult> {
  const engine = engines[servingEngine];
  const open = await engine.load();
  try {
    const session = await open('model.onnx', { intraOpThreads: 1 });
    const { inputs, outputs } = session.signature;
    return {
      engine: engine.version,
      inputs: inputs.map(({ name }) => cut(name)),
      outputs: outputs.map(({ name }) => cut(name)),
      largestDifferences: existsSync('probe.safetensors') ? await repeatProbe(session) : [],
    };
  } catch (error) {
    return { refused: String((error as Error).message) };
  }
}

writeSync(3, JSON.stringify(await load()));
// A session has threads of its own, which would keep the process.
process.exit();
