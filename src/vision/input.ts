/** Whether an image can be made the input of a model, told before anything is loaded or run. */
import { keyOf } from '../engine/shapes.ts';
import { isInputDatatype } from './preprocess.ts';
import { channelCount, type PreprocessSpec } from './spec.ts';

/** An input as the model declares it; a string is an open dimension. */
interface Input {
  name: string;
  datatype: string;
  shape: readonly (number | string)[] | null;
}

/** The inputs have to be one image that the preprocessing makes. What is wrong with that, and what to do; null when nothing is. */
function inputProblem(inputs: readonly Input[], spec: PreprocessSpec): string | null {
  const [input, ...others] = inputs;
  if (!input || others.length > 0) {
    const names = inputs.map(({ name }) => name).join(', ');
    return `Preprocessing makes one image, but the model has ${inputs.length} inputs: ${names}. Leave \`preprocess\` out and send tensors to /infer.`;
  }
  const { name, datatype, shape } = input;
  if (!isInputDatatype(datatype)) {
    return `The input ${name} is ${datatype}; an image becomes FP32, FP16, FP64 or UINT8. Leave \`preprocess\` out and send tensors to /infer.`;
  }
  if (shape) {
    const made = madeShape(spec);
    const fits = shape.length === 4 && shape.every((dim, i) => i === 0 || typeof dim === 'string' || dim === made[i]);
    if (!fits) {
      return `The preprocessing makes an input of ${['batch', ...made.slice(1)].join(' × ')}, but the model takes ${shape.join(' × ')}. Change its size, channels or layout.`;
    }
  }
  return datatype === 'UINT8' && !makesLevels(spec)
    ? `The input ${name} is UINT8, levels of 0 to 255: the preprocessing needs the mean 0 and the std 1/255 (0.00392156862745098).`
    : null;
}

/** The sizes of open dimensions by name: those that an image of the preprocessing gives them, and those that the user said. */
export function dimsOf(
  inputs: readonly Input[],
  spec: PreprocessSpec | null,
  said: Readonly<Record<string, number>>,
): { dims: Record<string, number> } | { problem: string } {
  const image = spec ? imageDims(inputs, spec) : { dims: {} };
  if ('problem' in image) return image;
  const contradicted = Object.entries(image.dims).find(([name, size]) => (said[name] ?? size) !== size);
  if (contradicted) {
    const [name, size] = contradicted;
    return { problem: `\`dims\`: ${name} is ${said[name]}, but the preprocessing makes ${size}. Leave it out.` };
  }
  return { dims: { ...said, ...image.dims } };
}

function imageDims(inputs: readonly Input[], spec: PreprocessSpec): { dims: Record<string, number> } | { problem: string } {
  const problem = inputProblem(inputs, spec);
  if (problem !== null) return { problem };
  const [{ name, shape }] = inputs as [Input];
  const dims: Record<string, number> = {};
  for (const [axis, size] of madeShape(spec).entries()) {
    const dim = shape?.[axis];
    if (axis === 0 || typeof dim !== 'string') continue;
    const key = keyOf(name, axis, dim);
    if ((dims[key] ?? size) !== size)
      return {
        problem: `The input ${name} calls two dimensions ${key}, but the preprocessing makes them ${dims[key]} and ${size}. Change its size or layout.`,
      };
    dims[key] = size;
  }
  return { dims };
}

/** Of one image. */
export function madeShape({ layout, width, height, ...spec }: PreprocessSpec): [number, number, number, number] {
  const channels = channelCount(spec);
  return layout === 'NCHW' ? [1, channels, height, width] : [1, height, width, channels];
}

/** Whether a tensor holds the levels themselves: whole numbers would make 0 and 1 of anything else. */
const makesLevels = ({ mean, std }: PreprocessSpec): boolean =>
  mean.every((value, c) => [0, 1].every((share) => Math.abs((share - value) / (std[c] as number) - 255 * share) < 0.5));
