/** A model of the configuration becomes one that is served: checked, loaded, warm. */
import { createHash } from 'node:crypto';
import { copyFile, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { datatypes, elementsOf } from '../engine/datatypes.ts';
import { hasExternalData } from '../engine/externalData.ts';
import { batchSymbolOf, planShapes } from '../engine/shapes.ts';
import { maskPaths } from '../maskPaths.ts';
import { type HostConfig, type ModelConfig, modelKey } from './config.ts';
import type { Served } from './dispatcher.ts';
import type { Pool, Port, Signature } from './pool.ts';
import { RunTimes } from './runTimes.ts';
import { ModelStats } from './stats.ts';

export interface ServedModel extends Served {
  config: ModelConfig;
  signature: Signature;
  /** Whether the first dimension of everything is the same symbol, the batch, so that requests can be computed together. */
  batched: boolean;
  /** Requests that hold it: it is not unloaded before they have their answers. */
  users: number;
}

type Limits = Pick<HostConfig, 'permits' | 'cores' | 'intraOpThreads' | 'memoryBytesMax'>;

const warmupRounds = 4;
/** Bytes of a model's inputs: no request can have larger ones. */
const inputBytesMax = 2 ** 30;

/**
 * Loads a model into the pool and runs it on zeros on each of its threads. `folder`: a private one, which gets a copy of the file, so that what is loaded
 * is what was hashed and nothing lies beside it. Throws an Error that says why the model cannot be served.
 */
export async function loadModel(pool: Pool, config: ModelConfig, folder: string, limits: Limits): Promise<ServedModel> {
  const { intraOpThreads = limits.intraOpThreads } = config;
  const key = modelKey(config);
  const file = join(folder, `${config.name}-${config.version}.onnx`);
  try {
    requireCores(limits, intraOpThreads);
    await copyFile(config.file, file);
    const sizeBytes = await check(file, config.sha256);
    requireMemory(limits, limits.permits * sizeBytes);
    const signature = await pool.load(key, file, intraOpThreads);
    const batched = batchSymbolOf([...signature.inputs, ...signature.outputs]) !== null;
    if (config.batchMax > 1 && !batched)
      throw new Error('batchMax must be 1: the first dimension of its inputs and outputs is not one symbol, the batch.');
    const { batchMax } = config;
    const times = new RunTimes();
    for (const [rows, ms] of Object.entries(config.runMs)) times.observe(Number(rows), ms);
    const model = { key, config, signature, batched, batchMax, times, stats: new ModelStats(), users: 0 };
    for (const rows of new Set([1, batchMax])) await warmUp(pool, model, rows);
    requireMemory(limits, 0, sizeBytes);
    return model;
  } catch (error) {
    await pool.unload(key);
    throw new Error(`${key} cannot be served: ${maskPaths((error as Error).message)}`);
  } finally {
    await rm(file, { force: true });
  }
}

/** Throws where the file is not the one that was meant, or not all of the model. Gives its size in bytes. */
async function check(file: string, meant: string): Promise<number> {
  const bytes = await readFile(file);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  if (sha256 !== meant) throw new Error(`The file has the SHA-256 ${sha256}, not ${meant}: it is not the one that was meant.`);
  if (hasExternalData(bytes)) throw new Error('It takes data from other files. Save it as one file, without external data.');
  return bytes.length;
}

function requireCores({ permits, cores }: Limits, intraOpThreads: number): void {
  if (intraOpThreads > 1 && permits * intraOpThreads > cores) {
    throw new Error(
      `intraOpThreads: ${permits} runs at a time × ${intraOpThreads} threads are more than the ${cores} cores. Take fewer threads, or let fewer runs compute at a time (permits).`,
    );
  }
}

/** `comingBytes` are needed besides what the process has, of which `garbageBytes` will be free. */
function requireMemory({ memoryBytesMax }: Limits, comingBytes: number, garbageBytes = 0): void {
  const neededBytes = process.memoryUsage.rss() + comingBytes - garbageBytes;
  if (neededBytes <= memoryBytesMax) return;
  const [needed, max] = [neededBytes, memoryBytesMax].map((bytes) => Math.round(bytes / 2 ** 20));
  throw new Error(`The host would have ${needed} MiB of memory with it, and may have ${max} (memoryBytesMax): undeploy something first.`);
}

/** The first round is not counted: it takes memory and builds kernels. */
async function warmUp(pool: Pool, { key, config, signature, times }: ServedModel, rows: number): Promise<void> {
  const planned = planShapes(signature.inputs, rows, config.dims);
  if ('problem' in planned) throw new Error(planned.problem.message);
  const inputs = signature.inputs.map(({ name, datatype }: Port) => ({ name, datatype, shape: planned.shapes.get(name) as number[] }));
  const sizes = inputs.map(({ datatype, shape }) => elementsOf(shape) * datatypes[datatype].bytes);
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  if (bytes > inputBytesMax) throw new Error(`Its inputs have ${bytes} bytes for a batch of ${rows}; ${inputBytesMax} are possible.`);
  const outputs = signature.outputs.map(({ name }) => name);
  for (let round = 0; round < warmupRounds; round += 1) {
    const runs = await pool.warm(key, inputs, outputs).catch((error: Error) => {
      throw new Error(`It does not run: ${error.message}`);
    });
    if (round > 0) for (const { runMs } of runs) times.observe(rows, runMs);
    const wrong = rows > 1 && runs[0]?.outputs.find(({ shape }) => shape[0] !== rows);
    if (wrong) throw new Error(`batchMax must be 1: output ${wrong.name} has the shape [${wrong.shape}] for a batch of ${rows}.`);
  }
}
