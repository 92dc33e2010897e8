import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { type BenchmarkSettings, BenchmarkSpec } from '../../src/jobs/specs.ts';

const python = join(import.meta.dirname, '..', '..', 'trainer', '.venv', 'bin', 'python');

/** A folder with the files of `benchmark_models.py`, gone when the tests of the file have ended. */
export function makeBenchmarkModels(): string {
  const folder = mkdtempSync(join(tmpdir(), 'whetstone-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  execFileSync(python, ['-P', join(import.meta.dirname, 'benchmark_models.py'), folder]);
  return folder;
}

/** As short as it can be. */
export const briefly: BenchmarkSettings = {
  gateInputs: 32,
  warmupRunsMin: 2,
  warmupSecondsMin: 0,
  warmupSecondsMax: 0.2,
  secondsMin: 0.3,
  secondsMax: 0.3,
  samplesWanted: 1,
  samplesMax: 200_000,
  precision: 1,
  blockSeconds: 0.1,
};

type Model = BenchmarkSpec['models'][number];

/** `dims`: of every model. */
export const benchmarkSpec = ({
  models,
  dims = {},
  ...spec
}: Partial<Omit<BenchmarkSpec, 'models'>> & { models: Omit<Model, 'dims'>[]; dims?: Model['dims'] }): BenchmarkSpec =>
  BenchmarkSpec.parse({
    models: models.map((model) => ({ ...model, dims })),
    kind: 'BENCHMARK',
    specVersion: 1,
    codeVersion: 'test',
    cpuThreads: 1,
    batchSizes: [1],
    engines: ['ONNXRUNTIME_CPU'],
    intraOpThreads: [1],
    scenario: 'SINGLE_STREAM',
    instances: [1],
    seed: 0,
    target: 'LATENCY',
    settings: briefly,
    resumeFrom: null,
    ...spec,
  });
