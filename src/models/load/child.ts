/**
 * Loads `model.onnx` of its working folder with the engine that will serve it, optimisations included (they compute what is
 * constant, which may never end: the caller limits this process), runs nothing, and writes one `Loaded` to file descriptor 3.
 */
import { writeSync } from 'node:fs';
import { env, InferenceSession } from 'onnxruntime-node';

/** What the engine found, or why it refused the file. */
export type Loaded = { engine: string; inputs: string[]; outputs: string[] } | { refused: string };

/** As the inspection cuts names. */
const cut = (name: string): string => [...name].slice(0, 200).join('');

async function load(): Promise<Loaded> {
  try {
    const { inputNames, outputNames } = await InferenceSession.create('model.onnx', {
      executionProviders: ['cpu'],
      intraOpNumThreads: 1,
      interOpNumThreads: 1,
    });
    return { engine: `onnxruntime ${env.versions.node}`, inputs: inputNames.map(cut), outputs: outputNames.map(cut) };
  } catch (error) {
    return { refused: String((error as Error).message) };
  }
}

writeSync(3, JSON.stringify(await load()));
// A session has threads of its own, which would keep the process.
process.exit();
