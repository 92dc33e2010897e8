import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { refuse } from '../errors.ts';
import type { JobServices } from '../jobs/kinds.ts';
import type { PresetName } from '../jobs/presets.ts';
import { trainerFolder, trainerPython } from '../python.ts';

const answerMsMax = 60_000;
const run = promisify(execFile);

/** Refuses a training that cannot have its preset's public weights, before it waits for a slot: it would fail there. */
export async function requirePublicWeights({ config }: Pick<JobServices, 'config'>, preset: PresetName): Promise<void> {
  const env = { ...config.childEnv, PYTHONPATH: trainerFolder, PYTHONSAFEPATH: '1' };
  const args = ['-m', 'whetstone_trainer.public_weights', preset];
  await run(trainerPython, args, { env, timeout: answerMsMax }).catch(({ stderr }: { stderr?: string }) =>
    refuse('INVALID', ['init', 'pretrained'], stderr?.trim() || 'The public weights could not be asked for. Say `scratch` or try again.'),
  );
}
