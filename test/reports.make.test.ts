import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Telemetry } from '../src/benchmark/cells.ts';
import type { BenchmarkContext, ModelContext } from '../src/benchmark/context.ts';
import type { RawSamples } from '../src/benchmark/samples.ts';
import { opaqueId } from '../src/naming.ts';
import { compareReports } from '../src/reports/comparison.ts';
import { exportReport } from '../src/reports/exports.ts';
import { makeReport } from '../src/reports/make.ts';
import { viewOf } from '../src/reports/view.ts';
import { modelContext, type StoredRow, stored as storedBenchmark, telemetry } from './support/reports.ts';

const model = (number: number, top1: number | null, change: Partial<ModelContext> = {}): ModelContext =>
  modelContext(number, {
    accuracy:
      top1 === null
        ? null
        : {
            metric: 'TOP1',
            value: top1,
            images: 360,
            dataset: 'digits',
            datasetVersion: 1,
            datasetHash: 'd'.repeat(64),
            split: 'val',
            engine: 'torch',
            ofParent: true,
          },
    ...change,
  });

/** Ten seconds of a single stream at this speed, every tenth inference a tenth slower where there are many. */
function steady(latencyMs: number): RawSamples {
  const slower = latencyMs < 100 ? 1.1 : 1;
  const n = Math.ceil(10_000 / (latencyMs * (0.9 + 0.1 * slower))) + 1;
  const latencyNs = Float64Array.from({ length: n }, (_, i) => Math.round(latencyMs * 1e6 * (i % 10 === 9 ? slower : 1)));
  let end = 0;
  const endNs = latencyNs.map((ns) => {
    end += ns;
    return end;
  });
  return { latencyNs, endNs, block: endNs.map((ns) => Math.floor(ns / 1e9)) };
}

/** Ten seconds of which each is up to 40 % faster or slower than the one before, around this speed; `shift` makes it other seconds. */
function uneven(latencyMs: number, shift = 0): RawSamples {
  const factors = [1, 0.7, 1.4, 0.8, 1.2, 0.65, 1.35, 0.9, 1.1, 1];
  return inSeconds([...factors.slice(shift), ...factors.slice(0, shift)].map((factor) => latencyMs * factor));
}

/** Seconds of these latencies, each a round. */
function inSeconds(latenciesMs: number[]): RawSamples {
  const seconds = latenciesMs.map((latencyMs) => Array.from({ length: Math.ceil(1000 / latencyMs) }, () => Math.round(latencyMs * 1e6)));
  const latencyNs = Float64Array.from(seconds.flat());
  let end = 0;
  const endNs = latencyNs.map((ns) => {
    end += ns;
    return end;
  });
  return { latencyNs, endNs, block: Float64Array.from(seconds.flatMap((all, n) => all.map(() => n))) };
}

const stored = (rows: StoredRow[], models = [model(1, 0.98)], request: Partial<BenchmarkContext['request']> = {}) =>
  storedBenchmark(rows, models, request);

const reportOf = async (...from: Parameters<typeof stored>) => {
  const { source, read } = stored(...from);
  const made = await makeReport(source, read);
  return { ...made, report: viewOf(made.report) };
};

describe('a report', () => {
  test('is a function of its samples', async () => {
    const latencies = fc.array(fc.integer({ min: 1000, max: 50_000_000 }), { minLength: 1, maxLength: 300 });
    const samples = latencies.map((all): RawSamples => {
      let end = 0;
      const endNs = Float64Array.from(all, (ns) => {
        end += ns;
        return end;
      });
      return { latencyNs: Float64Array.from(all), endNs, block: endNs.map(() => 0) };
    });
    await fc.assert(
      fc.asyncProperty(fc.array(samples, { minLength: 1, maxLength: 4 }), fc.nat(299), async (all, at) => {
        const rows = all.map((one, i) => ({ samples: one, intraOpThreads: i + 1 }));
        const made = await reportOf(rows);
        expect((await reportOf(rows)).content).toBe(made.content);
        expect(createHash('sha256').update(made.content).digest('hex')).toBe(made.sha256);
        // One nanosecond in one sample is another report.
        const first = all[0] as RawSamples;
        const latencyNs = first.latencyNs.slice();
        latencyNs[at % latencyNs.length] = (latencyNs[at % latencyNs.length] as number) + 1;
        expect((await reportOf([{ samples: { ...first, latencyNs } }, ...rows.slice(1)])).sha256).not.toBe(made.sha256);
      }),
      { numRuns: 40 },
    );
  });

  test('is stored without a sentence, so that better wording never makes it look forged', async () => {
    const noisy = { samples: uneven(10), telemetry: { noise: { steal: 0.5, throttled: null, contention: 0 } } };
    const rows = [noisy, { samples: uneven(9, 3), model: 1 }, { samples: steady(4), batchSize: 4 }];
    const { content, report } = await reportOf(rows, [model(1, 0.98), model(2, 0.97)]);
    const strings: string[] = [];
    JSON.parse(content, (_key, value) => {
      if (typeof value === 'string') strings.push(value);
    });
    // Besides what a process said when it measured, which is stored with the row.
    expect(new Set(strings.filter((value) => /\S \S+ \S/.test(value)))).toEqual(new Set([telemetry.gpu.reason]));
    const sentences = [...report.simple.points, ...report.choice.steps.map(({ says }) => says), ...report.deltas.map(({ says }) => says)];
    expect(sentences.filter((says) => !/^[A-Z0-9].+ .+\.$/.test(says))).toEqual([]);
  });

  test('of an earlier form keeps the sentences that it was stored with', async () => {
    const { report } = await reportOf([{ samples: steady(10) }]);
    const earlier = { ...report, schemaVersion: 3, simple: { headline: 'As it was worded then.', points: [] } };
    expect(viewOf(earlier as never)).toEqual(earlier);
  });

  test('says of each row what its samples support', async () => {
    const { report, verdict } = await reportOf([{ samples: steady(10) }]);
    expect(verdict).toBe('VALID');
    expect(report.rows[0]).toMatchObject({
      verdict: 'VALID',
      reasons: [],
      precision: 'FP32',
      samples: { count: 992, sizeBytes: 24 * 992 },
      latency: {
        minNs: 10_000_000,
        maxNs: 11_000_000,
        p50: { kind: 'EXACT', ns: 10_000_000, lowNs: 10_000_000, highNs: 10_000_000 },
        p95: { kind: 'EXACT', ns: 11_000_000 },
      },
      memory: { increaseBytes: 300 * 2 ** 20 },
      stability: { windows: 10, p95Spread: 0 },
    });
    // QUICK makes no claim about P99.
    expect(Object.keys(report.rows[0]?.latency ?? {})).toEqual([
      'meanNs',
      'meanLowNs',
      'meanHighNs',
      'minNs',
      'maxNs',
      'distributionNs',
      'p50',
      'p95',
    ]);
    expect(report.rows[0]?.itemsPerSecond).toBeCloseTo(1000 / 10.1, 1);
    const full = await reportOf([{ samples: steady(10) }], undefined, { profile: 'FULL' });
    expect(full.report.rows[0]?.latency).toMatchObject({
      p99: { kind: 'AT_MOST', ns: 11_000_000 },
      p999: { kind: 'INSUFFICIENT', ns: null },
    });
  });

  test('has no place for what is not in it: of a row without samples', async () => {
    const unavailable = { code: 'ENGINE_UNAVAILABLE', message: 'There is no GPU.' };
    const nothing = { unavailable, cold: null, gate: null, warmup: null, memory: null, noise: null };
    const { report, verdict } = await reportOf([{ samples: null, engine: 'ONNXRUNTIME_CUDA', telemetry: nothing }]);
    expect(verdict).toBe('UNAVAILABLE');
    expect(report.rows[0]).toMatchObject({
      verdict: 'UNAVAILABLE',
      reasons: [expect.objectContaining(unavailable)],
      latency: null,
      itemsPerSecond: null,
      memory: null,
    });
    expect(report).toMatchObject({ baseline: null, deltas: [], choice: { n: null, says: 'No winner: nothing could be measured.' } });
    expect(report.simple).toEqual({ headline: 'No winner: nothing could be measured.', points: ['There is no GPU.'] });
  });
});

describe('a delta', () => {
  const delta = async (...rows: StoredRow[]) => (await reportOf(rows, [model(1, 0.98), model(2, 0.95)])).report.deltas;

  test('is FASTER or SLOWER when all rounds say so and it is 3 % or more', async () => {
    expect(
      await delta({ samples: steady(10) }, { samples: steady(8), intraOpThreads: 2 }, { samples: steady(12), intraOpThreads: 3 }),
    ).toMatchObject([
      { n: 1, verdict: 'FASTER', timeRatio: expect.closeTo(0.8, 9), says: expect.stringContaining('20.0 % less time') },
      { n: 2, verdict: 'SLOWER', timeRatio: expect.closeTo(1.2, 9), says: expect.stringContaining('20.0 % more time') },
    ]);
  });

  test('of less than 3 % is none, though every round says so', async () => {
    expect(await delta({ samples: steady(10) }, { samples: steady(10.2) })).toMatchObject([
      { verdict: 'NO_DIFFERENCE', timeRatio: expect.closeTo(1.02, 9) },
    ]);
  });

  test('compares the time of one item, whatever the batch', async () => {
    expect(await delta({ samples: steady(10) }, { samples: steady(40), batchSize: 8 })).toMatchObject([
      { verdict: 'FASTER', timeRatio: expect.closeTo(0.5, 9) },
    ]);
  });

  test('is made of noisy rows too: what the machine did in a round met both', async () => {
    const noisy = { noise: { steal: 0.5, throttled: 0, contention: 0 } };
    expect(await delta({ samples: uneven(10), telemetry: noisy }, { samples: uneven(9), telemetry: noisy })).toMatchObject([
      { verdict: 'FASTER', timeRatio: expect.closeTo(0.9, 9) },
    ]);
  });

  test('is UNDECIDED where the rounds contradict each other, with the interval', async () => {
    const [found] = await delta({ samples: uneven(10) }, { samples: uneven(9, 3) });
    expect(found).toMatchObject({ verdict: 'UNDECIDED', says: expect.stringContaining('in 10 rounds') });
    expect([(found?.timeRatioLow as number) < 0.9, (found?.timeRatioHigh as number) > 1]).toEqual([true, true]);
  });

  test('is not made with fewer than five rounds, nor of rows that an earlier version measured one after the other', async () => {
    expect(await delta({ samples: steady(10) }, { samples: steady(2500) })).toMatchObject([{ verdict: 'NOT_COMPARABLE', timeRatio: null }]);
    const { source, read } = stored([{ samples: steady(10) }, { samples: steady(8) }]);
    const { report } = await makeReport({ ...source, context: { ...source.context, inRounds: false } }, read);
    expect(report.deltas).toMatchObject([{ verdict: 'NOT_COMPARABLE', timeRatio: null }]);
    expect(report.choice.confidence).toBe('LOW');
  });

  test('is against the first version at the smallest batch on the fewest threads', async () => {
    const rows = [
      { samples: steady(5), model: 1 },
      { samples: steady(5), batchSize: 2 },
      { samples: steady(5), intraOpThreads: 2 },
      { samples: steady(5) },
    ];
    const { report } = await reportOf(rows, [model(1, 0.98), model(2, 0.95)]);
    expect(report.baseline).toBe(3);
    expect(report.deltas.map(({ n }) => n)).toEqual([0, 1, 2]);
    expect(report.deltas[0]?.accuracyDifference).toBeCloseTo(-0.03, 12);
  });
});

describe('the choice', () => {
  const steps = async (rows: StoredRow[], models?: ModelContext[], request?: Partial<BenchmarkContext['request']>) => {
    const { choice } = (await reportOf(rows, models, request)).report;
    return { n: choice.n, kept: Object.fromEntries(choice.steps.map(({ rule, kept }) => [rule, kept])), says: choice };
  };
  const fast = steady(5);

  test('looks at accuracy before it looks at speed', async () => {
    const models = [model(1, 0.98), model(2, 0.95), model(3, 0.975)];
    const rows = [{ samples: steady(10) }, { samples: fast, model: 1 }, { samples: steady(8), model: 2 }];
    const found = await steps(rows, models);
    expect(found).toMatchObject({ n: 2, kept: { RIGHT: [0, 1, 2], ACCURACY: [0, 2], TARGET: [2] } });
    expect(await steps(rows, models, { accuracyDropMax: 0.05 })).toMatchObject({ n: 1, kept: { ACCURACY: [0, 1, 2] } });
    expect(await steps(rows, models, { accuracyDropMax: 0 })).toMatchObject({ n: 0, kept: { ACCURACY: [0] } });
  });

  test('drops a version whose accuracy nobody knows, and asks for none when no one’s is known', async () => {
    const rows = [{ samples: steady(10) }, { samples: fast, model: 1 }];
    expect(await steps(rows, [model(1, 0.98), model(2, null)])).toMatchObject({ n: 0, kept: { ACCURACY: [0] } });
    expect(await steps(rows, [model(1, null), model(2, null)])).toMatchObject({ n: 1, kept: { ACCURACY: [0, 1] } });
  });

  test('of detectors is by their mAP, which stands beside the speed', async () => {
    const detector = (number: number, value: number) => {
      const { accuracy, ...rest } = model(number, value);
      return { ...rest, accuracy: accuracy && { ...accuracy, metric: 'MAP50_95' as const } };
    };
    const stored = await reportOf([{ samples: steady(10) }, { samples: fast, model: 1 }], [detector(1, 0.7), detector(2, 0.65)]);
    const { choice, simple } = stored.report;
    expect(choice.n).toBe(0);
    expect(choice.steps[1]?.says).toContain('reaches mAP50-95 0.7000');
    expect(simple.points.join(' ')).toContain('Being right: mAP50-95 0.7000 on 360 images');
    expect(exportReport(stored, 'MARKDOWN').content).toContain('mAP50-95 0.6500 (digits version 1, val)');
  });

  test('does not compare accuracies on different images', async () => {
    const other = model(2, 0.5);
    const accuracy = other.accuracy && { ...other.accuracy, datasetHash: 'e'.repeat(64) };
    const found = await steps([{ samples: steady(10) }, { samples: fast, model: 1 }], [model(1, 0.98), { ...other, accuracy }]);
    expect(found).toMatchObject({ n: 1, kept: { ACCURACY: [0, 1] } });
    expect(found.says.steps[1]?.says).toContain('different images');
  });

  test.each([
    ['LATENCY' as const, 0],
    ['THROUGHPUT' as const, 1],
    ['MEMORY' as const, 2],
  ])('by %s takes row %i', async (target, n) => {
    const memory = { memory: { baselineBytes: 100, peakBytes: 200 } };
    const rows = [
      { samples: steady(10) },
      { samples: steady(40), batchSize: 8 },
      { samples: steady(12), intraOpThreads: 2, telemetry: memory },
    ];
    expect(await steps(rows, undefined, { target })).toMatchObject({ n });
  });

  test('by latency looks at the median, then the mean, where a row has too few samples for P95', async () => {
    const metric = async (latencyMs: number) =>
      (await steps([{ samples: steady(10) }, { samples: steady(latencyMs), intraOpThreads: 2 }])).says.steps[2]?.says;
    expect(await metric(20)).toContain('best P95 latency is 11.0 ms');
    expect(await metric(200)).toContain('best median latency is 10.0 ms');
    expect(await metric(1250)).toContain('best mean latency is 10.1 ms');
  });

  test('takes the simpler of those that are within 1 %', async () => {
    const rows = [
      { samples: steady(9.91), engine: 'ONNXRUNTIME_CUDA' as const },
      { samples: steady(9.95), intraOpThreads: 2 },
      { samples: steady(10) },
      { samples: steady(20) },
    ];
    expect(await steps(rows)).toMatchObject({ n: 2, kept: { TARGET: [0, 1, 2], SIMPLER: [2] } });
  });

  test.each([
    [
      'no configuration computes the right results',
      { gate: { ...telemetry.gate, outputs: [{ output: 'logits', largestDifference: 1, tolerance: 1e-4 }] } as Telemetry['gate'] },
    ],
    ['nothing could be measured', { unavailable: { code: 'ENGINE_CRASHED', message: 'It crashed.' } }],
  ])('is none when %s', async (why, change) => {
    const { report } = await reportOf([{ samples: null, telemetry: change }]);
    expect(report.choice).toMatchObject({ n: null, confidence: null, says: `No winner: ${why}.`, steps: [{ rule: 'RIGHT', kept: [] }] });
    expect(report.simple.headline).toBe(`No winner: ${why}.`);
  });

  const noisy = { noise: { steal: 0.06, throttled: 0, contention: 0 } };
  const confidenceOf = async (...from: Parameters<typeof stored>) => {
    const { choice } = (await reportOf(...from)).report;
    return { n: choice.n, confidence: choice.confidence, says: choice.steps.at(-1)?.says };
  };

  test('never recommends a batch of 4 over a batch of 1 for the latency, however noisy the batch of 1 was', async () => {
    const rows = [
      { samples: uneven(4.4), telemetry: noisy },
      { samples: steady(10.1), batchSize: 4 },
      { samples: uneven(2.4), intraOpThreads: 2, telemetry: noisy },
      { samples: steady(6.1), batchSize: 4, intraOpThreads: 2 },
    ];
    expect(await confidenceOf(rows)).toMatchObject({ n: 2 });
    // Noise that makes the batch of 1 slower than that of 4.
    rows[0] = { samples: steady(40), telemetry: noisy };
    rows[2] = { samples: steady(50), intraOpThreads: 2, telemetry: noisy };
    expect(await confidenceOf(rows)).toMatchObject({ n: 0 });
  });

  test('is sure when all others are worse in all rounds', async () => {
    const rows = [{ samples: steady(10) }, { samples: steady(5), intraOpThreads: 2 }];
    expect(await confidenceOf(rows)).toMatchObject({ n: 1, confidence: 'HIGH' });
  });

  test('is of middle confidence among rows that are as good', async () => {
    const rows = [{ samples: steady(10) }, { samples: steady(9.91), intraOpThreads: 2 }, { samples: steady(20), intraOpThreads: 3 }];
    expect(await confidenceOf(rows)).toMatchObject({ n: 0, confidence: 'MEDIUM' });
  });

  test('of noisy rows is unsure, and says of which row, what disturbed them and what to do', async () => {
    const rows = [
      { samples: uneven(10), telemetry: noisy },
      { samples: uneven(9, 3), intraOpThreads: 2, telemetry: noisy },
    ];
    const { n, confidence, says } = await confidenceOf(rows);
    expect((await reportOf(rows)).report.choice.others).toBe(
      '#0 (1 thread: 14.0 ms) seemed to have a worse P95 latency, but the rounds do not tell.',
    );
    expect([n, confidence]).toEqual([1, 'LOW']);
    expect(says).toContain('row 0 is better by more than 5 %');
    expect(says).toContain('other virtual machines took processor time: measure with the profile FULL on a quieter machine');
  });

  test('compares rows in the rounds that nothing disturbed, where six are left, and says so', async () => {
    const rows = (disturbedRounds: number[]) => [
      { samples: inSeconds([10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10]), intraOpThreads: 1 },
      { samples: inSeconds([7, 20, 7, 20, 7, 20, 7, 20, 7, 20, 7, 20, 20]), intraOpThreads: 2, telemetry: { disturbedRounds } },
    ];
    const { report } = await reportOf(rows([1, 3, 5, 7, 9, 11, 12]));
    expect(report.choice).toMatchObject({ n: 1, confidence: 'HIGH' });
    expect(report.choice.steps.map(({ says }) => says)).toContain(
      'Where nothing disturbed the rounds, row 1 has the best P95 latency: 20.0 ms over all rounds. Up to 7 rounds were left out.',
    );
    expect(report.choice.others).toBe(
      '#0 (1 thread: 10.0 ms) has a worse P95 latency, compared round by round where nothing disturbed them.',
    );
    expect((await reportOf(rows([0, 2, 4, 6, 8, 10, 1, 3]))).report.choice, 'five are left').toMatchObject({ n: 0, confidence: 'LOW' });
  });

  test('by throughput compares the throughput within rounds', async () => {
    const request = { target: 'THROUGHPUT' as const };
    const unsure = [{ samples: uneven(10) }, { samples: uneven(36, 3), batchSize: 4 }];
    expect(await confidenceOf(unsure, undefined, request)).toMatchObject({ n: 1, confidence: 'LOW' });
    const sure = [{ samples: steady(10) }, { samples: steady(36), batchSize: 4 }];
    expect(await confidenceOf(sure, undefined, request)).toMatchObject({ n: 1, confidence: 'HIGH' });
  });
});

describe('two reports', () => {
  test('of two versions on two machines say what was different, and what that changed', async () => {
    const before = (
      await reportOf([{ samples: steady(10) }, { samples: steady(12), intraOpThreads: 2 }, { samples: steady(9), batchSize: 8 }])
    ).report;
    const later = (await reportOf([{ samples: steady(8) }, { samples: steady(12.1), intraOpThreads: 2 }], [model(2, 0.97)])).report;
    const after = { ...later, machine: { ...later.machine, cores: 4 } };
    const { differences, rows } = compareReports(before, after);
    expect(differences).toEqual([
      { name: 'cores', before: '2', after: '4' },
      { name: 'models', before: 'digits version 1', after: 'digits version 2' },
    ]);
    expect(rows).toMatchObject([
      { verdict: 'FASTER', timeRatio: expect.closeTo(0.8, 9), accuracyDifference: expect.closeTo(-0.01, 9) },
      { verdict: 'NO_DIFFERENCE', timeRatio: expect.closeTo(12.1 / 12, 9) },
    ]);
  });

  test('without a configuration in common are not compared', async () => {
    const [one, other] = [await reportOf([{ samples: steady(10) }]), await reportOf([{ samples: steady(10), batchSize: 2 }])];
    expect(() => compareReports(one.report, other.report)).toThrow('no configuration in common');
  });
});

describe('an interval', () => {
  const p50 = async (samples: RawSamples) => (await reportOf([{ samples }])).report.rows[0]?.latency?.p50;

  test('is as wide as the machine changes from second to second', async () => {
    expect(await p50(steady(10))).toMatchObject({ lowNs: 10_000_000, highNs: 10_000_000 });
    const { ns, lowNs, highNs } = (await p50(uneven(10))) as { ns: number; lowNs: number; highNs: number };
    expect([lowNs < 0.9 * ns, highNs > 1.1 * ns]).toEqual([true, true]);
  });
});

describe('the simple view', () => {
  test('says what the numbers mean before how they were made', async () => {
    const { report } = await reportOf([{ samples: steady(10) }, { samples: steady(5), intraOpThreads: 2 }]);
    expect(report.simple.headline).toBe('digits version 1 typically answers an image in 5.00 ms, and does 198 images a second.');
    expect(report.simple.points.map((point) => point.split(/[:.]/)[0])).toEqual([
      'Use digits version 1, ONNX Runtime on the processor, batch 1, 2 threads',
      'Why not the others',
      'How sure',
      'Waiting',
      'Work',
      'Memory',
      'Start',
      'Being right',
      'Compared with digits version 1, ONNX Runtime on the processor, batch 1, 1 thread',
      'How it was measured',
    ]);
    expect(report.simple.points).toContain(
      'Why not the others: #0 (1 thread: 11.0 ms) has a worse P95 latency, compared round by round. ' +
        'P95 latency: 95 of 100 answers were at least this fast. Round: a short time in which every row was measured once, in a random order.',
    );
    expect(report.simple.points).toContain(
      'How sure: Confidence HIGH: the P95 latency of every other row is worse beyond doubt. Nothing more has to be measured.',
    );
    expect(report.simple.points).toContain('Waiting: half of all answers come within 5.00 ms, and 95 of 100 within 5.50 ms.');
    expect(report.simple.points).toContain('Being right: it names the right class for 98.00 % of 360 images (digits version 1, val).');
  });

  test('explains P95 latency and rounds once, where they are met first', async () => {
    const { report } = await reportOf([{ samples: steady(10) }, { samples: steady(5), intraOpThreads: 2 }]);
    const said = report.simple.points.join('\n');
    for (const [word, explanation] of [
      ['P95 latency', 'P95 latency: 95 of 100'],
      ['round', 'Round: a short time'],
    ] as const) {
      expect(said.split(explanation)).toHaveLength(2);
      const first = report.simple.points.find((point) => point.includes(word));
      expect(first).toContain(explanation);
    }
    const alone = await reportOf([{ samples: steady(10) }]);
    expect(alone.report.simple.points.join('\n')).not.toMatch(/P95 latency:|Round:/);
  });

  test('says whether a mAP is better than that of the version before, or that there is nothing to compare it with', async () => {
    const rightOf = async (earlier: ModelContext['earlier']) => {
      const { accuracy, ...rest } = model(2, 0.7);
      const detector = { ...rest, accuracy: accuracy && { ...accuracy, metric: 'MAP50_95' as const }, earlier };
      const { report } = await reportOf([{ samples: steady(10) }], [detector]);
      return report.simple.points.find((point) => point.startsWith('Being right'));
    };
    expect(await rightOf({ number: 1, value: 0.65 })).toMatch(/On the same images version 1 reached 0\.6500: this one is better\.$/);
    expect(await rightOf({ number: 1, value: 0.75 })).toMatch(/reached 0\.7500: this one is worse\.$/);
    expect(await rightOf(null)).toContain('No earlier version was evaluated on these images: there is nothing to compare that with.');
    expect(await rightOf(undefined)).toMatch(/and nothing else\.$/);
  });

  test('of the scenario OFFLINE speaks of the work, not of waiting', async () => {
    const { report } = await reportOf([{ samples: steady(10), instances: 2 }], undefined, { scenario: 'OFFLINE', target: 'THROUGHPUT' });
    expect(report.simple.headline).toBe('digits version 1 does 99.0 images a second.');
    expect(report.simple.points.join('\n')).not.toContain('Waiting');
    expect(report.simple.points.join('\n')).toContain('2 images at a time');
    expect(report.simple.points.join('\n')).toContain(
      'all given at once, with ONNX Runtime on the processor (onnxruntime 1.30.0) on 2 × 1 thread',
    );
  });

  test('of a batch speaks of the batch, and of few samples only of the mean', async () => {
    const { report } = await reportOf(
      [{ samples: steady(900), batchSize: 8, telemetry: { noise: { steal: 1, throttled: 0, contention: 0 } } }],
      [model(1, null)],
    );
    expect(report.simple.headline).toBe('digits version 1 on average answers 8 images in 900 ms, and does 8.89 images a second.');
    expect(report.simple.points.join('\n')).toContain('Waiting: an answer comes after 900 ms on average.');
    expect(report.simple.points.join('\n')).toContain('nobody has evaluated this version yet');
    expect(report.simple.points.join('\n')).toContain('Keep in mind: Other virtual machines took 100.0 %');
    const quick = await reportOf([{ samples: steady(40), batchSize: 8 }]);
    expect(quick.report.simple.headline).toBe('digits version 1 typically answers 8 images in 40.0 ms, and does 198 images a second.');
    expect(quick.report.simple.points.join('\n')).toContain('half of all answers for 8 images come within');
  });
});

describe('an export', () => {
  const made = () =>
    reportOf(
      [
        { samples: steady(10) },
        { samples: steady(5), intraOpThreads: 2 },
        { samples: steady(70), intraOpThreads: 3, telemetry: { noise: null } },
      ],
      [model(1, 0.98, { name: 'digits "a", b|c' })],
      { profile: 'FULL' },
    );

  test('as JSON is what the hash is of', async () => {
    const { content, sha256 } = await made();
    const exported = exportReport({ content, sha256 }, 'JSON');
    expect(exported).toEqual({ fileName: `report-${sha256.slice(0, 12)}.json`, mediaType: 'application/json', content, sha256 });
    expect(createHash('sha256').update(exported.content).digest('hex')).toBe(sha256);
  });

  test('as CSV has a line for each row, with every number and quoted names', async () => {
    const stored = await made();
    const { content, mediaType } = exportReport(stored, 'CSV');
    expect(mediaType).toBe('text/csv');
    const lines = content.split('\r\n');
    expect(lines).toHaveLength(5);
    const names = (lines[0] as string).split(',');
    const cells = (lines[2] as string).replace('"digits ""a"", b|c"', 'name').split(',');
    const row = Object.fromEntries(names.map((name, i) => [name, cells[i]]));
    expect(lines[2]).toContain('1,"digits ""a"", b|c",1,FP32,');
    expect(row).toMatchObject({
      verdict: 'VALID',
      p50Ns: '5000000',
      p95Ns: '5500000',
      p99Kind: 'AT_MOST',
      p999Kind: 'INSUFFICIENT',
      p999Ns: '',
      accuracyMetric: 'TOP1',
      accuracy: '0.98',
      itemsPerSecond: String(stored.report.rows[1]?.itemsPerSecond),
      samplesSha256: stored.report.rows[1]?.samples?.sha256,
    });
  });

  test('as Markdown is the simple view, then every table, with the hash', async () => {
    const stored = await made();
    const { content } = exportReport(stored, 'MARKDOWN');
    expect(content.split('\n')[0]).toBe(`# ${stored.report.simple.headline.replace('|', '\\|')}`);
    for (const title of ['## Results', '## Choice', '## Compared with row 0', '## Models', '## How it was measured', '## Provenance'])
      expect(content).toContain(title);
    expect(content).toContain('digits "a", b\\|c version 1');
    expect(content).toContain('insufficient samples');
    expect(content).toContain('≤ 5.50 ms');
    expect(content).toContain('10.0 ms (10.0 to 10.0)');
    expect(content).toContain(stored.sha256);
    const widths = content
      .split('\n')
      .filter((line) => line.startsWith('|'))
      .map((line) => line.replaceAll('\\|', '').split('|').length);
    expect(new Set(widths).size).toBeLessThanOrEqual(5);
    const { jobId, models } = stored.report;
    const [text, provenance] = content.split('## Provenance') as [string, string];
    for (const id of [opaqueId('Job', jobId), ...models.map(({ versionId }) => opaqueId('ModelVersion', versionId))]) {
      expect(provenance).toContain(id);
      expect(text).not.toContain(id);
    }
    for (const id of [jobId, ...models.map(({ versionId }) => versionId)]) expect(content).not.toContain(id);
    for (const { samples } of stored.report.rows) expect(content).toContain(samples?.sha256);
  });
});
