/** ONNX Runtime, as every module here imports it. */

// Where Float16Array exists (Node 24), onnxruntime-node 1.30 takes it for the type of 16-bit tensors and then refuses them
// ("not enough space: expected 8, got 0"); without it they are Uint16Arrays.
delete (globalThis as { Float16Array?: unknown }).Float16Array;

export const { InferenceSession, Tensor, env } = await import('onnxruntime-node');
export type { InferenceSession as Session, Tensor as OnnxTensor } from 'onnxruntime-node';
