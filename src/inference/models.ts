/** A model of the configuration becomes one that is served: checked, loaded, warm. */
import { randomUUID } from 'node:crypto';
import { copyFile, link, realpath, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { tensorBytesOf } from '../engine/datatypes.ts';
import { whyNotServed } from '../engine/engines.ts';
import { batchSymbolOf } from '../engine/shapes.ts';
import { maskPaths } from '../maskPaths.ts';
import type { CheckTasks } from './checkFile.thread.ts';
import { type HostConfig, type ModelConfig, modelKey, threadsMaxOf } from './config.ts';
import { planInputs } from './declared.ts';
import type { Served } from './dispatcher.ts';
import type { LoadedModel, Pool, ServedPort, ServedSignature, WarmUp } from './pool.ts';
import { trialOf } from './predict.ts';
import { RunTimes, worthwhile } from './runTimes.ts';
import { startTaskThreads, type TaskThreads } from './taskThreads.ts';

export interface ServedModel extends Served {
  config: ModelConfig;
  signature: ServedSignature;
  /** Whether the first dimension of everything is the same symbol, the batch, so that requests can be computed together. */
  batched: boolean;
  /** Requests that hold it: it is not unloaded before they have their answers. */
  users: number;
}

type Limits = Pick<HostConfig, 'engine' | 'permits' | 'cores' | 'intraOpThreads' | 'memoryBytesMax'>;

/** Bytes of a model's inputs: no request can have larger ones. */
const inputBytesMax = 2 ** 30;

/** One, for all models that are loaded: a thread that starts takes a core for longer than its work, and the memory that all share with it. */
export const startChecks = (): TaskThreads<CheckTasks> => startTaskThreads<CheckTasks>(join(import.meta.dirname, 'checkFile.thread.ts'), 1);

/**
 * Loads a model into the pool under `id` and runs it on zeros, and `predict` on a picture. `folder`: a private one, in which the file gets a
 * name of its own, so that nothing lies beside it that it may refer to. Throws an Error that says why the model cannot be served.
 */
export async function loadModel(
  pool: Pool,
  checks: TaskThreads<CheckTasks>,
  id: string,
  config: ModelConfig,
  folder: string,
  limits: Limits,
): Promise<Omit<ServedModel, 'stats'>> {
  const { engine, intraOpThreads = limits.intraOpThreads, batchMax, deadlineMs } = config;
  const file = join(folder, `${randomUUID()}.onnx`);
  const warmUps = (signature: ServedSignature): WarmUp[] => {
    if (batchMax > 1 && !isBatched(signature))
      throw new Error('batchMax must be 1: the first dimension of its inputs and outputs is not one symbol, the batch.');
    return [...new Set([1, batchMax])].map((rows) => warmUpOf(signature, config, rows));
  };
  try {
    const unserved = await whyNotServed(engine, limits.engine);
    if (unserved !== null) throw new Error(unserved);
    requireCores(limits, intraOpThreads);
    await linkOrCopy(config.file, file);
    const { size } = await stat(file);
    requireMemory(limits, pool.copies * size);
    const problem = await checks.ask('problemOf', { file, sha256: config.sha256 });
    if (problem !== null) throw new Error(problem);
    const { signature, runs } = await pool.load({
      key: id,
      file,
      engine,
      intraOpThreads,
      warmUps,
      trial: (found) => trialOf(config, found),
    });
    requireMemory(limits, 0, size);
    const times = new RunTimes();
    for (const [rows, ms] of Object.entries(config.runMs)) times.observe(Number(rows), ms);
    for (const { rows, runMs, outputs } of runs) {
      const wrong = rows > 1 && outputs.find(({ shape }) => shape[0] !== rows);
      if (wrong) throw new Error(`batchMax must be 1: output ${wrong.name} has the shape [${wrong.shape}] for a batch of ${rows}.`);
      times.observe(rows, runMs);
    }
    const batched = isBatched(signature);
    return { key: id, config, signature, batched, batchMax: sharedRowsMax(config, runs), deadlineMs, times, users: 0 };
  } catch (error) {
    await pool.unload(id);
    throw new Error(`${modelKey(config)} cannot be served: ${maskPaths((error as Error).message)}`, { cause: error });
  } finally {
    await rm(file, { force: true });
  }
}

/** `batchMax` where an item of a full batch takes 10 % less than one alone, otherwise 1: by a benchmark's run times, without one by the warm-up's. */
function sharedRowsMax({ batchMax, runMs }: ModelConfig, runs: LoadedModel['runs']): number {
  const measured = [1, batchMax].map((rows) => runMs[rows]);
  // The shortest: whatever else the machine does makes a run longer.
  const warm = [1, batchMax].map((asked) => Math.min(...runs.flatMap(({ rows, runMs: ms }) => (rows === asked ? [ms] : []))));
  const [single, full] = (measured.includes(undefined) ? warm : measured) as [number, number];
  return full / batchMax <= worthwhile * single ? batchMax : 1;
}

const isBatched = ({ inputs, outputs }: ServedSignature): boolean => batchSymbolOf([...inputs, ...outputs]) !== null;

/** A second name for the file takes no space, so that a full disk does not keep a model from being loaded; another file system needs a copy. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  await link(await realpath(from), to).catch(() => copyFile(from, to));
}

function requireCores({ permits, cores }: Limits, intraOpThreads: number): void {
  if (intraOpThreads > threadsMaxOf(cores, permits)) {
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

function warmUpOf({ inputs }: ServedSignature, config: ModelConfig, rows: number): WarmUp {
  const planned = planInputs(inputs, config, rows);
  if ('problem' in planned) throw new Error(planned.problem);
  const zeros = inputs.map(({ name, datatype }: ServedPort) => ({ name, datatype, shape: planned.shapes.get(name) as number[] }));
  const bytes = zeros.reduce((sum, zero) => sum + tensorBytesOf(zero), 0);
  if (bytes > inputBytesMax) throw new Error(`Its inputs have ${bytes} bytes for a batch of ${rows}; ${inputBytesMax} are possible.`);
  return { rows, inputs: zeros };
}
