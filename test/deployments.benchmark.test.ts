import { join } from 'node:path';
import { sql } from 'drizzle-orm';
import { describe, expect, test } from 'vitest';
import { bestOf, chosenOf, type MeasuredRow } from '../src/deployments/fromBenchmark.ts';
import { report } from '../src/reports/tables.ts';
import { by, health, settled } from './support/deployments.ts';
import { inferJson, makeInferenceModels } from './support/inference.ts';
import { withFolder, withServer } from './support/server.ts';
import { withRows } from './support/storage.ts';
import { ask, modelVersionOf, mutate, succeeded } from './support/training.ts';

/** Mean milliseconds by threads, then by batch. */
const rows = (measured: Record<number, Record<number, number>>): MeasuredRow[] =>
  Object.entries(measured).flatMap(([threads, of]) =>
    Object.entries(of).map(([batch, meanMs]) => ({
      n: 0,
      intraOpThreads: Number(threads),
      instances: 1,
      batchSize: Number(batch),
      meanMs,
    })),
  );
const eight = { permits: 2, cores: 8, deadlineMs: 100 };

describe('the best of what was measured', () => {
  test.each<[string, Record<number, Record<number, number>>, typeof eight, { intraOpThreads: number; batchMax: number } | null]>([
    ['a batch that saves 10 % for each item', { 1: { 1: 10, 4: 36 } }, eight, { intraOpThreads: 1, batchMax: 4 }],
    ['no batch that saves less', { 1: { 1: 10, 4: 37 } }, eight, { intraOpThreads: 1, batchMax: 1 }],
    ['the smaller of two batches that are nearly the same', { 1: { 1: 10, 4: 30, 8: 58 } }, eight, { intraOpThreads: 1, batchMax: 4 }],
    ['no batch that takes longer than the deadline', { 1: { 1: 30, 4: 101 } }, eight, { intraOpThreads: 1, batchMax: 1 }],
    ['more threads that save 10 %', { 1: { 1: 10 }, 4: { 1: 4 } }, eight, { intraOpThreads: 4, batchMax: 1 }],
    ['fewer threads where more save less', { 2: { 1: 10 }, 4: { 1: 9.5 } }, eight, { intraOpThreads: 2, batchMax: 1 }],
    ['no threads for which there are no cores', { 1: { 1: 10 }, 8: { 1: 2 } }, eight, { intraOpThreads: 1, batchMax: 1 }],
    ['nothing without single items', { 1: { 4: 10 } }, eight, null],
    ['nothing without rows', {}, eight, null],
  ])('%s', (_what, measured, machine, best) => {
    expect(bestOf(rows(measured), machine)).toEqual(
      best && { ...best, runMs: Object.fromEntries(Object.entries(measured[best.intraOpThreads] as object)) },
    );
  });
});

describe('the row that the report chose', () => {
  const four = rows({ 1: { 1: 10, 4: 39 }, 4: { 1: 9, 4: 38 } }).map((row, n) => ({ ...row, n }));

  test('is what is served, however little it saves, with the run times of its threads', () => {
    expect(chosenOf(four, 3, eight)).toEqual({ intraOpThreads: 4, batchMax: 4, runMs: { 1: 9, 4: 38 } });
    expect(chosenOf(four, 0, eight)).toEqual({ intraOpThreads: 1, batchMax: 1, runMs: { 1: 10, 4: 39 } });
  });

  test('keeps the run times of its own number of instances', () => {
    const offline = four.flatMap((row) => [row, { ...row, n: row.n + 4, instances: 2, meanMs: 2 * row.meanMs }]);
    expect(chosenOf(offline, 4, eight)).toEqual({ intraOpThreads: 1, batchMax: 1, runMs: { 1: 20, 4: 78 } });
    expect(bestOf(offline, eight)).toMatchObject({ intraOpThreads: 4, runMs: { 1: 9, 4: 38 } });
  });

  test.each([
    ['is of another version or engine', 4, eight],
    ['was not chosen', null, eight],
    ['needs more cores than there are', 2, { ...eight, cores: 4 }],
    ['takes longer than the deadline for its batch', 1, { ...eight, deadlineMs: 20 }],
  ])('is not served where it %s', (_why, n, machine) => {
    expect(chosenOf(four, n, machine)).toBeNull();
  });
});

test('a version is deployed as a benchmark has found it best, and another version’s benchmark is refused', () =>
  withFolder(async (folder) =>
    withServer(async (server) => {
      const api = { url: server.url, token: await server.as('ENGINEER') };
      await makeInferenceModels(folder, ['identity', 'brightness']);
      const [version, other] = await Promise.all(
        ['identity', 'brightness'].map((name) => modelVersionOf(api, name, join(folder, `${name}.onnx`))),
      );
      const brief = { warmupSecondsMax: 0.2, secondsMin: 0.3, secondsMax: 0.3, engines: ['ONNXRUNTIME_CPU'] };
      const measure = { modelVersionIds: [version], batchSizes: [1, 4], intraOpThreads: [1], ...brief };
      const { job } = await mutate(api, 'startBenchmark', measure, 'job { id }');
      await succeeded(api, job.id);
      const input = { name: 'echo', modelVersionId: version, settings: { deadlineMs: 60_000 }, benchmarkJobId: job.id };
      await mutate(api, 'deploy', input, 'deployment { name }');
      await settled(api, 'echo');
      const { data } = await ask(api, '{ deployment(name: "echo") { active { settings { batchMax intraOpThreads runMs } } } }');
      expect(data.deployment.active.settings).toEqual({
        // For latency a report never chooses a larger batch, though an item is cheaper in one.
        batchMax: 1,
        intraOpThreads: 1,
        runMs: { 1: expect.any(Number), 4: expect.any(Number) },
      });
      const body = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }] };
      expect((await inferJson((await health(api)).url, 'echo', body, by(api))).status).toBe(200);

      const query = 'mutation ($i: DeployInput!) { deploy(input: $i) { userErrors { code field } } }';
      const refused = await ask(api, query, { i: { ...input, modelVersionId: other } });
      expect(refused.data.deploy.userErrors).toEqual([{ code: 'INVALID', field: ['benchmarkJobId'] }]);

      // Nobody says with how many threads: the report has a row that the host has cores for.
      const usual = await mutate(api, 'startBenchmark', { modelVersionIds: [version], ...brief }, 'job { id }');
      await succeeded(api, usual.job.id);
      await mutate(api, 'deploy', { ...input, name: 'usual', benchmarkJobId: usual.job.id }, 'deployment { name }');
      expect(await settled(api, 'usual')).toMatchObject({ active: { number: 1 } });

      // A report whose only rows need all cores says what to do.
      const { cores } = server.services.config;
      if (cores > 1) {
        const all = await mutate(api, 'startBenchmark', { ...measure, intraOpThreads: [cores], batchSizes: [1] }, 'job { id }');
        await succeeded(api, all.job.id);
        const refusal = await ask(api, query.replace('code field', 'message'), { i: { ...input, benchmarkJobId: all.job.id } });
        expect(refusal.data.deploy.userErrors[0].message).toContain('Measure it with `intraOpThreads`');
      }

      // As if no row had the right results.
      const content = sql`json_set(${report.content}, '$.choice.n', NULL, '$.choice.steps[0].kept', json('[]'))`;
      await withRows(server.dataDir, (db) => db.update(report).set({ content }).run());
      const rejected = await ask(api, query.replace('code field', 'code message'), { i: input });
      expect(rejected.data.deploy.userErrors).toEqual([
        { code: 'INVALID', message: expect.stringMatching(/^The report of the benchmark rejects version 1/) },
      ]);
    }),
  ));
