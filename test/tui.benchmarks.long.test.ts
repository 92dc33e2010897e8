import { join } from 'node:path';
import { expect, test } from 'vitest';
import { makeBenchmarkModels } from './support/benchmark.ts';
import { withFolder, withServer } from './support/server.ts';
import { fill, hasTmux, logIn, whyNot, withTerminal } from './support/terminal.ts';
import { modelVersionOf, mutate, succeeded } from './support/training.ts';

test.skipIf(!hasTmux)(
  `a benchmark is started from a form, watched round by round, read, compared with another, and its report opened${whyNot}`,
  { timeout: 300_000 },
  () =>
    withServer(async (server) => {
      const token = await server.admin();
      const api = { url: server.url, token };
      const models = makeBenchmarkModels();
      const id = await modelVersionOf(api, 'digits', join(models, 'classifier.onnx'));
      await withFolder((folder) =>
        withTerminal({ folder, args: ['--url', server.url] }, async (terminal) => {
          await logIn(terminal);
          terminal.type('5');
          await terminal.shows('There is no benchmark yet');
          terminal.type('n');
          await terminal.shows('Start a benchmark');
          await fill(terminal, 'Batch sizes', '1,2');
          await fill(terminal, 'Intra op threads', '1');
          await fill(terminal, 'Warmup seconds max', '0.2');
          await fill(terminal, 'Seconds min', '2');
          await fill(terminal, 'Seconds max', '2');
          terminal.type('C-s');
          await terminal.shows(/RUNNING +BENCHMARK/);
          terminal.type('5');
          await terminal.shows(/› +▶ RUNNING +digits v1/);
          terminal.type('Enter');
          await terminal.shows(/row [1-4] of \d+: digits v1, batch [12], 1 threads +measurement +round [2-9]/);
          await terminal.shows(/P95 in ms by rounds.*row [1-4].*row [1-4]/);
          await terminal.shows(/1 digits v1 +1 +1 +[\d,]+.*█/);
          await terminal.shows(/digits v1 +2 +1 +[\d,]+/);
          await terminal.shows('open the report');
          expect(terminal.screen()).toMatch(/★.*digits v1 FP32 +[12] +1 +[\d.]+ +[\d.]+ ms/);
          // The slowest has a bar; that of one which is many times as fast may be shorter than a cell.
          expect(terminal.screen()).toMatch(/digits v1 FP32 +[12] +1 +[\d.]+ +[\d.]+ ms █/);
          terminal.type('Space');
          await terminal.shows('reference');
          await terminal.shows(/slower|faster|≈ the same/);
          terminal.type('m');
          await terminal.shows('P99');
          terminal.resize(40, 12);
          await terminal.shows(/P50 +[\d.]+ ms.*█/);
          terminal.resize(80, 24);
          await terminal.shows('Threads');
          terminal.type('o');
          await terminal.shows('• ');
          terminal.type('o');
          await terminal.shows('The link is copied if your terminal allows it');
          terminal.type('Escape');
          await terminal.shows('Threads');

          const more = { engines: ['ONNXRUNTIME_CPU'], intraOpThreads: [1], secondsMin: 0.5, secondsMax: 0.5, warmupSecondsMax: 0.2 };
          const { job } = await mutate(api, 'startBenchmark', { modelVersionIds: [id], ...more }, 'job { id }');
          await succeeded(api, job.id);
          terminal.type('5');
          await terminal.shows(/digits v1 +digits version 1.*\n.*digits v1 +digits version 1/);
          terminal.type('Space');
          await terminal.shows('unmark');
          terminal.type('j', 'Space');
          await terminal.shows('compare 2');
          terminal.type('c');
          await terminal.shows(/^ A .*\n B /m);
          await terminal.shows(/B digits v1 F/);
        }),
      );
    }),
);
