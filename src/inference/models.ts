/** A model of the configuration becomes one that is served: checked, loaded, warm. */
import { createHash } from 'node:crypto';
import { copyFile, readFile, rm } from 'node:fs/promises';
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
  /** Requests that hold it: it is not unloaded before they have their answers. */
  users: number;
}

const warmupRounds = 4;
/** Bytes of a model's inputs: no request can have larger ones. */
const inputBytesMax = 2 ** 30;

/**
 * Loads a model into the engine and runs it on zeros on each of its threads. `folder`: a private one, which gets a copy of the file, so that what is loaded
 * is what was hashed and nothing lies beside it. Throws an Error that says why the model cannot be served.
 */
export async function loadModel(engine: Engine, config: ModelConfig, folder: string): Promise<ServedModel> {
  const key = modelKey(config);
  const file = join(folder, `${config.name}-${config.version}.onnx`);
  try {
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
    const { batchMax } = config;
    const model = { key, config, signature, batched, batchMax, times: new RunTimes(), stats: new ModelStats(), users: 0 };
    for (const rows of new Set([1, batchMax])) await warmUp(engine, model, rows);
    return model;
  } catch (error) {
    await engine.unload(key);
    throw new Error(`${key} cannot be served: ${maskPaths((error as Error).message)}`);
  } finally {
    await rm(file, { force: true });
  }
}

/** The first round is not counted: it takes memory and builds kernels. */
async function warmUp(engine: Engine, { key, config, signature, times }: ServedModel, rows: number): Promise<void> {
  const planned = planShapes(signature.inputs, rows, config.dims);
  if ('problem' in planned) throw new Error(planned.problem.message);
  const inputs = signature.inputs.map(({ name, datatype }: Port) => ({ name, datatype, shape: planned.shapes.get(name) as number[] }));
  const sizes = inputs.map(({ datatype, shape }) => elementsOf(shape) * datatypes[datatype].bytes);
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  if (bytes > inputBytesMax) throw new Error(`Its inputs have ${bytes} bytes for a batch of ${rows}; ${inputBytesMax} are possible.`);
  const outputs = signature.outputs.map(({ name }) => name);
  for (let round = 0; round < warmupRounds; round += 1) {
    const runs = await engine.warm(key, inputs, outputs).catch((error: Error) => {
      throw new Error(`It does not run: ${error.message}`);
    });
    if (round > 0) for (const runMs of runs) times.observe(rows, runMs);
  }
}
