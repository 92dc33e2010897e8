/** A short benchmark in this process, as its child measures it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { benchmark } from '../../src/benchmark/run.ts';
import type { EngineName } from '../../src/engine/engines.ts';
import { createChildAttempt } from '../../src/jobs/childio.ts';
import { BenchmarkSpec } from '../../src/jobs/specs.ts';

type Model = BenchmarkSpec['models'][number];

/** The cells of a model, one for each engine, with what was compared of its outputs. */
export async function measureModel(folder: string, engines: readonly EngineName[], model: Omit<Model, 'dims'>, gateInputs: number) {
  const runs = { gateInputs, warmupRunsMin: 1, warmupSecondsMin: 0, warmupSecondsMax: 1, samplesWanted: 1, samplesMax: 10 };
  const spec = BenchmarkSpec.parse({
    ...{
      kind: 'BENCHMARK',
      specVersion: 1,
      codeVersion: 'test',
      cpuThreads: 1,
      scenario: 'SINGLE_STREAM',
      instances: [1],
      seed: 0,
      target: 'LATENCY',
      resumeFrom: null,
    },
    ...{ batchSizes: [1], engines, intraOpThreads: [1], models: [{ ...model, dims: {} }] },
    settings: { ...runs, secondsMin: 0.1, secondsMax: 0.1, blockSeconds: 1 },
  });
  const child = createChildAttempt(spec, folder, new Int32Array(new SharedArrayBuffer(8)), () => {});
  const made = await benchmark(child);
  const { cells } = JSON.parse(readFileSync(join(folder, made.file), 'utf8'));
  for (const { telemetry } of cells) if (telemetry.unavailable) throw new Error(telemetry.unavailable.message);
  return cells;
}
