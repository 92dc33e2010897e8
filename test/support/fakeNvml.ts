import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';

/** The path of the library of inference-native/test/fake_nvml.cpp. It is compiled before the first test. */
export function withFakeNvml(): string {
  const folder = mkdtempSync(join(tmpdir(), 'whetstone-nvml-'));
  const library = join(folder, 'libnvidia-ml.so.1');
  const source = join(import.meta.dirname, '..', '..', 'inference-native', 'test', 'fake_nvml.cpp');
  // Vitest leaves it out where all tests of a block are skipped.
  beforeAll(() => {
    execFileSync(process.env.CXX || 'c++', ['-std=c++17', '-shared', '-fPIC', '-o', library, source]);
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  return library;
}
