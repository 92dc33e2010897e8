import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { link, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { recordChild } from '../jobs/executor/leftChildren.ts';
import { AttemptCrash, JobFailure } from '../jobs/kinds.ts';
import { limited } from '../jobs/limited.ts';
import { maskPaths } from '../maskPaths.ts';
import type { LoadResult } from './load/loaded.ts';

const child = join(import.meta.dirname, 'load', 'child.ts');

export interface LoadLimits {
  memoryBytes: number;
  /** Of computing, and twice that on the clock. */
  seconds: number;
}

/** A model of 100 MB takes 0.3 GB and under a second; the engine needs its weights up to three times while it loads. */
export const limitsFor = (sizeBytes: number): LoadLimits => ({ memoryBytes: 2 * 2 ** 30 + 4 * sizeBytes, seconds: 60 });

/**
 * Loads an ONNX file once with the serving engine, in a limited child with nothing else in its folder: a file that crashes, stalls or
 * swallows memory does so here and not where models are served. `folder` is made and removed. The inputs
 * of a `probe` file are run and its outputs compared. Throws a JobFailure:
 * MODEL_INVALID when the engine refuses the file or crashes on it, LIMIT_EXCEEDED; or an AttemptCrash when somebody killed the child.
 */
export async function loadOnce(
  dataDir: string,
  file: string,
  folder: string,
  limits: LoadLimits,
  probe?: string,
): Promise<Exclude<LoadResult, { refused: string }>> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  try {
    // A name of its own in a folder of its own: data that the file would refer to is not beside it.
    await link(file, join(folder, 'model.onnx'));
    if (probe) await link(probe, join(folder, 'probe.safetensors'));
    return await loadInChild(dataDir, folder, limits);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function loadInChild(
  dataDir: string,
  folder: string,
  { memoryBytes, seconds }: LoadLimits,
): Promise<Exclude<LoadResult, { refused: string }>> {
  const { command, args } = limited(process.execPath, [child], { memoryBytes, cpuSeconds: seconds, fileBytes: 2 ** 20 });
  const started = spawn('nice', ['-n', '10', command, ...args], {
    cwd: folder,
    env: {},
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
    timeout: 2000 * seconds,
    killSignal: 'SIGKILL',
    // A group of its own: see recordChild.
    detached: true,
  });
  const forget = recordChild(dataDir, started.pid);
  const [said, [code, signal]] = await Promise.all([text(started.stdio[3] as Readable), once(started, 'exit')]).finally(forget);
  if (signal === 'SIGXCPU' || started.killed) {
    throw new JobFailure('LIMIT_EXCEEDED', `The serving engine did not load the file within ${seconds} s.`);
  }
  if (signal === 'SIGKILL' || signal === 'SIGTERM')
    throw new AttemptCrash(`The process that loads the model file was killed by ${signal}, as the system does when memory runs out.`);
  if (signal !== null || code !== 0) {
    throw new JobFailure('MODEL_INVALID', `The serving engine crashed on the file (${signal ?? `exit code ${code}`}).`);
  }
  const loaded = JSON.parse(said) as LoadResult;
  if ('refused' in loaded) {
    throw new JobFailure('MODEL_INVALID', `The serving engine refuses the file: ${maskPaths(loaded.refused).slice(0, 1500)}`);
  }
  return loaded;
}
