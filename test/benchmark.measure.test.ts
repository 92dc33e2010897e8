import { copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { planCells } from '../src/benchmark/cells.ts';
import { feedsOf, type Prepared, prepare } from '../src/benchmark/inputs.ts';
import { openCell } from '../src/benchmark/measure.ts';
import type { RawSamples } from '../src/benchmark/samples.ts';
import { engines } from '../src/engine/engines.ts';
import type { BenchmarkSpec } from '../src/jobs/specs.ts';
import { gateFailures } from '../src/models/gate.ts';
import { readProbe } from '../src/models/probe.ts';
import { benchmarkSpec, briefly, makeBenchmarkModels } from './support/benchmark.ts';
import { nativeMissing, openvinoMissing } from './support/engines.ts';

const folder = makeBenchmarkModels();
const cuda = (await engines.ONNXRUNTIME_CUDA.missing(process.env.PATH ?? '')) === null;
type Model = BenchmarkSpec['models'][number];
const model = (name: string, probe: string | null = null, precision: Model['precision'] = 'FP32') => ({
  file: join(folder, `${name}.onnx`),
  probe: probe && join(folder, `${probe}.probe`),
  precision,
});

/** What `prepare` makes of the only model of a specification. */
async function preparedOf(spec: BenchmarkSpec, batchSize = 1): Promise<Prepared> {
  const prepared = await prepare(spec.models[0] as Model, batchSize, spec);
  if ('problem' in prepared) throw new Error(prepared.problem.message);
  return prepared;
}

/** The first cell of a specification, measured in this process: one block as long as its shortest measurement. */
async function measured(spec: BenchmarkSpec) {
  const [cell] = planCells(spec) as [ReturnType<typeof planCells>[number]];
  const phases: string[] = [];
  const ticks: Record<string, number>[] = [];
  const progress = {
    phase: (phase: string) => phases.push(phase),
    advance: (_items: number, metrics?: Record<string, number>) => metrics && ticks.push(metrics),
  };
  const prepared = await preparedOf(spec, cell.batchSize);
  const { telemetry, warm } = await openCell(spec, cell, prepared, progress);
  const { secondsMin, samplesMax } = spec.settings;
  const block = await warm?.block({ round: 3, seconds: secondsMin, samplesMax, elapsedNs: 1e9 });
  return { telemetry, block, use: await warm?.close(), samples: block?.samples ?? null, phases, ticks };
}

describe('inputs', () => {
  test('of a version with a probe set are that set, in batches, with the outputs of the trained model', async () => {
    const spec = benchmarkSpec({ models: [model('classifier', 'classifier')] });
    const { input, outputs } = readProbe(join(folder, 'classifier.probe'));
    const [output] = outputs as [(typeof outputs)[number]];
    const prepared = await preparedOf(spec, 5);
    expect(prepared).toMatchObject({ reference: 'PROBE', count: 32 });
    const feeds = feedsOf(prepared.inputs, (spec.models[0] as Model).probe, 0, prepared.expected.length);
    expect(feeds).toHaveLength(7);
    expect(feeds[0]?.get('image')?.data).toEqual(input.data.slice(0, 5 * 192));
    expect(prepared.expected[0]?.get('y')).toEqual(output.data.slice(0, 15));
    // Behind the last input comes the first again.
    expect(feeds[6]?.get('image')?.data.slice(2 * 192)).toEqual(input.data.slice(0, 3 * 192));
    expect(prepared.expected[6]?.get('y')?.slice(6)).toEqual(output.data.slice(0, 9));
  });

  test('of a foreign model come from the seed, with the outputs of its graph without optimisations', async () => {
    const spec = benchmarkSpec({ models: [model('classifier')] });
    const [a, again, other] = [await preparedOf(spec, 16), await preparedOf(spec, 16), await preparedOf({ ...spec, seed: 1 }, 16)];
    expect(a).toMatchObject({ reference: 'SELF_REFERENCE', count: 32 });
    expect(a.expected).toHaveLength(2);
    expect(again.expected).toEqual(a.expected);
    expect(other.expected).not.toEqual(a.expected);
    expect(feedsOf(a.inputs, (spec.models[0] as Model).probe, 0, a.expected.length)).toEqual(
      feedsOf(again.inputs, (spec.models[0] as Model).probe, 0, again.expected.length),
    );
    const values = feedsOf(a.inputs, (spec.models[0] as Model).probe, 0, a.expected.length)[0]?.get('image')?.data as Float32Array;
    expect(values.every((x) => x >= 0 && x < 1)).toBe(true);
    expect(new Set(values).size).toBeGreaterThan(1000);
  });

  test.each([
    ['fixed', {}, 'BATCH_FIXED', 'a batch of 2 only, not of 1'],
    ['open', {}, 'DIMENSION_MISSING', 'how large image[2], image[3] are'],
    ['open', { 'image[2]': 6000, 'image[3]': 6000 }, 'INPUT_UNSUPPORTED', 'larger than 1024 MiB'],
    ['text', {}, 'INPUT_UNSUPPORTED', 'Inputs of type string cannot be made (x)'],
    ['tokens', { length: 3, n: 5 }, null, null],
    ['open', { 'image[2]': 8, 'image[3]': 9 }, null, null],
    ['broken', {}, 'LOAD_FAILED', 'does not load the model'],
  ])('of %s with the dimensions %j', async (name, dims, code, message) => {
    const spec = benchmarkSpec({ models: [model(name)], dims });
    const prepared = await prepare(spec.models[0] as Model, 1, spec);
    if (code === null) expect(prepared).toMatchObject({ reference: 'SELF_REFERENCE' });
    else expect(prepared).toEqual({ problem: { code, message: expect.stringContaining(String(message)) } });
    expect(JSON.stringify(prepared)).not.toContain(folder);
  });

  test('of a probe set that belongs to another model are refused', async () => {
    const spec = benchmarkSpec({ models: [model('open', 'classifier')], dims: { 'image[2]': 9, 'image[3]': 9 } });
    expect(await prepare(spec.models[0] as Model, 1, spec)).toMatchObject({
      problem: { message: expect.stringContaining('other inputs') },
    });
  });
});

describe('a cell', () => {
  test('passes the gate, warms up, and is measured one inference after the other', async () => {
    const spec = benchmarkSpec({ models: [model('classifier', 'classifier')], batchSizes: [4], intraOpThreads: [2] });
    const { telemetry, use, samples, phases, ticks } = await measured(spec);
    expect(phases).toEqual(['gate', 'warmup']);
    expect(telemetry).toMatchObject({
      unavailable: null,
      gate: { reference: 'PROBE', inputs: 32 },
      gpu: { utilizationPercent: null, memoryBytesMax: null, reason: 'It was measured on the processor.' },
    });
    expect(telemetry.gate?.outputs.map(({ output }) => output)).toEqual(['y', 'y, on average,']);
    expect(telemetry.gate?.outputs[0]?.largestDifference).toBeLessThan(1e-5);
    expect(telemetry.cold?.loadNs).toBeGreaterThan(0);
    expect(telemetry.cold?.firstInferenceNs).toBeGreaterThan(0);
    expect(telemetry.warmup?.runs).toBeGreaterThanOrEqual(2);
    expect(use?.memory?.peakBytes).toBeGreaterThanOrEqual(use?.memory?.baselineBytes as number);

    const { latencyNs, endNs, block } = samples as NonNullable<typeof samples>;
    // Behind the second that earlier blocks took.
    expect(endNs.at(-1)).toBeGreaterThanOrEqual(1.3e9);
    expect(endNs.at(-2)).toBeLessThan(1.3e9);
    let before = 1e9;
    for (let i = 0; i < latencyNs.length; i += 1) {
      expect(latencyNs[i]).toBeGreaterThan(0);
      // Each starts after the last has ended.
      expect((endNs[i] as number) - (latencyNs[i] as number)).toBeGreaterThanOrEqual(before);
      before = endNs[i] as number;
      expect(block[i]).toBe(3);
    }
    expect(ticks).toHaveLength(2);
    expect(ticks.at(-1)).toEqual({
      cell: 0,
      cells: 1,
      model: 0,
      batchSize: 4,
      intraOpThreads: 2,
      instances: 1,
      round: 3,
      seconds: expect.any(Number),
      itemsPerSecond: expect.any(Number),
      p50Ms: expect.any(Number),
      p95Ms: expect.any(Number),
    });
  });

  const twice = (scenario: BenchmarkSpec['scenario']) => benchmarkSpec({ models: [model('slow')], scenario, instances: [2] });
  /** Most inferences that were computed at the same time. */
  const mostAtOnce = ({ latencyNs, endNs }: RawSamples) =>
    Math.max(
      ...endNs.map(
        (end, i) =>
          endNs.filter((other, j) => other >= end && other - (latencyNs[j] as number) < end - (latencyNs[i] as number) / 2).length,
      ),
    );

  test('in MULTI_STREAM has a stream of its own for each instance, and all compute at the same time', async () => {
    const { samples, block, ticks } = await measured(twice('MULTI_STREAM'));
    const { latencyNs, endNs } = samples as NonNullable<typeof samples>;
    expect([...endNs]).toEqual([...endNs].sort((a, b) => a - b));
    expect(mostAtOnce({ ...samples, latencyNs: latencyNs.slice(0, 500), endNs: endNs.slice(0, 500) } as RawSamples)).toBe(2);
    // Each stream was busy for nearly all of the block.
    const busyNs = latencyNs.reduce((sum, ns) => sum + ns, 0);
    expect(busyNs).toBeGreaterThan(1.1 * (block?.elapsedNs as number));
    expect(ticks.at(-1)).toMatchObject({ instances: 2 });
  });

  test('in OFFLINE has all inferences at once, which the instances share until none is left', async () => {
    const { samples } = await measured(twice('OFFLINE'));
    expect(samples?.latencyNs.length).toBeGreaterThan(1);
    expect(mostAtOnce(samples as RawSamples)).toBe(2);
  });

  test('whose further instances the engine does not load says why', async () => {
    const spec = twice('MULTI_STREAM');
    const lost = { ...(spec.models[0] as Model), file: join(folder, 'lost.onnx') };
    copyFileSync(join(folder, 'slow.onnx'), lost.file);
    const { n, ...cell } = planCells(spec)[0] as ReturnType<typeof planCells>[number];
    const prepared = await preparedOf({ ...spec, models: [lost] });
    const opening = openCell({ ...spec, models: [lost] }, { n, ...cell }, prepared, {
      phase: (phase) => phase === 'gate' && setImmediate(() => rmSync(lost.file, { force: true })),
      advance: () => {},
    });
    expect((await opening).telemetry.unavailable).toMatchObject({ code: 'LOAD_FAILED' });
  });

  test('ends a block when it has as many samples as are kept', async () => {
    const { samples } = await measured(
      benchmarkSpec({ models: [model('classifier')], settings: { ...briefly, secondsMin: 60, samplesMax: 25 } }),
    );
    expect(samples?.latencyNs).toHaveLength(25);
  });

  test('that computes other outputs than the trained model has no speed', async () => {
    const { telemetry, samples, phases } = await measured(benchmarkSpec({ models: [model('classifier', 'wrong')] }));
    expect(samples).toBeNull();
    expect(phases).toEqual(['gate']);
    expect(telemetry).toMatchObject({ warmup: null, noise: null, memory: null });
    expect(telemetry.gate?.outputs[0]?.largestDifference).toBeCloseTo(0.01, 4);
    expect(telemetry.gate?.outputs[0]?.tolerance).toBeLessThan(1e-3);
  });

  describe.each(['FP32', 'FP16', 'INT8'] as const)('of a detector in %s', (precision) => {
    test.each([
      ['is right has a speed', 'detector', null],
      ['finds nothing has none, though its boxes are right', 'blind', 'scores'],
      ['puts its boxes 2 pixels beside has none, though its scores are right', 'shifted', 'boxes'],
      ['takes one class for another has none', 'swapped', 'scores'],
    ])('that %s', async (_says, name, output) => {
      const { telemetry, samples } = await measured(benchmarkSpec({ models: [model(name, 'detector', precision)] }));
      expect(samples === null).toBe(output !== null);
      const failing = gateFailures(telemetry.gate?.outputs ?? []);
      expect(failing.length > 0).toBe(output !== null);
      for (const says of failing) expect(says).toMatch(new RegExp(`^Output ${output}\\b`));
    });
  });

  test('whose outputs are not numbers has no speed', async () => {
    const spec = benchmarkSpec({ models: [model('nan')] });
    const prepared = await preparedOf(spec);
    prepared.expected[3]?.get('y')?.fill(Number.NaN);
    const [cell] = planCells(spec) as [ReturnType<typeof planCells>[number]];
    const { telemetry, warm } = await openCell(spec, cell, prepared, { phase() {}, advance() {} });
    expect([warm, telemetry.gate?.outputs[0]?.largestDifference]).toEqual([null, null]);
  });

  test('with a smaller probe set than wanted says how many inputs were compared', async () => {
    const { telemetry, samples } = await measured(benchmarkSpec({ models: [model('classifier', 'few')] }));
    expect(telemetry.gate).toMatchObject({ reference: 'PROBE', inputs: 5 });
    expect(samples?.latencyNs.length).toBeGreaterThan(0);
  });

  test.each([
    ['half', {}, 'FP16' as const],
    ['tokens', { length: 7 }, 'FP32' as const],
    ['open', { 'image[2]': 10, 'image[3]': 6 }, 'FP32' as const],
    ['fixed', {}, 'INT8' as const],
  ])('of a foreign model: %s with the dimensions %j', async (name, dims, precision) => {
    const { telemetry, samples } = await measured(benchmarkSpec({ models: [model(name, null, precision)], dims, batchSizes: [2] }));
    expect(telemetry.gate).toMatchObject({ reference: 'SELF_REFERENCE', inputs: 32 });
    expect(gateFailures(telemetry.gate?.outputs ?? [])).toEqual([]);
    expect(samples?.latencyNs.length).toBeGreaterThan(0);
  });

  describe.each([
    ['ONNXRUNTIME_NATIVE', nativeMissing],
    ['OPENVINO', openvinoMissing],
  ] as const)('on %s', (engine, missing) => {
    const why = missing === null ? '' : ` (skipped: ${missing})`;
    test.skipIf(missing !== null).each([
      ['classifier', 'FP32'],
      ['detector', 'FP32'],
      ['half', 'FP16'],
      ['fixed', 'INT8'],
    ] as const)(`computes %s in %s as the reference does, in the time that the engine tells${why}`, async (name, precision) => {
      const probe = precision === 'FP32' ? name : null;
      const { telemetry, samples, block } = await measured(
        benchmarkSpec({ models: [model(name, probe, precision)], batchSizes: [2], engines: [engine] }),
      );
      expect(telemetry.gate).toMatchObject({ reference: probe ? 'PROBE' : 'SELF_REFERENCE', inputs: 32 });
      expect(gateFailures(telemetry.gate?.outputs ?? [])).toEqual([]);
      const latencies = [...(samples?.latencyNs ?? [])];
      expect(latencies.length).toBeGreaterThan(0);
      expect(latencies.every((ns) => ns > 0)).toBe(true);
      expect(latencies.reduce((sum, ns) => sum + ns, 0)).toBeLessThan(block?.elapsedNs ?? 0);
    });
  });

  test.skipIf(cuda)('on an engine that cannot load it tells why, without a path', async () => {
    const spec = benchmarkSpec({ models: [model('classifier')], engines: ['ONNXRUNTIME_CUDA'] });
    const { telemetry, samples } = await measured(spec);
    expect(samples).toBeNull();
    expect(telemetry.unavailable).toEqual({ code: 'ENGINE_UNAVAILABLE', message: expect.stringContaining('does not load') });
    expect(telemetry.unavailable?.message).not.toMatch(/\/\w+\/\w+/);
  });

  test('whose model cannot run on the inputs is unavailable', async () => {
    const spec = benchmarkSpec({ models: [model('classifier')] });
    const prepared = await preparedOf(spec);
    const [cell] = planCells(spec) as [ReturnType<typeof planCells>[number]];
    const misshapen = { ...prepared, inputs: [{ name: 'image', datatype: 'FP32' as const, shape: [1, 4, 8, 8] }] };
    const { telemetry } = await openCell(spec, cell, misshapen, { phase() {}, advance() {} });
    expect(telemetry.unavailable).toMatchObject({ code: 'INPUT_UNSUPPORTED' });
  });
});
