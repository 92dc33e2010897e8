/** Lists of jobs and model versions with filters: what they find across slices, and that no slice reads more than its rows. */
import { randomUUIDv7 } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dataset, datasetVersion } from '../src/datasets/tables.ts';
import { countMax, type Db, inTransaction, openDatabase } from '../src/db.ts';
import {
  countListed,
  countQuery,
  type JobFilter,
  type JobOrder,
  jobKey,
  listJobs,
  listJobsByMetric,
  listQuery,
  measured,
  metricListQuery,
  partsOf,
  passesFilter,
  sliceQueries,
} from '../src/jobs/list.ts';
import { type Job, job, jobHyperparameter, jobSubject } from '../src/jobs/tables.ts';
import { insertModel } from '../src/models/models.ts';
import { modelVersion } from '../src/models/tables.ts';
import {
  countVersions,
  listVersions,
  listVersionsByMetric,
  type VersionFilter,
  versionCountQuery,
  versionListQuery,
  versionMetricQuery,
  versionSliceQuery,
} from '../src/models/versions.ts';
import { sliceRows } from '../src/slices.ts';
import { tag } from '../src/tags/tables.ts';
import { hasMetric, type MetricOrder, metricKey, metricSliceQuery } from '../src/training/search.ts';
import { evaluation, evaluationMetric } from '../src/training/tables.ts';
import { withFolder } from './support/server.ts';

/** Beyond two slices. */
const jobsMade = 2 * sliceRows + 200;

interface Made {
  id: string;
  n: number;
  kind: Job['kind'];
  state: Job['state'];
  model: string;
  top1: number | null;
  batchSize: number | null;
  team: string | null;
  failure: string;
  createdAt: number;
  versionId: string | null;
}

let db: Db;
const made: Made[] = [];
const models: { id: string; name: string }[] = [];
let datasetId = '';
let end: () => void;
const ended = new Promise<void>((resolve) => {
  end = resolve;
});
let closed: Promise<void>;

beforeAll(async () => {
  const opened = Promise.withResolvers<void>();
  closed = withFolder(async (folder) => {
    const { db: made, close } = openDatabase(folder);
    db = made;
    opened.resolve();
    await ended;
    close();
  });
  await opened.promise;
  // What is found counts here, not the disk.
  db.$client.pragma('synchronous = OFF');
  inTransaction(db, (tx) => {
    datasetId = randomUUIDv7();
    const datasetVersionId = randomUUIDv7();
    tx.insert(dataset).values({ id: datasetId, name: 'fruit', task: 'CLASSIFICATION', createdAt: 0 }).run();
    tx.insert(datasetVersion).values({ id: datasetVersionId, datasetId, number: 1, state: 'READY', splitSeed: 0, createdAt: 0 }).run();
    for (const name of ['apples', 'pears', 'plums']) {
      models.push({ name, id: insertModel(tx, { name, task: 'CLASSIFICATION', notes: '', createdById: null }).id });
    }
    for (let n = 0; n < jobsMade; n += 1) {
      const { id: modelId, name } = models[n % 3] as { id: string; name: string };
      const kind = (['TRAIN', 'CONVERT', 'EVALUATE'] as const)[(n % 7) % 3] as Job['kind'];
      const one: Made = {
        id: randomUUIDv7(),
        n,
        kind,
        state: n % 5 === 0 ? 'FAILED' : 'SUCCEEDED',
        model: name,
        top1: n % 4 === 0 ? null : (n * 37) % 101,
        batchSize: kind === 'TRAIN' ? 8 << (n % 4) : null,
        team: n % 6 === 0 ? 'vision' : n % 6 === 1 ? 'audio' : null,
        failure: n % 5 === 0 ? `DATA_INVALID: file ${n % 50}` : '',
        // Some are as old as others.
        createdAt: 1000 + Math.floor(n / 3),
        versionId: n % 2 === 0 ? randomUUIDv7() : null,
      };
      made.push(one);
      const { id, state, createdAt, failure, versionId, top1 } = one;
      const [failureCode, failureMessage] = failure ? failure.split(': ') : [null, null];
      const row = { specJson: {}, slotsNeeded: 1, priority: 0, endedAt: createdAt } as const;
      tx.insert(job)
        .values({ id, kind, state, createdAt, failureCode, failureMessage, ...row })
        .run();
      if (versionId) {
        const version = { id: versionId, modelId, number: n + 1, state: 'READY', format: 'ONNX', precision: 'FP32', jobId: id } as const;
        tx.insert(modelVersion)
          .values({ ...version, origin: 'TRAINED', createdAt })
          .run();
      }
      // Of a version, or of the model.
      tx.insert(jobSubject)
        .values([versionId ?? modelId, ...(n % 2 ? [datasetVersionId] : [])].map((subjectId) => ({ subjectId, jobId: id })))
        .run();
      if (one.batchSize) tx.insert(jobHyperparameter).values({ jobId: id, name: 'batchSize', value: one.batchSize }).run();
      if (one.team) tx.insert(tag).values({ subjectId: id, key: 'team', value: one.team }).run();
      if (top1 === null || !versionId) continue;
      const evaluationId = randomUUIDv7();
      const of = { jobId: id, modelVersionId: versionId };
      tx.insert(evaluation)
        .values({ id: evaluationId, ...of, datasetVersionId, split: 'val', engine: 'torch', metricsJson: { top1 }, createdAt })
        .run();
      tx.insert(evaluationMetric)
        .values({ evaluationId, ...of, name: 'top1', value: top1 })
        .run();
    }
  });
});
afterAll(async () => {
  end();
  await closed;
});

const isMeasured = ({ top1, versionId }: Made): boolean => top1 !== null && versionId !== null;

/** Filters, and which jobs pass them. */
const filters: Record<string, [() => JobFilter, (one: Made) => boolean]> = {
  'no filter': [() => ({}), () => true],
  kinds: [() => ({ kinds: ['EVALUATE'] }), ({ kind }) => kind === 'EVALUATE'],
  'kinds that no job has': [() => ({ kinds: ['BENCHMARK'] }), () => false],
  states: [() => ({ states: ['FAILED', 'QUEUED'] }), ({ state }) => state === 'FAILED'],
  'a creator': [() => ({ createdById: 'nobody' }), () => false],
  'a parent': [() => ({ parentId: 'none' }), () => false],
  'a model': [() => ({ subjectIds: [String(models[1]?.id)] }), ({ model }) => model === 'pears'],
  'a model and a dataset': [() => ({ subjectIds: [String(models[1]?.id), datasetId] }), ({ model, n }) => model === 'pears' && n % 2 === 1],
  tags: [() => ({ tags: [{ key: 'team', value: 'vision' }] }), ({ team }) => team === 'vision'],
  'a tag of any value': [() => ({ tags: [{ key: 'team' }] }), ({ team }) => team !== null],
  'two tags': [() => ({ tags: [{ key: 'team' }, { key: 'other' }] }), () => false],
  'text in a name': [() => ({ text: 'PLUM' }), ({ model }) => model === 'plums'],
  'text in a failure': [() => ({ text: 'file 45' }), ({ n }) => n % 50 === 45],
  'text that is nowhere': [() => ({ text: 'quince' }), () => false],
  times: [() => ({ createdAfter: 1010, createdBefore: 1300 }), ({ createdAt }) => createdAt >= 1010 && createdAt < 1300],
  'a metric': [
    () => ({ metrics: [{ name: 'top1', operator: 'AT_LEAST', value: 50 }] }),
    (one) => isMeasured(one) && Number(one.top1) >= 50,
  ],
  'a range of a metric': [
    () => ({
      metrics: [
        { name: 'top1', operator: 'AT_LEAST', value: 50 },
        { name: 'top1', operator: 'LESS', value: 52 },
      ],
    }),
    (one) => isMeasured(one) && (one.top1 === 50 || one.top1 === 51),
  ],
  'a hyperparameter': [
    () => ({ hyperparameters: [{ name: 'batchSize', operator: 'AT_MOST', value: 16 }] }),
    ({ batchSize }) => batchSize !== null && batchSize <= 16,
  ],
  everything: [
    () => ({
      kinds: ['TRAIN'],
      states: ['SUCCEEDED'],
      tags: [{ key: 'team', value: 'audio' }],
      text: 'pears',
      metrics: [{ name: 'top1', operator: 'GREATER', value: 10 }],
      hyperparameters: [{ name: 'batchSize', operator: 'NOT_EQUAL', value: 8 }],
    }),
    (one) =>
      one.kind === 'TRAIN' &&
      one.state === 'SUCCEEDED' &&
      one.team === 'audio' &&
      one.model === 'pears' &&
      isMeasured(one) &&
      Number(one.top1) > 10 &&
      one.batchSize !== 8,
  ],
};

const all = Object.entries(filters).map(([name, [filter, passes]]) => ({ name, filter, passes }));
const byPlace = (a: Made, b: Made) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1);
const byTop1 = (a: Made, b: Made) => Number(a.top1) - Number(b.top1) || (a.id < b.id ? -1 : 1);
const ids = (list: { id: string }[]) => list.map(({ id }) => id);

/** Every page of a list, each behind the key of the last row before it. */
async function paged<T>(read: (limit: number, after: string | null) => Promise<T[]>, keyOf: (row: T) => string): Promise<T[]> {
  const found: T[] = [];
  for (;;) {
    const last = found.at(-1);
    const page = await read(100, last === undefined ? null : keyOf(last));
    if (page.length === 0) return found;
    found.push(...page);
  }
}

describe('across slices', () => {
  test.each(all)('$name: jobs in both orders, by a metric in both directions, counted, and one by one', async ({ filter, passes }) => {
    const reader = () => ({ db, request: {} });
    const wanted = filter();
    const passing = made.filter(passes).sort(byPlace);
    const list = (order: JobOrder) => paged((limit, after) => listJobs(reader(), wanted, order, limit, after), jobKey);
    expect(ids(await list('OLDEST'))).toEqual(ids(passing));
    expect(ids(await list('NEWEST'))).toEqual(ids(passing.toReversed()));
    expect(await countListed(reader(), wanted, null)).toBe(passing.length);
    const withTop1 = passing.filter(isMeasured).sort(byTop1);
    const byMetric = (descending: boolean) =>
      paged((limit, after) => listJobsByMetric(reader(), wanted, { name: 'top1', descending }, limit, after), metricKey);
    expect(ids(await byMetric(false))).toEqual(ids(withTop1));
    expect(ids(await byMetric(true))).toEqual(ids(withTop1.toReversed()));
    expect(await countListed(reader(), wanted, 'top1')).toBe(withTop1.length);
    for (const one of made.slice(0, 60)) expect(passesFilter(db, wanted, one.id)).toBe(passes(one));
  });

  test('versions in both orders, by a metric, and counted', async () => {
    const reader = () => ({ db, request: {} });
    const filter: VersionFilter = { nameContains: 'pears', metrics: [{ name: 'top1', operator: 'LESS', value: 70 }] };
    const passing = made
      .filter((one) => one.model === 'pears' && isMeasured(one) && Number(one.top1) < 70)
      .map((one) => ({ ...one, id: String(one.versionId) }));
    const list = (order: 'NEWEST' | 'OLDEST') =>
      paged(
        (limit, after) => listVersions(reader(), filter, order, limit, after),
        ({ id }) => id,
      );
    expect(ids(await list('OLDEST'))).toEqual(ids(passing).sort());
    expect(ids(await list('NEWEST'))).toEqual(ids(passing).sort().reverse());
    const best = await paged(
      (limit, after) => listVersionsByMetric(reader(), filter, { name: 'top1', descending: true }, limit, after),
      metricKey,
    );
    expect(best.map(({ metricValue }) => metricValue)).toEqual(passing.map(({ top1 }) => Number(top1)).sort((a, b) => b - a));
    expect(await countVersions(reader(), filter, null)).toBe(passing.length);
    expect(await countVersions(reader(), { modelId: models[0]?.id }, null)).toBe(
      made.filter((one) => one.model === 'apples' && one.versionId).length,
    );
    const trained: VersionFilter = { hyperparameters: [{ name: 'batchSize', operator: 'EQUAL', value: 8 }] };
    expect(await countVersions(reader(), trained, null)).toBe(made.filter((one) => one.versionId && one.batchSize === 8).length);
  });

  test('a count ends at its limit', () => expect(countMax).toBe(10_000));
});

/** How SQLite would run a query. The database has no statistics, so this does not depend on its rows. */
function planOf(query: { getQuery(): { sql: string; params: unknown[] } }): string[] {
  const { sql, params } = query.getQuery();
  const plan = db.$client.prepare(`EXPLAIN QUERY PLAN ${sql}`).all(...params.map(() => null)) as { detail: string }[];
  return plan.map(({ detail }) => detail);
}

/** Steps that read a whole table, or hold all rows in order to sort them. Names of models, datasets and users are few. */
const wasteful = (plan: string[]) =>
  plan.filter((step) => /^SCAN (?!(model|dataset|user|json_each|wanted|found|\(subquery-\d+\)|CONSTANT ROW)\b)|TEMP B-TREE/.test(step));

describe('a slice', () => {
  const inJobs = /^SEARCH job USING (COVERING )?INDEX job_list \(\(createdAt,id\)>\(\?,\?\) AND \(createdAt,id\)<\(\?,\?\)\)$/;
  const inMetric =
    /^SEARCH evaluation_metric USING (COVERING )?INDEX evaluation_metric_value \(name=\? AND \(value,jobId\)>\(\?,\?\) AND \(value,jobId\)<\(\?,\?\)\)$/;
  const orders = [true, false].map((descending): MetricOrder => ({ name: 'top1', descending }));

  test('ends at a place that an index gives', () => {
    for (const query of Object.values(sliceQueries)) {
      expect(planOf(query(db))).toEqual([expect.stringMatching(inJobs)]);
    }
    for (const order of orders) {
      expect(planOf(metricSliceQuery(db, order))).toEqual([
        expect.stringMatching(/USING COVERING INDEX evaluation_metric_value \(name=\?/),
      ]);
    }
    for (const order of ['NEWEST', 'OLDEST'] as const) {
      expect(planOf(versionSliceQuery(db, order))).toEqual([expect.stringMatching(/USING COVERING INDEX model_version_live/)]);
    }
  });

  test.each(all)('$name: reads its own rows of the order alone, and asks an index about each', ({ name, filter }) => {
    const wanted = filter();
    const { parts } = partsOf(db, wanted);
    const more = measured(wanted);
    const ofJobs = [
      listQuery(db, 'NEWEST', parts, more),
      listQuery(db, 'OLDEST', parts, more),
      countQuery(db, parts, more),
      countQuery(db, parts, [hasMetric(job.id, 'jobId', 'top1'), ...more]),
    ].map(planOf);
    if (name === 'a parent') {
      // The few children of a job are read at once, and sorted.
      for (const plan of ofJobs) expect(plan).toContainEqual(expect.stringMatching(/^SEARCH job USING INDEX job_parent \(parentId=\?\)$/));
    } else {
      for (const plan of ofJobs) {
        expect(plan).toContainEqual(expect.stringMatching(inJobs));
        expect(wasteful(plan)).toEqual([]);
      }
    }
    for (const order of orders) {
      const plan = planOf(metricListQuery(db, wanted, order, parts));
      expect(plan).toContainEqual(expect.stringMatching(inMetric));
      expect(plan).toContainEqual(expect.stringMatching(/^SEARCH job USING INDEX sqlite_autoindex_job_1 \(id=\?\)$/));
      expect(wasteful(plan)).toEqual([]);
    }
  });

  test('of versions the same', () => {
    const { metrics, hyperparameters, tags } = filters.everything?.[0]() ?? {};
    const each: VersionFilter[] = [
      {},
      { nameContains: 'x' },
      { states: ['READY'] },
      { formats: ['ONNX'] },
      { precisions: ['INT8'] },
      { tags },
      { metrics },
      { hyperparameters },
    ];
    for (const filter of each) {
      for (const query of [
        versionListQuery(db, filter, 'NEWEST'),
        versionListQuery(db, filter, 'OLDEST'),
        versionCountQuery(db, filter, null),
      ]) {
        const plan = planOf(query);
        expect(plan).toContainEqual(expect.stringMatching(/^SEARCH model_version USING (COVERING )?INDEX \w+ \(id>\? AND id<\?\)$/));
        expect(wasteful(plan)).toEqual([]);
      }
      for (const order of orders) {
        const plan = planOf(versionMetricQuery(db, filter, order));
        expect(plan).toContainEqual(expect.stringMatching(inMetric));
        expect(wasteful(plan)).toEqual([]);
      }
    }
  });
});
