import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sql } from 'drizzle-orm';
import { describe, expect, test } from 'vitest';
import { accuracyOf, earlierAccuracy } from '../src/benchmark/context.ts';
import { inTransaction } from '../src/db.ts';
import { deployment, deploymentRevision } from '../src/deployments/tables.ts';
import { accuracyLoss } from '../src/history/accuracyLoss.ts';
import { noteLessAccurate } from '../src/history/regressions.ts';
import { benchmarkPoint } from '../src/history/tables.ts';
import { enqueue } from '../src/jobs/enqueue.ts';
import { readEvents } from '../src/jobs/events.ts';
import { findModelVersion } from '../src/models/models.ts';
import { type ModelVersion, modelVersion } from '../src/models/tables.ts';
import { evaluation } from '../src/training/tables.ts';
import { stretchesOf } from './support/eventLoop.ts';
import { nobody } from './support/jobs.ts';
import { processor, storeBenchmark, storeVersions } from './support/reports.ts';
import { type TestServer, withServer } from './support/server.ts';
import { type Api, ask } from './support/training.ts';

const points = `pageInfo { hasNextPage endCursor } nodes {
  modelVersion { number } machine { kernel } profile
  row { n intraOpThreads latency { percentiles { percent kind ns lowNs highNs } } itemsPerSecond } baseline { n }
  accuracy { value } differences { name before after } regressions { metric says }
}`;
const historyOf = async (api: Api, args = 'first: 100') => {
  const { data, errors } = await ask(api, `{ model(name: "digits") { benchmarkHistory(${args}) { ${points} } } }`);
  expect(errors).toBeUndefined();
  return data.model.benchmarkHistory;
};
const viewer = async (server: TestServer): Promise<Api> => ({ url: server.url, token: await server.as('VIEWER') });
const regressions = async (api: Api) =>
  (await ask(api, '{ regressions { nodes { metric says before after low high job { id } } } }')).data.regressions.nodes;
const warningsOf = ({ services: { db } }: TestServer, jobId: string) =>
  readEvents(db, jobId, 0, 100).flatMap(({ type, payloadJson }) => (type === 'WARNING' ? [payloadJson] : []));

describe('the history of a model', () => {
  test('has a point for each version of a benchmark, newest first, and names what was not the same at the point before', () =>
    withServer(async (server) => {
      const { db } = server.services;
      storeVersions(db, [1, 2]);
      await storeBenchmark(db, [{ latencyMs: 5 }, { latencyMs: 3, intraOpThreads: 2 }], [1]);
      await storeBenchmark(db, [{ latencyMs: 5 }, { latencyMs: 2.9, model: 1 }], [1, 2], { ...processor, kernel: '7' });
      const api = await viewer(server);
      const { nodes } = await historyOf(api);
      expect(nodes.map((p: typeof nodes) => [p.modelVersion.number, p.row.n, p.baseline.n, p.machine.kernel])).toEqual([
        [2, 1, 0, '7'],
        [1, 0, 0, '7'],
        [1, 1, 0, '6'],
      ]);
      expect(nodes.map((p: typeof nodes) => p.differences)).toEqual([[], [{ name: 'kernel', before: '6', after: '7' }], []]);
      const [p50] = nodes[2].row.latency.percentiles;
      expect(p50).toMatchObject({ percent: 50, kind: 'EXACT', lowNs: expect.any(Number), highNs: expect.any(Number) });
      expect(nodes[2]).toMatchObject({ profile: 'QUICK', accuracy: null, regressions: [] });

      const first = await historyOf(api, 'first: 2');
      expect(first).toMatchObject({ pageInfo: { hasNextPage: true }, nodes: nodes.slice(0, 2) });
      const second = await historyOf(api, `first: 2, after: "${first.pageInfo.endCursor}"`);
      expect(second).toMatchObject({ pageInfo: { hasNextPage: false }, nodes: nodes.slice(2) });
    }));

  test('of benchmarks before there was one is made from their reports', () =>
    withServer(async (server) => {
      const { db } = server.services;
      storeVersions(db, [1, 2]);
      await storeBenchmark(db, [{ latencyMs: 5 }, { latencyMs: 3, intraOpThreads: 2 }], [1]);
      await storeBenchmark(db, [{ latencyMs: 5 }, { latencyMs: 2.9, model: 1 }, { latencyMs: 2, model: 1, intraOpThreads: 2 }], [1, 2]);
      const stored = db.select().from(benchmarkPoint).all();
      expect(stored).toHaveLength(3);
      db.delete(benchmarkPoint).run();
      db.run(sql.raw(migrated()));
      expect(db.select().from(benchmarkPoint).all()).toEqual(stored.map(({ seq, ...one }) => ({ seq: seq + 3, ...one })));
    }));

  test('of 100 benchmarks is read without their reports', () =>
    withServer(async (server) => {
      const { db } = server.services;
      storeVersions(db, [1]);
      const rows = Array.from({ length: 50 }, (_, n) => ({ latencyMs: 3 + n / 10, intraOpThreads: n + 1 }));
      await storeBenchmark(db, rows, [1]);
      const { content } = db.get<{ content: string }>(sql`SELECT content FROM report`);
      db.run(
        sql`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
          INSERT INTO job SELECT 'job-' || i, ${sql.raw(
            db
              .all<{ name: string }>(sql`SELECT name FROM pragma_table_info('job') WHERE name NOT IN ('id')`)
              .map(({ name }) => `"${name}"`)
              .join(', '),
          )} FROM n, job`,
      );
      db.run(
        sql`INSERT INTO benchmark_run SELECT job.id, contextJson, machineJson, verdict FROM job, benchmark_run WHERE job.id LIKE 'job-%'`,
      );
      db.run(
        sql`INSERT INTO benchmark_point (jobId, modelId, modelVersionId, measuredAt, rowJson, baselineJson)
          SELECT job.id, modelId, modelVersionId, measuredAt, rowJson, baselineJson FROM job, benchmark_point WHERE job.id LIKE 'job-%'`,
      );
      const api = await viewer(server);
      expect((await historyOf(api)).nodes).toHaveLength(100);
      const parsed = await stretchesOf(async () => {
        for (let n = 0; n < 100; n += 1) JSON.parse(content);
      });
      const { longestOfWork } = await stretchesOf(() => historyOf(api));
      expect(longestOfWork / parsed.total).toBeLessThan(0.5);
    }));
});

/** The statement of the migration that fills the table. */
function migrated(): string {
  const file = readFileSync(join(import.meta.dirname, '..', 'drizzle', '0014_benchmark-history.sql'), 'utf8');
  return file.split('--> statement-breakpoint').at(-1) as string;
}

/** What serves under a name. */
function serve({ services: { db } }: TestServer, name: string, modelVersionId: string): void {
  const id = `deployment-${name}`;
  db.insert(deployment).values({ id, name, createdAt: 0 }).run();
  const active = { number: 1, settingsJson: {}, state: 'ACTIVE', createdAt: 0, activatedAt: 0 } as const;
  db.insert(deploymentRevision)
    .values({ deploymentId: id, modelVersionId, ...active })
    .run();
}

describe('a version that is slower', () => {
  test('than the one before it, or than what is deployed, is told where both were measured on the same machine', () =>
    withServer(async (server) => {
      const { db } = server.services;
      storeVersions(db, [1, 2, 3]);
      const api = await viewer(server);
      await storeBenchmark(db, [{ latencyMs: 4 }], [1]);
      await storeBenchmark(db, [{ latencyMs: 4.02 }], [2]);
      expect(await regressions(api)).toEqual([]);
      // Elsewhere nothing else was measured.
      await storeBenchmark(db, [{ latencyMs: 5 }], [3], { ...processor, processor: 'Another processor' });
      expect(await regressions(api)).toEqual([]);

      serve(server, 'shop', 'version-1');
      const jobId = await storeBenchmark(db, [{ latencyMs: 5 }], [3]);
      const found = await regressions(api);
      expect(found).toMatchObject([
        {
          metric: 'P95',
          says: expect.stringMatching(
            /^digits version 3 is slower than version 1, which serves shop: P95 5\.\d\d ms instead of 4\.\d\d ms/,
          ),
        },
        {
          metric: 'P95',
          says: expect.stringMatching(/^digits version 3 is slower than version 2: P95 .* They were measured in two benchmarks/),
        },
      ]);
      expect(found[0].low).toBeGreaterThan(1);
      expect(warningsOf(server, jobId)).toEqual(
        found.toReversed().map(({ says }: { says: string }) => ({ code: 'REGRESSION', message: says })),
      );
      expect((await historyOf(api)).nodes[0].regressions).toHaveLength(2);
      const about = await ask(api, `{ reports(first: 1) { nodes { regressions { metric } job { regressions { metric } } } } }`);
      expect(about.data.reports.nodes[0].regressions).toHaveLength(2);
      expect(about.data.reports.nodes[0].job.regressions).toHaveLength(2);
      expect(await (await fetch(`${server.url}/metrics`)).text()).toContain('whetstone_regressions_total{metric="P95"} 2');
    }));

  test('in the same benchmark is told within its rounds', () =>
    withServer(async (server) => {
      const { db } = server.services;
      storeVersions(db, [1, 2]);
      await storeBenchmark(db, [{ latencyMs: 4 }, { latencyMs: 4.3, model: 1 }], [1, 2]);
      const found = await regressions(await viewer(server));
      expect(found).toMatchObject([{ metric: 'P95', says: expect.not.stringContaining('two benchmarks') }]);
      expect(found[0].low).toBeCloseTo(1.075, 2);
    }));
});

describe('a version that is less accurate', () => {
  const measured = (value: number, images: number, metric: 'TOP1' | 'MAP50_95' = 'TOP1') => ({ value, images, metric });

  test('is told only where the interval of the difference leaves no doubt', () => {
    expect(accuracyLoss(measured(0.95, 1000), measured(0.9, 1000))).toEqual({
      low: expect.closeTo(-0.0734, 3),
      high: expect.closeTo(-0.0269, 3),
    });
    expect(accuracyLoss(measured(0.95, 100), measured(0.92, 100))).toBeNull();
    expect(accuracyLoss(measured(0.95, 1_000_000), measured(0.945, 1_000_000))).toBeNull();
    expect(accuracyLoss(measured(0.9, 1000), measured(0.95, 1000))).toBeNull();
    expect(accuracyLoss(measured(0.6, 50, 'MAP50_95'), measured(0.5, 50, 'MAP50_95'))).toEqual({ low: null, high: null });
    expect(accuracyLoss(measured(0.6, 50, 'MAP50_95'), measured(0.595, 50, 'MAP50_95'))).toBeNull();
  });

  test('on the same images is told by the job that evaluated it', () =>
    withServer(async (server) => {
      const { db } = server.services;
      storeVersions(db, [1, 2]);
      const evaluate = (version: number, top1: number, split: 'val' | 'test' = 'val', testTimeAugmentation: 'NONE' | 'FLIP' = 'NONE') =>
        inTransaction(db, (tx) => {
          const job = enqueue(tx, nobody, { kind: 'EVALUATE', spec: {} });
          const about = { modelVersionId: `version-${version}`, datasetVersionId: 'data-1', split, engine: 'torch', artifactId: null };
          const row = {
            id: `evaluation ${job.id}`,
            ...about,
            testTimeAugmentation,
            metricsJson: { images: 1000, top1 },
            jobId: job.id,
            createdAt: Date.now(),
          };
          tx.insert(evaluation).values(row).run();
          noteLessAccurate(tx, { job, attemptNumber: 1 }, row);
          return job.id;
        });
      evaluate(1, 0.95);
      evaluate(2, 0.5, 'test');
      evaluate(2, 0.945);
      evaluate(2, 0.5, 'val', 'FLIP');
      const api = await viewer(server);
      expect(await regressions(api)).toEqual([]);
      const jobId = evaluate(2, 0.9);
      const says =
        'digits version 2 is less accurate than version 1: 90.00 % top-1 instead of 95.00 % top-1 (2.71 to 7.34 points less, with 95 % confidence), on the same 1000 images.';
      expect(await regressions(api)).toMatchObject([{ metric: 'ACCURACY', before: 0.95, after: 0.9, says }]);
      expect(warningsOf(server, jobId)).toEqual([{ code: 'REGRESSION', message: says }]);

      // A benchmark keeps what both reach as they serve.
      const accuracy = (number: number) => {
        const version = findModelVersion(db, `version-${number}`) as ModelVersion;
        const own = accuracyOf(db, version);
        return [own?.value, own && earlierAccuracy(db, version, own)];
      };
      expect(accuracy(1)).toEqual([0.95, null]);
      expect(accuracy(2)).toEqual([0.9, { number: 1, value: 0.95 }]);
      db.update(modelVersion).set({ weightsHash: 'the same' }).run();
      expect(accuracy(2)).toEqual([0.9, null]);
    }));
});
