import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { nativeMissing } from './engines.ts';

/** The path of the library of inference-native/test/fake_nvml.cpp. It is compiled before the first test of the file, unless those are skipped. */
export function withFakeNvml(): string {
  const folder = mkdtempSync(join(tmpdir(), 'whetstone-nvml-'));
  const library = join(folder, 'libnvidia-ml.so.1');
  const source = join(import.meta.dirname, '..', '..', 'inference-native', 'test', 'fake_nvml.cpp');
  beforeAll(() => {
    if (nativeMissing !== null) return;
    execFileSync(process.env.CXX || 'c++', ['-std=c++17', '-shared', '-fPIC', '-o', library, source]);
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  return library;
}
