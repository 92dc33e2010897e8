import { expect, test } from 'vitest';
import type { Machine } from '../src/benchmark/cells.ts';
import { chartOf, type HistoryPoint, machineLetters } from '../tui/screens/history.tsx';
import { processor, storeBenchmark, storeVersions } from './support/reports.ts';
import { withServer } from './support/server.ts';
import { key, logIn, withTui } from './support/tui.ts';

const point = (p95: number | null, machine: Machine = processor): HistoryPoint =>
  ({
    machine,
    scenario: 'SINGLE_STREAM',
    row: { latency: { percentiles: [{ percent: 50, ns: 1e6 }, ...(p95 === null ? [] : [{ percent: 95, ns: p95 * 1e6 }])] } },
  }) as never;

test('each machine has a letter and a curve of its own, the first one A', () => {
  const other = { ...processor, kernel: '7' };
  const newestFirst = [point(4, other), point(3), point(2)];
  expect([...machineLetters(newestFirst).values()]).toEqual(['A', 'B']);
  expect(chartOf(newestFirst)).toEqual({
    title: 'P95 ms',
    series: [
      {
        name: 'machine A',
        mark: 'A',
        points: [
          { x: 1, y: 2 },
          { x: 2, y: 3 },
        ],
      },
      { name: 'machine B', mark: 'B', points: [{ x: 3, y: 4 }] },
    ],
  });
  expect(chartOf([point(null), point(2)]).title).toBe('P50 ms');
});

test('a model shows its benchmarks over time; what became worse stands in the history, in the overview and among the events', () =>
  withServer(async (server) => {
    const { db } = server.services;
    await server.admin();
    storeVersions(db, [1, 2]);
    await storeBenchmark(db, [{ latencyMs: 4 }], [1]);
    await withTui(
      server.url,
      async (tui) => {
        await logIn(tui);
        await tui.shows('h history');
        tui.type('h');
        await tui.shows('Benchmarks of digits');
        await tui.shows(/1 +A +1 +4\.\d+ +4\.\d+/);
        await storeBenchmark(db, [{ latencyMs: 5 }], [2]);
        tui.type(key.esc);
        await tui.shows('h history');
        tui.type('h');
        await tui.shows('! digits version 2 is slower than version 1');
        await tui.shows(/2 +A +1 +5\.\d+ +5\.\d+/);
        await tui.shows('P95 ms');
        tui.type('1');
        await tui.shows(/! .* ago: digits version 2 is slower/);
      },
      { columns: 100, first: { screen: 'model', id: 'digits' } },
    );
  }));
