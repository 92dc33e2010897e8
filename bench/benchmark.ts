/**
 * `npm run bench:benchmark`: the demo's benchmark again and again, first on the machine as it is, then beside a process that takes half of a core
 * now and then. Prints what each run recommends. Goal: the same row in nine of ten runs of each series, no FASTER that another run contradicts,
 * and under 60 s for each run of four rows. The model is an untrained ResNet-50 at 64 × 64 pixels. `-- --runs 3` makes fewer runs.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { CellsFile } from '../src/benchmark/cells.ts';
import type { BenchmarkContext } from '../src/benchmark/context.ts';
import { benchmark } from '../src/benchmark/run.ts';
import { createChildAttempt } from '../src/jobs/childio.ts';
import { BenchmarkSpec, benchmarkProfiles, SPEC_VERSION } from '../src/jobs/specs.ts';
import { trainerPython } from '../src/python.ts';
import { makeReport } from '../src/reports/make.ts';
import type { Report } from '../src/reports/report.ts';
import { codeVersion } from '../src/version.ts';

const { values } = parseArgs({ options: { runs: { type: 'string', default: '10' } } });
const runs = Number(values.runs);
const folder = mkdtempSync(join(tmpdir(), 'whetstone-bench-'));
const file = join(folder, 'model.onnx');
const cores = availableParallelism();

const matrix = { batchSizes: [1, 4], engines: ['ONNXRUNTIME_CPU' as const], intraOpThreads: [1, Math.min(2, cores)] };
const asked = {
  ...matrix,
  scenario: 'SINGLE_STREAM' as const,
  instances: [1],
  seed: 0,
  target: 'LATENCY' as const,
  settings: benchmarkProfiles.QUICK,
};

/** The report of one run. */
async function measure(workDir: string): Promise<Report> {
  mkdirSync(workDir);
  const common = { kind: 'BENCHMARK', specVersion: SPEC_VERSION, codeVersion, cpuThreads: cores, resumeFrom: null };
  const models = [{ file, probe: null, precision: 'FP32', dims: {} }];
  const child = createChildAttempt(BenchmarkSpec.parse({ ...common, ...asked, models }), workDir, new Int32Array(2), () => {});
  const { machine, cells } = CellsFile.parse(JSON.parse(readFileSync(join(workDir, (await benchmark(child)).file), 'utf8')));
  const model = {
    versionId: '',
    name: 'resnet50',
    number: 1,
    origin: 'IMPORTED',
    precision: 'FP32',
    preset: null,
    sizeBytes: 0,
    sha256: '',
  };
  const context: BenchmarkContext = {
    jobId: '',
    measuredAt: Date.now(),
    codeVersion,
    inRounds: true,
    request: { ...asked, modelVersionIds: [''], dims: {}, profile: 'QUICK', accuracyDropMax: 0.01 },
    models: [{ ...model, weightsHash: null, lineageHash: '', parameters: 0, accuracy: null }],
  };
  const names = new Map(cells.flatMap(({ samples }) => (samples ? [[samples.sha256, samples.name]] : [])));
  const read = async (sha256: string) => readFileSync(join(workDir, String(names.get(sha256))));
  return (await makeReport({ context, machine, measurements: cells }, read)).report;
}

/** Computes for a second or two and rests as long, in half of the time of each 100 ms. */
const disturber = `for (;;) {
  const until = Date.now() + 500 + 1500 * Math.random();
  while (Date.now() < until) {
    const stop = Date.now() + 50;
    while (Date.now() < stop);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
  }
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500 + 1500 * Math.random());
}`;

async function series(name: string): Promise<void> {
  console.log(`\n${name}`);
  const chosen: (number | null)[] = [];
  const verdicts = new Map<number, Set<string>>();
  for (let run = 1; run <= runs; run += 1) {
    const startedAt = performance.now();
    const { choice, rows, deltas } = await measure(join(folder, `${name}-${run}`.replaceAll(' ', '-')));
    chosen.push(choice.n);
    for (const { n, verdict } of deltas) verdicts.set(n, (verdicts.get(n) ?? new Set()).add(verdict));
    const row = rows.find(({ n }) => n === choice.n);
    const disturbed = new Set(rows.flatMap(({ reasons }) => reasons.map(({ code }) => code)));
    const p95Ms = ((row?.latency?.p95?.ns ?? 0) / 1e6).toFixed(2);
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
    console.log(
      `  run ${run}: row ${choice.n}, P95 ${p95Ms} ms, ${choice.confidence}, in ${seconds} s; ${[...disturbed].sort().join(' ')}`,
    );
  }
  const most = Math.max(...[...new Set(chosen)].map((n) => chosen.filter((other) => other === n).length));
  const contradicted = [...verdicts].filter(([, seen]) => seen.has('FASTER') && seen.has('SLOWER')).map(([n]) => n);
  console.log(
    `  the same row in ${most} of ${runs} runs (goal ${Math.ceil(0.9 * runs)}); contradicted rows: ${contradicted.join(', ') || 'none'}`,
  );
}

const script = `import sys, torch, torchvision
torch.manual_seed(0)
model = torchvision.models.resnet50(num_classes=10).eval()
torch.onnx.export(model, torch.zeros(1, 3, 64, 64), sys.argv[1], input_names=["images"], output_names=["logits"],
                  dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}}, dynamo=False)`;

try {
  console.log(`${cpus()[0]?.model}, ${cores} cores, load ${loadavg()[0]?.toFixed(2)} before`);
  execFileSync(trainerPython, ['-W', 'ignore', '-c', script, file]);
  await series('the machine as it is');
  const child = spawn(process.execPath, ['-e', disturber]);
  await series('beside a process that takes half of a core now and then').finally(() => child.kill());
} finally {
  rmSync(folder, { recursive: true, force: true });
}
