/** Where the libraries of the engines are. This file loads none of them. */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const { platform, arch } = process;
const require = createRequire(import.meta.url);
const packageFile = require.resolve('onnxruntime-node/package.json');
const { version } = require(packageFile) as { version: string };

export const onnxruntimeVersion = `onnxruntime ${version}`;

const folder = join(dirname(packageFile), 'bin', 'napi-v6', platform, arch);
/** That onnxruntime-node ships. */
export const onnxruntimeLibrary = join(folder, platform === 'darwin' ? `libonnxruntime.${version}.dylib` : 'libonnxruntime.so.1');
export const cudaLibrary = join(folder, 'libonnxruntime_providers_cuda.so');

/** The addon of `inference-native/`, which the set-up builds where it can. */
export const nativeAddon = join(import.meta.dirname, '..', '..', 'inference-native', 'build', 'whetstone.node');
