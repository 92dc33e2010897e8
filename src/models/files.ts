/** What the name of a model's file says that it is, by its ending. The trainer's `import_model.py` has the same endings. */
import type { ModelVersion } from './tables.ts';

const formats: Record<string, ModelVersion['format']> = {
  '.onnx': 'ONNX',
  // Of an ONNX file and its data.
  '.zip': 'ONNX',
  '.safetensors': 'CHECKPOINT',
  '.pt': 'CHECKPOINT',
  '.pth': 'CHECKPOINT',
  '.ckpt': 'CHECKPOINT',
  '.bin': 'CHECKPOINT',
  '.pth.tar': 'CHECKPOINT',
};
export const endings = Object.keys(formats);

const endingOf = (fileName: string): string | undefined => endings.find((ending) => fileName.toLowerCase().endsWith(ending));

export const formatOf = (fileName: string): ModelVersion['format'] | undefined => formats[endingOf(fileName) ?? ''];

/** Of an imported file, which is stored as ONNX or as safetensors whatever it came as. */
export function storedName(fileName: string, format: ModelVersion['format']): string {
  const ending = endingOf(fileName) ?? '';
  return fileName.slice(0, fileName.length - ending.length) + (format === 'ONNX' ? '.onnx' : '.safetensors');
}
