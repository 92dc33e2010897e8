/** A model of the configuration becomes one that is served: checked, loaded, warm. */
import { createHash } from 'node:crypto';
import { copyFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { planShapes } from '../benchmark/shapes.ts';
import { maskPaths } from '../jobs/maskPaths.ts';
import { type ModelConfig, modelKey } from './config.ts';
import { datatypes, elementsOf } from './datatypes.ts';
import type { Served } from './dispatcher.ts';
import type { Engine, Port, Signature } from './engine.ts';
import { hasExternalData } from './externalData.ts';
import { RunTimes } from './runTimes.ts';
import { ModelStats } from './stats.ts';

export interface ServedModel extends Served {
  config: ModelConfig;
  signature: Signature;
  /** Whether the first dimension of everything is the batch, so that requests can be computed together. */
  batched: boolean;
}

const warmupRounds = 4;
/** Bytes of a model's inputs: no request can have larger ones. */
const inputBytesMax = 2 ** 30;

/**
 * Loads a model into the engine and runs it on zeros on each of its `permits` threads. `folder`: a private one, which gets a copy of the file, so that what is loaded
 * is what was hashed and nothing lies beside it. Throws an Error that says why the model cannot be served.
 */
export async function loadModel(engine: Engine, config: ModelConfig, folder: string, permits: number): Promise<ServedModel> {
  const key = modelKey(config);
  try {
    const file = join(folder, `${config.name}-${config.version}.onnx`);
    await copyFile(config.file, file);
    const bytes = await readFile(file);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    if (sha256 !== config.sha256)
      throw new Error(`The file has the SHA-256 ${sha256}, not ${config.sha256}: it is not the one that was meant.`);
    if (hasExternalData(bytes)) throw new Error('It takes data from other files. Save it as one file, without external data.');
    const signature = await engine.load(key, file);
    const batched = [...signature.inputs, ...signature.outputs].every(({ shape }) => typeof shape[0] === 'string');
    if (config.batchMax > 1 && !batched)
      throw new Error('batchMax must be 1: not every input and output has a batch as its first dimension.');
    const model = { key, config, signature, batched, batchMax: config.batchMax, times: new RunTimes(), stats: new ModelStats() };
    for (const rows of new Set([1, config.batchMax])) await warmUp(engine, model, rows, permits);
    return model;
  } catch (error) {
    throw new Error(`${key} cannot be served: ${maskPaths((error as Error).message)}`);
  }
}

/** The first round is not counted: it takes memory and builds kernels. */
async function warmUp(engine: Engine, { key, config, signature, times }: ServedModel, rows: number, permits: number): Promise<void> {
  const planned = planShapes(signature.inputs, rows, config.dims);
  if ('problem' in planned) throw new Error(planned.problem.message);
  const sizes = signature.inputs.map(({ name, datatype }) => elementsOf(planned.shapes.get(name) as number[]) * datatypes[datatype].bytes);
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  if (bytes > inputBytesMax) throw new Error(`Its inputs have ${bytes} bytes for a batch of ${rows}; ${inputBytesMax} are possible.`);
  const feeds = signature.inputs.map(({ name, datatype }: Port) => {
    const shape = planned.shapes.get(name) as number[];
    return { name, datatype, shape, pieces: [new Uint8Array(elementsOf(shape) * datatypes[datatype].bytes)] };
  });
  const outputs = signature.outputs.map(({ name }) => name);
  for (let round = 0; round < warmupRounds; round += 1) {
    // One for each thread.
    const runs = Array.from({ length: permits }, () => engine.start(key, feeds, outputs));
    for (const { ended } of runs) {
      const end = await ended;
      if (end.state === 'failed') throw new Error(`It does not run: ${end.message}`);
      if (end.state === 'done' && round > 0) times.observe(rows, end.endedMs - end.startedMs);
    }
  }
}
