/** The form TRITON: a model repository of NVIDIA Triton, which ONNX Runtime serves there. */
import { batchSymbolOf } from '../engine/shapes.ts';
import { labelsText, type PackageSource, refusePackage, type Texts } from './source.ts';

/** Triton's name of an element type, where it has the type at all. */
const dataTypes: Record<string, string> = {
  BOOL: 'TYPE_BOOL',
  UINT8: 'TYPE_UINT8',
  UINT16: 'TYPE_UINT16',
  UINT32: 'TYPE_UINT32',
  UINT64: 'TYPE_UINT64',
  INT8: 'TYPE_INT8',
  INT16: 'TYPE_INT16',
  INT32: 'TYPE_INT32',
  INT64: 'TYPE_INT64',
  FP16: 'TYPE_FP16',
  FP32: 'TYPE_FP32',
  FP64: 'TYPE_FP64',
  BFLOAT16: 'TYPE_BF16',
  STRING: 'TYPE_STRING',
};

/** The gate of a conversion runs as many of 640 × 640 at least. */
const batchMax = 32;

type Port = PackageSource['inputs'][number];

/** A folder of its own: the name of a model may be that of any other file. */
export const repository = 'repository';

export const modelPath = ({ model }: PackageSource): string => `${repository}/${model.name}/1/model.onnx`;

/** The repository without the model. */
export function tritonTexts(source: PackageSource): Texts {
  const { labels } = source.config;
  const folder = `${repository}/${source.model.name}`;
  return {
    [`${folder}/config.pbtxt`]: configText(source),
    ...(labels ? { [`${folder}/labels.txt`]: labelsText(labels) } : {}),
  };
}

function configText({ model, version, config, inputs, outputs }: PackageSource): string {
  const batched = batchSymbolOf([...inputs, ...outputs]) !== null;
  const portText = ({ name, datatype, shape }: Port, ...more: string[]): string => {
    const type = dataTypes[datatype] ?? refusePackage(version, `${name} is of the type ${datatype}, which Triton does not have.`);
    if (shape === null) refusePackage(version, `The file does not tell the shape of ${name}, which Triton needs.`);
    const dims = shape.slice(batched ? 1 : 0).map((dim) => (typeof dim === 'string' ? -1 : dim));
    // Triton takes no empty list of dimensions.
    const sizes = dims.length > 0 ? [`dims: [ ${dims.join(', ')} ]`] : ['dims: [ 1 ]', 'reshape { shape: [ ] }'];
    return `  {\n${[`name: ${quote(name)}`, `data_type: ${type}`, ...sizes, ...more].map((line) => `    ${line}\n`).join('')}  }`;
  };
  // The classification extension of Triton names the classes of one output.
  const named = config.labels && config.task === 'CLASSIFICATION' ? ['label_filename: "labels.txt"'] : [];
  return [
    `name: ${quote(model.name)}`,
    'platform: "onnxruntime_onnx"',
    `max_batch_size: ${batched ? batchMax : 0}`,
    `input [\n${inputs.map((port) => portText(port)).join(',\n')}\n]`,
    `output [\n${outputs.map((port, i) => portText(port, ...(i === 0 ? named : []))).join(',\n')}\n]`,
    ...(batched ? ['dynamic_batching { }'] : []),
    '',
  ].join('\n');
}

/** A string of protobuf's text format: what is not printable ASCII as octal bytes. */
function quote(text: string): string {
  const escaped = Array.from(Buffer.from(text), (byte) =>
    byte < 0x20 || byte > 0x7e || byte === 0x22 || byte === 0x5c ? `\\${byte.toString(8).padStart(3, '0')}` : String.fromCharCode(byte),
  );
  return `"${escaped.join('')}"`;
}
