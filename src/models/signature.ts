/** What a model version says of itself, read from what the trainer found in its file. */
import { z } from 'zod';
import { JobFailure } from '../jobs/kinds.ts';
import { type PresetName, preprocessOf, presets } from '../jobs/presets.ts';
import { OnnxMeta, WeightsMeta } from '../jobs/results.ts';
import { unprintable } from '../naming.ts';
import { dimsOf } from '../vision/input.ts';
import { PreprocessSpec, type Task } from '../vision/spec.ts';
import type { ModelVersion } from './tables.ts';

export const Labels = z
  .array(
    z
      .string()
      .min(1, 'A label is not empty.')
      .max(200, 'A label has at most 200 characters.')
      .refine((label) => !unprintable.test(label), 'A label has no control characters and no direction marks.'),
  )
  .min(1, 'There is at least one label.')
  .max(10_000, 'There are at most 10,000 labels.');

/** The labels and the preprocessing are text of the file: where they have another form, the file says nothing of them. */
const Onnx = OnnxMeta.extend({ labels: Labels.nullable().catch(null), preprocess: PreprocessSpec.nullable().catch(null) });
type Onnx = z.infer<typeof Onnx>;
type OnnxInputs = Pick<z.infer<typeof OnnxMeta>, 'inputs'>;

/** What a user said of a file, where it does not say it itself. */
export interface Described {
  task?: Task;
  labels: string[] | null;
  preprocess: PreprocessSpec | null;
}

/** The columns of a version that its file decides. */
export type SignatureColumns = Pick<
  ModelVersion,
  'precision' | 'preset' | 'weightsHash' | 'signatureJson' | 'preprocessJson' | 'labelsJson'
>;

/** Of an ONNX file. What the user described counts before what the file says. Throws a JobFailure where they cannot both be right. */
export function onnxSignature(rawMeta: unknown, described: Described): SignatureColumns & { inputs: string[]; outputs: string[] } {
  const meta = Onnx.parse(rawMeta);
  const labels = described.labels ?? meta.labels;
  const preprocess = described.preprocess ?? meta.preprocess;
  if (labels) checkOutputs(described.task ?? meta.metadata['whetstone.task'], labels.length, meta.outputs);
  const sized = dimsOf(inputsOf(meta), preprocess, {});
  if ('problem' in sized) throw new JobFailure('PREPROCESS_INVALID', sized.problem);
  return {
    precision: precisionOf(meta),
    preset: meta.metadata['whetstone.preset'] ?? null,
    weightsHash: meta.weightsHash,
    signatureJson: meta,
    preprocessJson: preprocess,
    labelsJson: labels,
    inputs: meta.inputs.map((port) => port.name),
    outputs: meta.outputs.map((port) => port.name),
  };
}

/** Of weights: they are stored as 32-bit floats, and preprocessed as the preset does it by default. */
export function weightsSignature(rawMeta: unknown, described: Described): SignatureColumns {
  const meta = WeightsMeta.parse(rawMeta);
  if (described.labels) checkLabels(described.labels.length, meta.classCount);
  const preset = meta.preset as PresetName;
  const preprocess = described.preprocess ?? meta.preprocess ?? defaultPreprocess(preset);
  const { onlyImageSize: side } = presets[preset];
  if (side !== null && (preprocess.width !== side || preprocess.height !== side)) {
    throw new JobFailure(
      'PREPROCESS_INVALID',
      `${preset} takes images of ${side} × ${side} pixels only; the preprocessing says ${preprocess.width} × ${preprocess.height}.`,
    );
  }
  return {
    precision: 'FP32',
    preset,
    weightsHash: meta.weightsHash,
    signatureJson: meta,
    preprocessJson: preprocess,
    labelsJson: described.labels,
  };
}

function defaultPreprocess(preset: PresetName): PreprocessSpec {
  return preprocessOf(preset, presets[preset].hyperparameters.parse({}));
}

const isQuantised = (operator: string): boolean => /quantize/i.test(operator) || /^(com\.microsoft::)?QLinear|Integer$/.test(operator);

/** The narrowest type that the weights are stored or computed in. */
function precisionOf({ operators, elementTypes }: Onnx): SignatureColumns['precision'] {
  if (Object.keys(operators).some(isQuantised)) return 'INT8';
  const { FLOAT16 = 0, BFLOAT16 = 0, FLOAT = 0, DOUBLE = 0 } = elementTypes;
  return FLOAT16 + BFLOAT16 > FLOAT + DOUBLE ? 'FP16' : 'FP32';
}

/** The element types of ONNX by the names that the serving protocol has for them, where they differ. */
const datatypes: Record<string, string> = { FLOAT: 'FP32', FLOAT16: 'FP16', DOUBLE: 'FP64' };

const portOf = ({ name, elementType, shape }: z.infer<typeof OnnxMeta>['inputs'][number]) => ({
  name,
  datatype: datatypes[elementType] ?? elementType,
  shape,
});

/** The inputs of an ONNX version, as the host reads them. */
export const inputsOf = ({ inputs }: OnnxInputs) => inputs.map(portOf);

/** The same of its outputs. */
export const outputsOf = ({ outputs }: Pick<Onnx, 'outputs'>) => outputs.map(portOf);

/**
 * A classifier's first output has a number for each class. Of a detector some output has an axis of the classes, alone or behind what says
 * where a box is, or names the class of each box; which one that is, is settled where its outputs are read.
 */
function checkOutputs(task: string | undefined, labels: number, outputs: Onnx['outputs']): void {
  const shapes = outputs.map(({ name, shape }) => `${name} ${shape?.join(' × ')}`).join(', ');
  if (task !== 'DETECTION') {
    const shape = outputs[0]?.shape ?? [];
    const axes = (shape.length > 1 ? shape.slice(1) : shape).filter((dim) => dim !== 1);
    if (axes.filter((dim) => typeof dim === 'number').length > 1) {
      throw new JobFailure(
        'LABELS_INVALID',
        `The output of a classifier is batch × classes, but there is ${shapes}. Is it a detector? Then make the model with the task DETECTION.`,
      );
    }
    if (shape.length > 0 && axes.length < 2) checkLabels(labels, axes[0] ?? 1);
    return;
  }
  const fits = (dim: number | string) => typeof dim === 'string' || [labels, labels + 4, labels + 5].includes(dim);
  const suppressed = outputs.length === 1 && outputs[0]?.shape?.length === 3 && outputs[0].shape[2] === 6;
  if (suppressed || outputs.some(({ shape }) => !shape || shape.slice(1).some(fits))) return;
  throw new JobFailure('LABELS_INVALID', `There are ${labels} labels, but no output has so many classes: ${shapes}.`);
}

function checkLabels(labels: number, classes: number | string | undefined): void {
  if (typeof classes !== 'number' || classes === labels) return;
  throw new JobFailure(
    'LABELS_INVALID',
    `There are ${labels} labels, but the model has ${classes} classes. Name each class once, in order.`,
  );
}
