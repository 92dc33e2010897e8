import { describe, expect, test } from 'vitest';
import { against, type BenchmarkJob, rowsOf } from '../tui/screens/measurements.tsx';
import { withTicks } from '../tui/screens/rounds.tsx';
import { intervalBar } from '../tui/ui/plot.ts';

describe('what the screen of a benchmark computes', () => {
  const row = (n: number, batchSize: number, ns: number, lowNs: number, highNs: number) => ({
    ...{ n, batchSize, model: 0, latency: { percentiles: [{ percent: 50, ns, lowNs, highNs }] } },
  });
  const job = (id: string, ...rows: object[]) =>
    ({
      id,
      report: { technical: { models: [{ name: 'digits', number: 2, precision: 'FP32' }], choice: { n: 0 }, rows } },
    }) as never as BenchmarkJob;

  test('an image of a row against one of another row, by batch; intervals that meet are no difference', () => {
    const [one, eight, near] = rowsOf([job('a', row(0, 1, 100, 95, 105), row(1, 8, 400, 390, 410), row(2, 1, 108, 102, 112))]);
    if (!one || !eight || !near) throw new Error('There are three rows.');
    expect([one, eight, near].map((r) => against(r, one))).toEqual(['reference', '−50 % faster', '≈ the same']);
    expect(against(one, eight)).toBe('+100 % slower');
    expect(against({ ...one, key: 'other', latency: null }, one)).toBe('too few samples');
  });

  test('rows of several benchmarks say which they are of', () => {
    const rows = rowsOf([job('a', row(0, 1, 1, 1, 1)), job('b', row(0, 1, 1, 1, 1))]);
    expect(rows.map(({ key, name, isChosen }) => [key, name, isChosen])).toEqual([
      ['a 0', 'A digits v2 FP32', true],
      ['b 0', 'B digits v2 FP32', true],
    ]);
  });

  test('ticks: each row keeps the figures of its latest round; a round that comes again counts once', () => {
    const block = (cell: number, round: number, p95Ms: number) => ({ cell, cells: 2, round, p95Ms });
    const begun = withTicks({ now: null, rows: new Map() }, [{}, { cell: 0, cells: 2 }]);
    expect([begun.now, begun.rows.get(0)?.points]).toEqual([{ cell: 0, cells: 2 }, []]);
    const { now, rows } = withTicks(begun, [block(0, 0, 2), block(0, 0, 2), block(1, 0, 5), block(1, 1, 6), block(0, 1, 3)]);
    expect(now).toEqual(block(0, 1, 3));
    expect(rows.get(0)?.points).toEqual([
      { x: 1, y: 2 },
      { x: 2, y: 3 },
    ]);
    expect(rows.get(1)).toEqual({
      latest: block(1, 1, 6),
      points: [
        { x: 1, y: 5 },
        { x: 2, y: 6 },
      ],
    });
  });

  test('a bar shows its interval, and never leaves its scale', () => {
    expect(intervalBar(5, 4, 7, 10, 10)).toBe('████▓░░');
    expect(intervalBar(5, null, null, 10, 10)).toBe('█████');
    expect(intervalBar(10, 9, 30, 10, 10)).toBe('█████████▓');
    expect(intervalBar(0, null, null, 10, 10)).toBe('');
  });
});
