import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

/** Compiles the library of inference-native/test/fake_nvml.cpp into the folder. */
export function makeFakeNvml(folder: string): string {
  const library = join(folder, 'libnvidia-ml.so.1');
  const source = join(import.meta.dirname, '..', '..', 'inference-native', 'test', 'fake_nvml.cpp');
  execFileSync(process.env.CXX || 'c++', ['-std=c++17', '-shared', '-fPIC', '-o', library, source]);
  return library;
}
