/** What a study can optimise: measured on the validation split at the best epoch, a fact about the model, or its measured latency. */
import type { z } from 'zod';
import type { results } from '../jobs/results.ts';
import type { Task } from '../vision/spec.ts';

export type TrainResult = z.infer<typeof results.TRAIN>;

interface Objective {
  /** Null: every task has it. */
  task: Task | null;
  direction: 'MAXIMIZE' | 'MINIMIZE';
  /** Whether it says how good a model is, and not only how large. */
  isQuality: boolean;
  description: string;
  /** `latencyMs`: of one image of the trial's size. */
  of: (result: TrainResult, latencyMs: number) => number;
}

const metric = (name: string) => (result: TrainResult) => Number((result.metrics as Record<string, number>)[name]);

export const objectives = {
  TOP1: {
    task: 'CLASSIFICATION',
    direction: 'MAXIMIZE',
    isQuality: true,
    description: 'Classification: share of images whose best class is the true one. Larger is better.',
    of: metric('top1'),
  },
  MACRO_TOP1: {
    task: 'CLASSIFICATION',
    direction: 'MAXIMIZE',
    isQuality: true,
    description: 'Classification: mean recall over the classes. Larger is better.',
    of: metric('macroTop1'),
  },
  LOSS: {
    task: 'CLASSIFICATION',
    direction: 'MINIMIZE',
    isQuality: true,
    description: 'Classification: mean cross-entropy. Smaller is better.',
    of: metric('loss'),
  },
  MAP5095: {
    task: 'DETECTION',
    direction: 'MAXIMIZE',
    isQuality: true,
    description: 'Detection: mean average precision over IoU 0.5, 0.55 … 0.95. Larger is better.',
    of: metric('map5095'),
  },
  MAP50: {
    task: 'DETECTION',
    direction: 'MAXIMIZE',
    isQuality: true,
    description: 'Detection: mean average precision at IoU 0.5. Larger is better.',
    of: metric('map50'),
  },
  PARAMETERS: {
    task: null,
    direction: 'MINIMIZE',
    isQuality: false,
    description: 'Parameters of the model. Fewer are better.',
    of: ({ parameters }) => parameters,
  },
  MACS: {
    task: null,
    direction: 'MINIMIZE',
    isQuality: false,
    description: 'Multiplications with an addition for one image: grows with the image size. Fewer are better.',
    of: ({ macs }) => macs,
  },
  BYTES: {
    task: null,
    direction: 'MINIMIZE',
    isQuality: false,
    description: 'Bytes of the weights. Fewer are better.',
    of: ({ bytes }) => bytes,
  },
  LATENCY: {
    task: null,
    direction: 'MINIMIZE',
    isQuality: false,
    description:
      'Milliseconds that ONNX Runtime takes for one image on the CPU, with `cpuThreads`, measured alone on the machine. It is measured once for each ' +
      'image size of the space, before the first trial: trials of one size have the same latency. Less is better.',
    of: (_result, latencyMs) => latencyMs,
  },
} as const satisfies Record<string, Objective>;
export type ObjectiveName = keyof typeof objectives;
export const objectiveNames = Object.keys(objectives) as [ObjectiveName, ...ObjectiveName[]];

export const directionsOf = (names: readonly ObjectiveName[]) => names.map((name) => objectives[name].direction);

/** The values of the objectives that a training has reached. */
export const valuesOf = (names: readonly ObjectiveName[], result: TrainResult, latencyMs: number): number[] =>
  names.map((name) => objectives[name].of(result, latencyMs));
