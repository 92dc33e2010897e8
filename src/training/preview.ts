/** The first pictures of a training, with all its random changes: made by the trainer before a job exists. */
import { execFile } from 'node:child_process';
import { z } from 'zod';
import { ApiError, InputError } from '../errors.ts';
import type { JobServices } from '../jobs/kinds.ts';
import { type PresetName, preprocessOf, presets } from '../jobs/presets.ts';
import { PROTOCOL_VERSION } from '../jobs/protocol.ts';
import { launchTrainer } from '../jobs/python.ts';
import { SPEC_VERSION, TrainingRuntime, TrainSpec } from '../jobs/specs.ts';
import { codeVersion } from '../version.ts';
import { datasetRef, requireReadyDataset, requireTask } from './sources.ts';
import { trainingOf } from './train.ts';

export const picturesMax = 16;
const answerMsMax = 60_000;
const answerBytesMax = 64 * 2 ** 20;
/** Each is a Python process with PyTorch. */
const atOnce = 2;
let running = 0;

const Picture = z.object({
  jpeg: z.string(),
  classes: z.array(z.tuple([z.int(), z.number()])),
  boxes: z.array(z.object({ label: z.int(), x: z.number(), y: z.number(), width: z.number(), height: z.number(), ignored: z.boolean() })),
});

/** A training picture. Shares of the classes of an image that shows two add up to 1. */
export interface AugmentedPicture {
  jpeg: string;
  classes: { class: string; share: number }[];
  boxes: { class: string; x: number; y: number; width: number; height: number; ignored: boolean }[];
}

interface Asked {
  datasetVersionId: string;
  preset: string;
  hyperparameters: unknown;
  seed: number;
  count: number;
}

export async function augmentationPreview(services: JobServices, asked: Asked): Promise<AugmentedPicture[]> {
  const { count } = asked;
  if (count < 1 || count > picturesMax) throw new ApiError('INVALID', `count is ${count}: say 1 to ${picturesMax}.`);
  if (running >= atOnce) throw new ApiError('UNAVAILABLE', 'Other previews are being made: try again in some seconds.', 5_000);
  running += 1;
  try {
    const spec = await specOf(services, asked);
    const pictures = z.array(Picture).parse(JSON.parse(await made(services, spec, count)));
    const nameOf = (label: number) => spec.dataset.classes[label] ?? '';
    return pictures.map(({ jpeg, classes, boxes }) => ({
      jpeg,
      classes: classes.map(([label, share]) => ({ class: nameOf(label), share })),
      boxes: boxes.map(({ label, ...box }) => ({ class: nameOf(label), ...box })),
    }));
  } catch (error) {
    if (error instanceof InputError) throw new ApiError('INVALID', error.message);
    throw error;
  } finally {
    running -= 1;
  }
}

async function specOf(
  services: JobServices,
  { datasetVersionId, preset, hyperparameters, seed }: Asked,
): Promise<z.infer<typeof TrainSpec>> {
  if (!Object.hasOwn(presets, preset)) throw new ApiError('INVALID', `There is no preset ${preset}: the query \`presets\` lists them.`);
  const training = trainingOf(preset as PresetName, z.record(z.string(), z.unknown()).parse(hyperparameters), {});
  const { task } = presets[preset as PresetName];
  requireTask(services.db, requireReadyDataset(services.db, datasetVersionId), task);
  return TrainSpec.parse({
    kind: 'TRAIN',
    specVersion: SPEC_VERSION,
    codeVersion,
    cpuThreads: 1,
    processes: 1,
    device: 'cpu',
    seed,
    ...training,
    dataset: await datasetRef(services, datasetVersionId),
    preprocess: preprocessOf(training.preset, training.hyperparameters),
    init: { from: 'SCRATCH' },
    resumeFrom: null,
    ...TrainingRuntime.parse({}),
  });
}

/** What the trainer writes, or an ApiError that says why it does not. */
function made({ config }: JobServices, spec: z.infer<typeof TrainSpec>, count: number): Promise<string> {
  const { command, args, env } = launchTrainer(config, spec);
  return new Promise((resolve, reject) => {
    const child = execFile(
      command,
      [...args.slice(0, 1), 'whetstone_trainer.preview', String(count)],
      { env: { ...config.childEnv, ...env }, timeout: answerMsMax, killSignal: 'SIGKILL', maxBuffer: answerBytesMax },
      (error, stdout, stderr) => {
        if (!error) resolve(stdout);
        else if (error.killed)
          reject(new ApiError('DEADLINE', `The preview took more than ${answerMsMax / 1000} s. Ask for fewer pictures.`));
        else reject(new ApiError('INVALID', stderr.trim().split('\n').at(-1) || 'The preview could not be made.'));
      },
    );
    // A child that ends at once does not read.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(`${JSON.stringify({ v: PROTOCOL_VERSION, job: 'preview', attempt: 1, workDir: '/', spec })}\n`);
  });
}
