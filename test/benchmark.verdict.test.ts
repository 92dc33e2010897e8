import { describe, expect, test } from 'vitest';
import { GateResult, nothingMeasured, planCells, type Telemetry } from '../src/benchmark/cells.ts';
import type { LatencySummary, Stability } from '../src/benchmark/statistics.ts';
import { type Evidence, judge } from '../src/benchmark/verdict.ts';
import { dimensionsOf, planShapes } from '../src/engine/shapes.ts';
import { benchmarkProfiles } from '../src/jobs/specs.ts';
import type { ReportRow } from '../src/reports/report.ts';
import { reasonText } from '../src/reports/sentences.ts';

const output = (largestDifference: number | null, name = 'logits') => ({ output: name, largestDifference, tolerance: 1e-4 });

/** A measurement that nothing speaks against. */
const good = {
  telemetry: {
    unavailable: null,
    cold: { loadNs: 1, firstInferenceNs: 1 },
    gate: { reference: 'PROBE', inputs: 32, outputs: [output(1e-5)] },
    warmup: { runs: 20, durationNs: 1, settled: true },
    memory: { baselineBytes: 1, peakBytes: 2 },
    noise: { steal: 0.02, throttled: 0.01, contention: 0.05 },
    gpu: { utilizationPercent: null, memoryBytesMax: null, reason: '' },
  } as Telemetry,
  summary: { count: 5000 } as LatencySummary,
  stability: { windows: 5, throughputSpread: 0.05, p95Spread: 0.05, drift: 0.05 } as Stability,
  settings: benchmarkProfiles.FULL,
};

interface Change {
  telemetry?: Partial<Telemetry>;
  summary?: Partial<LatencySummary>;
  stability?: Partial<Stability>;
}

const judged = (change: Change) =>
  judge({
    ...good,
    telemetry: { ...good.telemetry, ...change.telemetry },
    summary: { ...good.summary, ...change.summary },
    stability: { ...good.stability, ...change.stability },
  } as Evidence);

const gate = good.telemetry.gate as NonNullable<Telemetry['gate']>;
const noise = good.telemetry.noise as NonNullable<Telemetry['noise']>;

describe('a measurement', () => {
  test('at each limit is VALID without a reason', () => {
    expect(judged({})).toEqual({ verdict: 'VALID', reasons: [] });
  });

  test.each([
    [
      'GATE_FAILED',
      'INVALID',
      { telemetry: { gate: { ...gate, outputs: [output(1e-5, 'boxes'), output(1.1e-4, 'scores')] } } },
      'Output scores differs by up to 0.000110',
    ],
    ['GATE_FAILED', 'INVALID', { telemetry: { gate: { ...gate, outputs: [output(null)] } } }, 'not a number'],
    ['STEAL', 'UNSTABLE', { telemetry: { noise: { ...noise, steal: 0.021 } } }, '2.1 % of the processor'],
    ['THROTTLED', 'UNSTABLE', { telemetry: { noise: { ...noise, throttled: 0.011 } } }, '1.1 % of the periods'],
    ['CONTENTION', 'UNSTABLE', { telemetry: { noise: { ...noise, contention: 0.06 } } }, '6.0 % of the time'],
    ['DRIFT', 'VALID', { stability: { drift: 0.07 } }, 'changed by 7.0 %'],
    ['WARMUP_CAPPED', 'VALID', { telemetry: { warmup: { runs: 5, durationNs: 1, settled: false } } }, 'after 30 s'],
    ['SELF_REFERENCE', 'VALID', { telemetry: { gate: { ...gate, reference: 'SELF_REFERENCE' as const } } }, 'no probe set'],
    ['FEW_GATE_INPUTS', 'VALID', { telemetry: { gate: { ...gate, inputs: 12 } } }, 'on 12 inputs only'],
    ['FEW_SAMPLES', 'VALID', { summary: { count: 2009 } }, '2009 samples in 120 s; 2010 were wanted'],
    ['SAMPLES_CAPPED', 'VALID', { summary: { count: 2_000_000 } }, 'ended early'],
    ['NOISE_UNKNOWN', 'VALID', { telemetry: { noise: { ...noise, steal: null } } }, 'does not tell'],
  ])('%s is %s', (code, verdict, change: Change, message) => {
    const { reasons, ...found } = judged(change);
    const row = { ...good.telemetry, ...change.telemetry, elapsedNs: 120e9 } as ReportRow;
    expect(found).toEqual({ verdict });
    expect(reasons.map((reason) => [reason.code, reasonText(row, reason)])).toEqual([[code, expect.stringContaining(message)]]);
  });

  test('that was not made is UNAVAILABLE for its own reason', () => {
    const telemetry = nothingMeasured({ code: 'ENGINE_CRASHED', message: 'It crashed.' });
    const evidence = { telemetry, summary: null, stability: null, settings: good.settings };
    expect(judge(evidence)).toEqual({ verdict: 'UNAVAILABLE', reasons: [{ code: 'ENGINE_CRASHED', value: null, limit: null }] });
  });

  test('has the worst verdict of its reasons, and all of them', () => {
    const { verdict, reasons } = judged({
      telemetry: { noise: { ...noise, steal: 0.5 }, warmup: { runs: 1, durationNs: 1, settled: false } },
      stability: { drift: 0.9 },
    });
    expect([verdict, reasons.map(({ code }) => code)]).toEqual(['UNSTABLE', ['STEAL', 'DRIFT', 'WARMUP_CAPPED']]);
  });
});

test('the gate of a benchmark of an earlier version is read as one comparison of all outputs', () => {
  expect(GateResult.parse({ reference: 'PROBE', inputs: 32, largestDifference: 1e-5, tolerance: 1e-4 })).toEqual({
    reference: 'PROBE',
    inputs: 32,
    outputs: [{ output: '(all)', largestDifference: 1e-5, tolerance: 1e-4 }],
  });
});

describe('the shapes of a model’s inputs', () => {
  const image = (...shape: (number | string)[]) => [{ name: 'image', shape }];

  test('take the batch as their first dimension, and the others by name', () => {
    const ports = [
      { name: 'image', shape: ['n', 3, 'height', ''] },
      { name: 'size', shape: ['n', 2] },
    ];
    expect(planShapes(ports, 4, { height: 32, 'image[3]': 48 })).toEqual({
      shapes: new Map([
        ['image', [4, 3, 32, 48]],
        ['size', [4, 2]],
      ]),
    });
    expect(dimensionsOf(ports)).toEqual(['n', 'height', 'image[3]', 'n']);
  });

  test('take a first dimension that is named from `dims`', () => {
    expect(planShapes(image('length', 8), 4, { length: 100 })).toEqual({ shapes: new Map([['image', [100, 8]]]) });
  });

  test.each([
    [image('n', 3, 'h', 'w'), 'DIMENSION_MISSING', 'how large h, w are'],
    [image(1, 3, 8, 8), 'BATCH_FIXED', 'a batch of 1 only, not of 4'],
    [[{ name: 'image', shape: null }], 'INPUT_UNSUPPORTED', 'does not tell the shape of its input image'],
  ])('of %j at batch 4 cannot be made', (ports, code, message) => {
    expect(planShapes(ports, 4, {})).toEqual({ problem: { code, message: expect.stringContaining(message) } });
  });
});

test('cells of a model at a batch size follow each other, so that its inputs are made once', () => {
  const cells = planCells({
    models: ['a', 'b'],
    batchSizes: [1, 8],
    engines: ['ONNXRUNTIME_CPU', 'ONNXRUNTIME_CUDA'],
    intraOpThreads: [1, 2],
    instances: [1],
  });
  expect(cells.map(({ n }) => n)).toEqual(cells.map((_, i) => i));
  const keys = cells.map(({ model, batchSize }) => `${model} ${batchSize}`);
  expect(keys.filter((key, i) => key !== keys[i - 1])).toEqual(['0 1', '0 8', '1 1', '1 8']);
  expect(new Set(cells.map(({ n: _n, ...cell }) => JSON.stringify(cell))).size).toBe(16);
});
