/** What a model's file declares of its inputs and outputs: checked at a deployment, before anything is loaded, and by the host. */
import { datatypes } from '../engine/datatypes.ts';
import { dimensionsOf, planShapes } from '../engine/shapes.ts';
import { dimsOf } from '../vision/input.ts';
import { chooseLayout, LayoutError } from '../vision/layouts.ts';
import type { ModelConfig } from './config.ts';

type Shape = readonly (number | string)[] | null;

interface Input {
  name: string;
  datatype: string;
  shape: Shape;
}

type Config = Pick<ModelConfig, 'preprocess' | 'dims' | 'task' | 'labels' | 'outputLayout'>;

/** Why a model cannot be served like this, as far as its file declares it; null where nothing says so. */
export function declaredProblem(
  { inputs, outputs }: { inputs: readonly Input[]; outputs: readonly Input[] },
  config: Config,
): string | null {
  const other = [...inputs, ...outputs].find(({ datatype }) => !Object.hasOwn(datatypes, datatype));
  if (other)
    return `${other.name} is of the type ${other.datatype}: tensors of ${Object.keys(datatypes).join(', ')} are served. Export the model without it (scikit-learn: \`zipmap=False\`).`;
  const planned = planInputs(inputs, config, 1);
  if ('problem' in planned) return planned.problem;
  const { preprocess, task, labels, outputLayout } = config;
  const shapes = outputs.flatMap(({ shape }) => (shape ? [shape] : []));
  if (!preprocess || task !== 'DETECTION' || shapes.length < outputs.length) return null;
  // A run shows what a single output with open dimensions is.
  if (!outputLayout && shapes.length === 1 && shapes[0]?.slice(1).some((dim) => typeof dim === 'string')) return null;
  try {
    chooseLayout(shapes, labels?.length ?? null, outputLayout);
    return null;
  } catch (error) {
    if (error instanceof LayoutError) return error.message;
    throw error;
  }
}

/** What cannot be planned has a problem, which says what to do. The preprocessing decides the sizes of an image that the file leaves open. */
export function planInputs(
  inputs: readonly Input[],
  { preprocess, dims }: Pick<Config, 'preprocess' | 'dims'>,
  rows: number,
): { shapes: Map<string, number[]> } | { problem: string } {
  const known = dimensionsOf(inputs);
  const unknown = Object.keys(dims).find((name) => !known.includes(name));
  if (unknown !== undefined)
    return { problem: `\`dims\`: the model has no open dimension ${unknown}. There are: ${[...new Set(known)].join(', ') || 'none'}.` };
  const sized = dimsOf(inputs, preprocess ?? null, dims);
  if ('problem' in sized) return sized;
  const planned = planShapes(inputs, rows, sized.dims);
  return 'problem' in planned ? { problem: planned.problem.message } : planned;
}
