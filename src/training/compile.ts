/** What a training needs that compiles its model (`compile`). The trainer knows what the machine lacks: `whetstone_trainer/toolchain.py`. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Config } from '../config.ts';
import { refuse } from '../errors.ts';
import { trainerFolder, trainerPython } from '../python.ts';
import { readGpus } from '../system/gpus.ts';

const answerMsMax = 60_000;
const run = promisify(execFile);

/** Why a training on the device cannot compile its model on this machine, or null. */
export async function compilerProblem({ config }: { config: Config }, device: string): Promise<string | null> {
  const { gpus } = device === 'cpu' ? { gpus: null } : await readGpus(config.childEnv.PATH ?? '');
  const env = { ...config.childEnv, PYTHONPATH: trainerFolder, PYTHONSAFEPATH: '1' };
  const args = ['-m', 'whetstone_trainer.toolchain', device === 'cuda' || gpus ? 'cuda' : 'cpu'];
  return run(trainerPython, args, { env, timeout: answerMsMax }).then(
    () => null,
    ({ stderr }: { stderr?: string }) => stderr?.trim() || 'The compiler could not be asked for its version. Try again.',
  );
}

/** Refuses to compile what cannot be. `field`: the argument that has the hyperparameters. */
export function requireCompilable(hyperparameters: object, field: string, processes: number, problem: string | null): void {
  const { compile } = hyperparameters as { compile?: unknown };
  if (compile !== true) return;
  if (processes > 1) {
    refuse(
      'INVALID',
      'processes',
      `compile is true, and ${processes} processes train together: only a training of one process can compile its model. Say \`compile: false\` or 1 process.`,
    );
  }
  if (problem !== null) refuse('INVALID', field, `compile is true, which this machine cannot do. ${problem}`);
}

/** The model is compiled for one size of its input. */
export function requireOneSize(hyperparameters: object, field: string): void {
  const { compile, multiScale } = hyperparameters as { compile?: unknown; multiScale?: unknown };
  if (compile !== true || !multiScale) return;
  refuse(
    'INVALID',
    field,
    `compile is true and multiScale is ${multiScale}, but the model is compiled for one image size. Set multiScale to 0, or compile to false.`,
  );
}
