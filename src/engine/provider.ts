/** `node provider.ts PROVIDER` prints why ONNX Runtime cannot use it, and nothing where it can. */
import './telemetry.ts';
import { createRequire } from 'node:module';
import { nativeAddon, onnxruntimeLibrary } from './libraries.ts';

console.log(createRequire(import.meta.url)(nativeAddon).providerProblem(onnxruntimeLibrary, process.argv[2]));
