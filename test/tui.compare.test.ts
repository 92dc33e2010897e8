import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openDatabase } from '../src/db.ts';
import { opaqueId } from '../src/naming.ts';
import { comparedCharts, differencesOf } from '../tui/screens/curves.ts';
import { plot } from '../tui/ui/plot.ts';
import type { Step } from './support/child.ts';
import { submit, withJobServer } from './support/jobs.ts';
import { client, withFolder } from './support/server.ts';
import { hasTmux, logIn, script, type Terminal, whyNot, withTerminal } from './support/terminal.ts';

const epoch = (n: number, stepsOfAnEpoch: number, loss: number): Step => ({
  say: { type: 'epoch', epoch: n, epochs: 9, step: n * stepsOfAnEpoch, metrics: { 'val.loss': loss }, best: true, durationMs: 1 },
});

/** Two trainings that differ in their learning rate and their batches, and wait after the fourth epoch; an import before them. */
function storeRuns(folder: string): string[] {
  const { db, close } = openDatabase(folder);
  submit(db, { slots: 0 });
  const ids = [
    { learningRate: 0.1, stepsOfAnEpoch: 10, factor: 1 },
    { learningRate: 0.2, stepsOfAnEpoch: 40, factor: 2 },
  ].map(({ learningRate, stepsOfAnEpoch, factor }) => {
    const steps: Step[] = [
      'hello',
      { phase: 'training' },
      ...[1, 2, 3, 4].map((n) => epoch(n, stepsOfAnEpoch, factor / n)),
      { wait: 'seen' },
      epoch(5, stepsOfAnEpoch, factor / 64),
      'ok',
    ];
    const hyperparameters = { learningRate, momentum: 0.9 };
    return opaqueId('Job', submit(db, { kind: 'TRAIN', spec: { steps, folder, preset: 'resnet50', hyperparameters } }).id);
  });
  close();
  return ids;
}

const chart = (terminal: Terminal): string[] =>
  terminal
    .screen()
    .split('\n')
    .filter((line) => /[┤│]/.test(line));

describe.skipIf(!hasTmux)(`runs compared in a real terminal${whyNot}`, () => {
  test('two runs marked in Jobs: curves with marks of their own without colours, live, by epochs and by steps', () =>
    withFolder(async (folder) => {
      const [first, second] = storeRuns(folder) as [string, string];
      await withFolder((home) =>
        withJobServer(folder, async ({ url }) => {
          const token = await client({ url } as never, folder).admin();
          await withTerminal({ folder: home, args: ['jobs', '--url', url], env: { NO_COLOR: '1' } }, async (terminal) => {
            await logIn(terminal);
            await terminal.shows(/› ▶ RUNNING +TRAIN/);
            terminal.type(':', 'compare', 'Enter');
            await terminal.shows('0 runs are chosen; two to four are compared.');
            terminal.type('2');
            await terminal.shows('m mark to compare');
            terminal.type('G');
            await terminal.shows(/› . SUCCEEDED +IMPORT_MODEL/);
            await terminal.lacks('mark to compare');
            terminal.type('k', 'm');
            await terminal.shows(/› A ▶ RUNNING +TRAIN/);
            terminal.type('k', 'Space');
            await terminal.shows(/› B ▶ RUNNING +TRAIN/);
            terminal.type('c');
            await terminal.shows('val.loss by epochs  A resnet50 0.25  B resnet50 0.5');
            await terminal.shows(/^.*┤.*A/m);
            for (const mark of ['A', 'B']) expect(chart(terminal).some((line) => line.includes(mark))).toBe(true);
            await terminal.shows(/setting +learningRate +0\.1 +0\.2/);
            await terminal.shows(/A +▶ RUNNING +resnet50 +epoch 4, step 40/);
            await terminal.shows(/B +▶ RUNNING +resnet50 +epoch 4, step 160/);
            expect(terminal.screen()).not.toContain('momentum');
            await terminal.shows(/└1 +4$/m);
            terminal.type('e');
            await terminal.shows('val.loss by steps');
            await terminal.shows(/└10 +160$/m);
            terminal.resize(40, 12);
            await terminal.shows(/^.{0,40}● connected$/m);
            await terminal.shows(/val\.loss +0\.25 +0\.5/);
            terminal.resize(80, 24);
            writeFileSync(join(folder, 'seen'), '');
            await terminal.shows(/last +val\.loss +0\.01563 +0\.03125/);
            await terminal.shows(/A +✓ SUCCEEDED .*\n.*B +✓ SUCCEEDED/);
            terminal.type('Escape');
            await terminal.shows('c compare 2 runs');
          });
          const env = { WHETSTONE_TOKEN: token, XDG_CONFIG_HOME: home };
          const { stdout } = await script(['compare', first, second, '--json', '--url', url], env);
          expect(JSON.parse(stdout).nodes).toMatchObject([
            { id: first, metrics: [{ name: 'val.loss', steps: [10, 20, 30, 40, 50], epochs: [1, 2, 3, 4, 5] }] },
            { id: second, metrics: [{ name: 'val.loss', steps: [40, 80, 120, 160, 200] }] },
          ]);
        }),
      );
    }));
});

test('a chart for each metric, a curve for each run: one without the metric keeps its place', () => {
  const epochs = (...names: string[]) => [{ epoch: 1, step: 8, metrics: names.map((name) => ({ name, value: 1 })) }];
  const runs = [
    { name: 'a', mark: 'A', epochs: epochs('learningRate', 'val.loss') },
    { name: 'b', mark: 'B', epochs: epochs('val.loss', 'val.top1') },
  ];
  const charts = comparedCharts(runs, 'epoch');
  expect(charts.map(({ title, series }) => [title, series.map(({ mark, points }) => `${mark}${points.length}`)])).toEqual([
    ['val.loss', ['A1', 'B1']],
    ['val.top1', ['A0', 'B1']],
    ['learningRate', ['A1', 'B0']],
  ]);
  expect(comparedCharts(runs, 'step')[0]?.series[0]?.points).toEqual([{ x: 8, y: 1 }]);
});

test('settings that differ, also those that only one run has', () => {
  const specs = [
    { preset: 'resnet50', seed: 1, hyperparameters: { epochs: 4, momentum: 0.9 } },
    { preset: 'resnet50', seed: 2, hyperparameters: { epochs: 4 }, init: { from: 'SCRATCH' } },
  ];
  expect(differencesOf(specs)).toEqual([
    { name: 'seed', values: ['1', '2'] },
    { name: 'hyperparameters.momentum', values: ['0.9', '–'] },
    { name: 'init.from', values: ['–', 'SCRATCH'] },
  ]);
});

test.each(['braille', 'blocks'] as const)('four curves of %s are told apart by their marks alone', (glyphs) => {
  const series = ['A', 'B', 'C', 'D'].map((mark, n) => ({
    name: mark,
    mark,
    points: Array.from({ length: 30 }, (_, x) => ({ x, y: n + x / 30 })),
  }));
  const picture = plot(series, { width: 60, height: 16, glyphs });
  for (const [owner, { mark }] of series.entries()) {
    const pieces = picture.flat().filter(({ text }) => text.includes(mark));
    expect(pieces.length).toBeGreaterThan(2);
    expect(pieces.every((piece) => piece.series === owner)).toBe(true);
  }
  expect(picture.every((line) => line.map(({ text }) => text).join('').length <= 60)).toBe(true);
});
