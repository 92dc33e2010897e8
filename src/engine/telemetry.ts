/**
 * Keeps ONNX Runtime from sending anything. Without this it stores the metadata of each model in the user's cache folder, looks up its
 * maker's collector and writes a log to the temporary folder (onnxruntime-node 1.30, Linux). Its library reads the environment of the
 * process, which a worker thread cannot change: whoever starts threads that open models imports this in the main thread.
 */
import { isMainThread } from 'node:worker_threads';

if (isMainThread) process.env.ORT_DISABLE_TELEMETRY = '1';
else if (process.env.ORT_DISABLE_TELEMETRY !== '1') {
  throw new Error('ONNX Runtime would send telemetry: import src/engine/telemetry.ts in the main thread before this worker is started.');
}
