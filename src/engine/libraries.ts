/** Where the libraries of the engines are. This file loads none of them. */
import { existsSync, globSync } from 'node:fs';
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
/** What ONNX Runtime computes on, beside the processor. Each has a library of its own. */
export type GpuProvider = 'cuda' | 'tensorrt';
export const providerLibrary = (provider: GpuProvider): string => join(folder, `libonnxruntime_providers_${provider}.so`);

/** The addon of `inference-native/`, which the set-up builds where it can. */
export const nativeAddon = join(import.meta.dirname, '..', '..', 'inference-native', 'build', 'whetstone.node');

const systemFolders = [
  ...(process.env.LD_LIBRARY_PATH ?? '').split(':').filter(Boolean),
  ...['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib64', '/usr/lib', '/usr/local/lib', '/opt/homebrew/lib'],
];
const openvinoFolders = [
  // The set-up installs it there (WHETSTONE_OPENVINO=1).
  join(import.meta.dirname, '..', '..', 'inference-native', 'openvino', 'openvino', 'libs'),
  ...systemFolders,
  ...['/opt/intel/openvino/runtime/lib/intel64', '/opt/intel/openvino/runtime/lib/aarch64'],
];

/** OpenVINO's C interface: the file that WHETSTONE_OPENVINO_LIBRARY names, that of the set-up, or that of the system. Its name has the version. */
export function findOpenvino(): { file: string; version: string } | null {
  const chosen = process.env.WHETSTONE_OPENVINO_LIBRARY;
  const files = chosen
    ? [chosen]
    : openvinoFolders.flatMap((place) => globSync('libopenvino_c.*', { cwd: place }).map((name) => join(place, name)));
  for (const file of files) {
    const [, year, release, patch] = /libopenvino_c\.(?:so\.|)(\d\d)(\d)(\d)(?:\.dylib)?$/.exec(file) ?? [];
    if (year && existsSync(file)) return { file, version: `openvino 20${year}.${release}.${patch}` };
  }
  return null;
}

/** NVIDIA's management library, which its driver brings: the file that WHETSTONE_NVML_LIBRARY names, or that of the system. */
export function findNvml(): string | null {
  const chosen = process.env.WHETSTONE_NVML_LIBRARY;
  // In containers of Kubernetes, and under Windows, it is in the latter two.
  const folders = [...systemFolders, '/usr/local/nvidia/lib64', '/usr/lib/wsl/lib'];
  const files = chosen ? [chosen] : folders.map((folder) => join(folder, 'libnvidia-ml.so.1'));
  return files.find((file) => existsSync(file)) ?? null;
}
