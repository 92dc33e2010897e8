import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { CellsFile } from '../src/benchmark/cells.ts';
import { contestOf } from '../src/benchmark/contest.ts';
import { roundsOf } from '../src/benchmark/pairing.ts';
import { benchmark, shuffled } from '../src/benchmark/run.ts';
import { decodeSamples } from '../src/benchmark/samples.ts';
import { createChildAttempt, type Said, stateIndex, stops } from '../src/jobs/childio.ts';
import type { BenchmarkSpec } from '../src/jobs/specs.ts';
import { benchmarkSpec, briefly, makeBenchmarkModels } from './support/benchmark.ts';
import { eventually } from './support/eventually.ts';
import { withFolder } from './support/server.ts';
import { fillDisk, mebibyte, unmountable, withSmallDisk } from './support/smallDisk.ts';

const models = makeBenchmarkModels();
const classifier = { file: join(models, 'classifier.onnx'), probe: join(models, 'classifier.probe'), precision: 'FP32' as const };
const fixed = { file: join(models, 'fixed.onnx'), probe: null, precision: 'FP32' as const };
const slow = { file: join(models, 'slow.onnx'), probe: null, precision: 'FP32' as const };

interface Run {
  result: { cells: number; file: string };
  file: CellsFile;
  said: Said[];
}

/** Runs the benchmark as its child does. `on` sees each event, and may tell the job to stop. */
async function run(workDir: string, spec: BenchmarkSpec, on: (event: Said, stop: () => void) => void = () => {}): Promise<Run> {
  const state = new Int32Array(new SharedArrayBuffer(8));
  const said: Said[] = [];
  mkdirSync(workDir, { recursive: true });
  const child = createChildAttempt(spec, workDir, state, (event) => {
    said.push(event);
    on(event, () => Atomics.store(state, stateIndex.stop, stops.indexOf('cancel')));
  });
  const result = await benchmark(child);
  return { result, said, file: CellsFile.parse(JSON.parse(readFileSync(join(workDir, result.file), 'utf8'))) };
}

/** Processes of a benchmark's steps that this process has started. */
function cellProcesses(): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        return (
          readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('benchmark/cell.ts') &&
          new RegExp(`^PPid:\\s+${process.pid}$`, 'm').test(readFileSync(`/proc/${pid}/status`, 'utf8'))
        );
      } catch {
        return false;
      }
    });
}

describe('a benchmark', () => {
  test('measures each model at each batch size on each engine with each number of threads', () =>
    withFolder(async (workDir) => {
      const spec = benchmarkSpec({ models: [classifier, fixed], batchSizes: [1, 2], intraOpThreads: [2] });
      const { result, file, said } = await run(workDir, spec);
      expect(result).toEqual({ cells: 4, file: 'cells.json' });
      expect(file.cells.map((c) => [c.n, c.model, c.batchSize, c.intraOpThreads, c.telemetry.unavailable?.code ?? null])).toEqual([
        [0, 0, 1, 2, null],
        [1, 0, 2, 2, null],
        [2, 1, 1, 2, 'BATCH_FIXED'],
        [3, 1, 2, 2, null],
      ]);
      expect(file.machine).toMatchObject({ platform: process.platform, node: process.versions.node });
      const told = said.filter((event) => event.type === 'artifact');
      const kept = file.cells.flatMap(({ samples }) => samples ?? []);
      expect(told.map(({ file: name, sha256 }) => [name, sha256])).toEqual(kept.map(({ name, sha256 }) => [name, sha256]));
      for (const { name, sha256, sizeBytes } of kept) {
        const bytes = readFileSync(join(workDir, name));
        expect([createHash('sha256').update(bytes).digest('hex'), bytes.length]).toEqual([sha256, sizeBytes]);
        expect(decodeSamples(bytes).latencyNs.length).toBeGreaterThan(0);
      }
      const checkpoints = said.filter((event) => event.type === 'checkpoint').map(({ epoch }) => epoch);
      const rounds = Math.max(...file.cells.map(({ blocks }) => blocks.length));
      expect(checkpoints).toEqual([...Array.from({ length: rounds }, (_, n) => n + 1), rounds]);
      expect(cellProcesses()).toEqual([]);
    }));

  test('measures every row once in each round', () =>
    withFolder(async (workDir) => {
      const { file } = await run(workDir, benchmarkSpec({ models: [classifier], intraOpThreads: [1, 2], batchSizes: [1, 2] }));
      for (const { blocks } of file.cells) {
        expect(blocks.length).toBeGreaterThan(2);
        expect(blocks.map(({ round }) => round)).toEqual(blocks.map((_, n) => n));
      }
    }));

  test('takes the rows in another order in each round, which the seed decides', () => {
    const rows = [{ n: 0 }, { n: 1 }, { n: 2 }, { n: 3 }];
    const orders = (seed: number) => Array.from({ length: 20 }, (_, round) => shuffled(rows, seed, round).map(({ n }) => n));
    expect(orders(1)).toEqual(orders(1));
    expect(orders(2)).not.toEqual(orders(1));
    for (const order of orders(1)) expect(order.toSorted()).toEqual([0, 1, 2, 3]);
    expect(new Set(orders(1).map(([first]) => first)).size).toBe(4);
  });

  test('goes on until each row has the samples that were asked for, up to the longest time', () =>
    withFolder(async (folder) => {
      // More than any machine runs in the shortest time, so that the samples decide.
      const settings = { ...briefly, gateInputs: 1, secondsMin: 0.1, secondsMax: 60, samplesWanted: 200 };
      const { file } = await run(join(folder, '1'), benchmarkSpec({ models: [slow], settings }));
      const counted = file.cells[0]?.blocks.map(({ count }) => count) ?? [];
      const count = counted.reduce((sum, n) => sum + n, 0);
      expect(count).toBeGreaterThanOrEqual(200);
      expect(count - (counted.at(-1) as number)).toBeLessThan(200);
      const short = { ...settings, secondsMax: 0.2, samplesWanted: 1_000_000 };
      const blocks = (await run(join(folder, '2'), benchmarkSpec({ models: [slow], settings: short }))).file.cells[0]?.blocks ?? [];
      const elapsedNs = (some: typeof blocks) => some.reduce((sum, one) => sum + one.elapsedNs, 0);
      expect(elapsedNs(blocks)).toBeGreaterThanOrEqual(0.2e9);
      expect(elapsedNs(blocks.slice(0, -1))).toBeLessThan(0.2e9);
    }));

  test('spreads the most samples of a row over ten rounds, however fast it is', () =>
    withFolder(async (workDir) => {
      const settings = { ...briefly, secondsMin: 60, secondsMax: 60, samplesMax: 200 };
      const { file } = await run(workDir, benchmarkSpec({ models: [classifier], settings }));
      const counted = file.cells[0]?.blocks.map(({ count }) => count) ?? [];
      expect(counted.reduce((sum, count) => sum + count, 0)).toBe(200);
      expect(Math.max(...counted)).toBeLessThanOrEqual(20);
    }));

  test('goes on with rows that may be the best until the rounds tell, not with one that is beaten', () =>
    withFolder(async (workDir) => {
      const settings = { ...briefly, gateInputs: 1, secondsMin: 0.3, secondsMax: 2.4, samplesWanted: 100, precision: 0.001 };
      const { file } = await run(workDir, benchmarkSpec({ models: [classifier, classifier, slow], settings }));
      const measured = file.cells.map((cell) => ({
        ...cell,
        rounds: roundsOf(decodeSamples(readFileSync(join(workDir, cell.samples?.name as string)))),
      }));
      // What the rounds told before each one decides, whatever they told: a busy machine may tell nothing, or make a difference.
      const last = Math.max(...measured.flatMap(({ blocks }) => blocks.map(({ round }) => round)));
      for (let round = 1; round <= last + 1; round += 1) {
        const before = measured.map((cell) => ({ ...cell, rounds: new Map([...cell.rounds].filter(([at]) => at < round)) }));
        const { beaten, open } = contestOf(before, 'LATENCY', settings.precision);
        for (const { n, blocks } of measured) {
          const elapsedNs = blocks.filter((block) => block.round < round).reduce((sum, block) => sum + block.elapsedNs, 0);
          const goesOn = blocks.some((block) => block.round === round);
          if (elapsedNs < 0.3e9) expect(goesOn, `row ${n} has its shortest time after round ${round}`).toBe(true);
          else if (beaten.has(n)) expect(goesOn, `row ${n} is beaten before round ${round}`).toBe(false);
          else if (open.has(n) && elapsedNs < 2.4e9) expect(goesOn, `row ${n} may be the best in round ${round}`).toBe(true);
        }
      }
    }));

  test('tells of its rounds while it runs', () =>
    withFolder(async (workDir) => {
      const spec = benchmarkSpec({ models: [slow], settings: { ...briefly, gateInputs: 1, secondsMin: 1.5, secondsMax: 1.5 } });
      const { said } = await run(workDir, spec);
      const ticks = said.filter((event) => event.type === 'batch' && event.phase === 'measurement');
      // Also before the first number it says which row it measures.
      const all = said.filter((event) => event.type === 'batch');
      expect(all.every(({ metrics }) => metrics.cell === 0 && metrics.cells === 1 && metrics.model === 0)).toBe(true);
      expect(
        ticks.some((tick) => tick.type === 'batch' && (tick.metrics.p95Ms as number) > 0 && (tick.metrics.itemsPerSecond as number) > 0),
      ).toBe(true);
    }));

  test('lists an engine that is not there with the reason', async ({ skip }) => {
    const { engines } = await import('../src/engine/engines.ts');
    const reason = await engines.ONNXRUNTIME_CUDA.missing(process.env.PATH ?? '');
    if (reason === null) skip('this machine has CUDA');
    await withFolder(async (workDir) => {
      const { file } = await run(workDir, benchmarkSpec({ models: [classifier], engines: ['ONNXRUNTIME_CUDA'] }));
      expect(file.cells).toMatchObject([{ samples: null, telemetry: { unavailable: { code: 'ENGINE_UNAVAILABLE', message: reason } } }]);
    });
  });

  test.each([
    ['measures', 'warmup'],
    ['makes its inputs', 'start'],
  ])('goes on behind a row whose process has crashed while it %s', (_what, phase) =>
    withFolder(async (workDir) => {
      let killing: Promise<void> | undefined;
      const spec = benchmarkSpec({ models: [classifier], intraOpThreads: [1, 2] });
      const { file } = await run(workDir, spec, (event) => {
        if (event.type !== 'phase' || event.phase !== phase) return;
        killing ??= eventually(() => {
          const pids = cellProcesses();
          expect(pids).not.toEqual([]);
          for (const pid of pids) process.kill(pid, 'SIGSEGV');
        });
      });
      await killing;
      expect(file.cells[0]?.telemetry.unavailable).toEqual({
        code: 'ENGINE_CRASHED',
        message: 'The process of the engine ended with SIGSEGV.',
      });
      expect(file.cells[1]?.samples).not.toBeNull();
    }),
  );

  test.skipIf(unmountable)(`does not blame the engine for what its process dies of on a full disk ${unmountable ?? ''}`, () =>
    withSmallDisk(8 * mebibyte, async (folder) => {
      const spec = benchmarkSpec({ models: [classifier], intraOpThreads: [1, 2] });
      let free = () => {};
      const crashed = run(join(folder, '1'), spec, (event) => {
        if (event.type !== 'checkpoint' || event.epoch !== 2) return;
        // Room for what says how the row ended, but not for what the engine wanted.
        free = fillDisk(folder, mebibyte / 2);
        for (const pid of cellProcesses()) process.kill(pid, 'SIGSEGV');
      });
      await expect(crashed).rejects.toMatchObject({ code: 'DISK_FULL' });
      free();
      const { file, said } = await run(join(folder, '2'), { ...spec, resumeFrom: join(folder, '1', 'cells-1.json') });
      expect(file.cells.map(({ telemetry }) => telemetry.unavailable)).toEqual([null, null]);
      expect(said.filter((event) => event.type === 'artifact').map(({ meta }) => meta.n)).toEqual([0, 1]);
    }),
  );

  test('stops when it is told to, in the middle of a measurement, and leaves no process', () =>
    withFolder(async (workDir) => {
      const spec = benchmarkSpec({ models: [classifier], settings: { ...briefly, secondsMin: 600, secondsMax: 600 } });
      const stopped = run(workDir, spec, (event, stop) => {
        if (event.type === 'phase' && event.phase === 'measurement') stop();
      });
      await expect(stopped).rejects.toMatchObject({ status: 'cancelled' });
      expect(cellProcesses()).toEqual([]);
    }));
});

describe('a later attempt', () => {
  const spec = benchmarkSpec({ models: [classifier], intraOpThreads: [1, 2] });

  test('keeps the rounds that the earlier one has measured', () =>
    withFolder(async (folder) => {
      const first = await run(join(folder, '1'), spec);
      const second = await run(join(folder, '2'), { ...spec, resumeFrom: join(folder, '1', 'cells-4.json') });
      for (const [n, { blocks }] of second.file.cells.entries()) {
        expect(blocks.slice(0, 5)).toEqual(first.file.cells[n]?.blocks.slice(0, 5));
        expect(blocks.map(({ round }) => round)).toEqual(blocks.map((_, round) => round));
        const latencies = (attempt: string) => decodeSamples(readFileSync(join(folder, attempt, `samples-${n}.bin`))).latencyNs;
        const kept = blocks.slice(0, 5).reduce((sum, { count }) => sum + count, 0);
        expect(latencies('2').slice(0, kept)).toEqual(latencies('1').slice(0, kept));
      }
      const third = await run(join(folder, '3'), { ...spec, resumeFrom: join(folder, '2', second.result.file) });
      expect(third.file).toEqual(second.file);
    }));

  test.each([
    ['bootId', 'another boot'],
    ['codeVersion', '0.0.0'],
  ])('measures all of them again when the %s is another', (field, value) =>
    withFolder(async (folder) => {
      await run(join(folder, '1'), spec);
      const checkpoint = join(folder, '1', 'cells-4.json');
      writeFileSync(checkpoint, JSON.stringify({ ...JSON.parse(readFileSync(checkpoint, 'utf8')), [field]: value }));
      const { said } = await run(join(folder, '2'), { ...spec, resumeFrom: checkpoint });
      expect(said.find((event) => event.type === 'checkpoint')?.epoch).toBe(1);
    }),
  );
});
