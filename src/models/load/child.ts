/**
 * Loads `model.onnx` of its working folder with the engine that will serve it, optimisations included (they compute what is
 * constant, which may never end: the caller limits this process) and writes one `Loaded` to file descriptor 3. It runs the model only on
 * `probe.safetensors`, where that is there: a foreign file is never run.
 */
import { existsSync, writeSync } from 'node:fs';
import { env, InferenceSession, Tensor } from 'onnxruntime-node';
import { largestDifference, readProbe } from '../probe.ts';
import type { Loaded } from './loaded.ts';

/** As the inspection cuts names. */
const cut = (name: string): string => [...name].slice(0, 200).join('');

async function repeatProbe(session: InferenceSession): Promise<(number | null)[]> {
  const { input, outputs } = readProbe('probe.safetensors');
  const results = await session.run({ [String(session.inputNames[0])]: new Tensor('float32', input.data, input.shape) });
  return outputs.map((output, n) => {
    const difference = largestDifference(results[String(session.outputNames[n])]?.data as Float32Array, output.data);
    return Number.isFinite(difference) ? difference : null;
  });
}

async function load(): Promise<Loaded> {
  try {
    const session = await InferenceSession.create('model.onnx', {
      executionProviders: ['cpu'],
      intraOpNumThreads: 1,
      interOpNumThreads: 1,
    });
    const { inputNames, outputNames } = session;
    return {
      engine: `onnxruntime ${env.versions.node}`,
      inputs: inputNames.map(cut),
      outputs: outputNames.map(cut),
      largestDifferences: existsSync('probe.safetensors') ? await repeatProbe(session) : [],
    };
  } catch (error) {
    return { refused: String((error as Error).message) };
  }
}

writeSync(3, JSON.stringify(await load()));
// A session has threads of its own, which would keep the process.
process.exit();
