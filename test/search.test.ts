import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { dataset, datasetVersion } from '../src/datasets/tables.ts';
import { inTransaction, openDatabase } from '../src/db.ts';
import { type JobFilter, listJobs } from '../src/jobs/list.ts';
import { job, jobHyperparameter } from '../src/jobs/tables.ts';
import { insertModel } from '../src/models/models.ts';
import { modelVersion } from '../src/models/tables.ts';
import { listVersionsByMetric } from '../src/models/versions.ts';
import { opaqueId } from '../src/naming.ts';
import { tag } from '../src/tags/tables.ts';
import { evaluation, evaluationMetric } from '../src/training/tables.ts';
import { type TestServer, withFolder } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';

/** What one training has made: a checkpoint, converted to ONNX, each evaluated. */
interface Run {
  name: string;
  batchSize: number;
  optimizer: string;
  top1: number;
  /** Of the ONNX version, evaluated a second time on another dataset. */
  again?: number;
}

const runs: Run[] = [
  { name: 'apples', batchSize: 8, optimizer: 'SGD', top1: 0.5 },
  { name: 'apples', batchSize: 16, optimizer: 'ADAMW', top1: 0.9, again: 0.2 },
  { name: 'pears', batchSize: 32, optimizer: 'SGD', top1: 0.9 },
  { name: 'pears', batchSize: 64, optimizer: 'ADAMW', top1: 0.95, again: 0.99 },
];

describe('what was trained and measured', () => {
  let server: TestServer;
  withSharedServer((running) => {
    server = running;
  });

  beforeAll(() => {
    inTransaction(server.services.db, (tx) => {
      tx.insert(dataset).values({ id: 'd', name: 'fruit', task: 'CLASSIFICATION', createdAt: 0 }).run();
      tx.insert(datasetVersion).values({ id: 'dv', datasetId: 'd', number: 1, state: 'READY', splitSeed: 0, createdAt: 0 }).run();
      const models = new Map(
        ['apples', 'pears'].map((name) => [name, insertModel(tx, { name, task: 'CLASSIFICATION', notes: '', createdById: null }).id]),
      );
      let createdAt = 0;
      const addJob = (id: string, kind: 'TRAIN' | 'CONVERT' | 'EVALUATE', parentId: string | null = null) => {
        const row = { kind, state: 'SUCCEEDED', specJson: {}, slotsNeeded: 1, priority: 0 } as const;
        createdAt += 1;
        tx.insert(job)
          .values({ id, ...row, parentId, createdAt, endedAt: createdAt })
          .run();
      };
      const measure = (jobId: string, modelVersionId: string, top1: number) => {
        const row = { id: `of ${jobId}`, split: 'val', engine: 'torch', metricsJson: { top1 }, createdAt } as const;
        tx.insert(evaluation)
          .values({ ...row, jobId, modelVersionId, datasetVersionId: 'dv' })
          .run();
        tx.insert(evaluationMetric).values({ evaluationId: row.id, jobId, modelVersionId, name: 'top1', value: top1 }).run();
      };
      for (const [i, { name, batchSize, optimizer, top1, again }] of runs.entries()) {
        const modelId = String(models.get(name));
        const version = { modelId, precision: 'FP32', state: 'READY' } as const;
        addJob(`train-${i}`, 'TRAIN');
        for (const [key, value] of Object.entries({ batchSize, optimizer })) {
          tx.insert(jobHyperparameter)
            .values({ jobId: `train-${i}`, name: key, value })
            .run();
        }
        const weights = { id: `weights-${i}`, number: 2 * i + 1, format: 'CHECKPOINT', origin: 'TRAINED', jobId: `train-${i}` } as const;
        tx.insert(modelVersion)
          .values({ ...version, ...weights, createdAt })
          .run();
        measure(`train-${i}`, weights.id, top1);
        addJob(`convert-${i}`, 'CONVERT', `train-${i}`);
        const onnx = { id: `onnx-${i}`, number: 2 * i + 2, format: 'ONNX', origin: 'CONVERTED', jobId: `convert-${i}` } as const;
        tx.insert(modelVersion)
          .values({ ...version, ...onnx, createdAt })
          .run();
        measure(`convert-${i}`, onnx.id, top1);
        if (again !== undefined) {
          addJob(`evaluate-${i}`, 'EVALUATE');
          measure(`evaluate-${i}`, onnx.id, again);
        }
      }
      tx.insert(tag).values({ subjectId: 'onnx-2', key: 'team', value: 'vision' }).run();
    });
  });

  /** Ids in the database, in the order of a list, and its `totalCount`. */
  async function list(field: string, args: string): Promise<{ ids: string[]; total: number }> {
    const { data, errors } = await server.graphql(
      `{ ${field}(first: 50, ${args}) { totalCount nodes { id } } }`,
      {},
      await server.as('VIEWER'),
    );
    if (errors) throw new Error(errors[0].message);
    const ids = data[field].nodes.map(({ id }: { id: string }) => Buffer.from(id, 'base64url').toString().split(':')[1]);
    return { ids, total: data[field].totalCount };
  }
  const idsOf = async (field: string, args: string) => (await list(field, args)).ids;

  test('jobs are found by their hyperparameters and by what they have measured', async () => {
    const by = (filter: string) => idsOf('jobs', `orderBy: OLDEST, filter: {${filter}}`);
    expect(await by('hyperparameters: [{name: "batchSize", operator: AT_MOST, value: 16}]')).toEqual(['train-0', 'train-1']);
    expect(await by('hyperparameters: [{name: "optimizer", value: "SGD"}]')).toEqual(['train-0', 'train-2']);
    expect(await by('hyperparameters: [{name: "optimizer", value: "SGD"}, {name: "batchSize", operator: NOT_EQUAL, value: 8}]')).toEqual([
      'train-2',
    ]);
    expect(await by('kinds: [TRAIN], metrics: [{name: "top1", value: 0.9}]')).toEqual(['train-1', 'train-2', 'train-3']);
    expect(await by('metrics: [{name: "top1", operator: LESS, value: 0.5}]')).toEqual(['evaluate-1']);
    expect(await by('metrics: [{name: "map50", value: 0}]')).toEqual([]);
  });

  test('jobs are sorted by a metric, those that tie in one order, page by page', async () => {
    const all = await list('jobs', 'byMetric: {name: "top1"}, filter: {kinds: [TRAIN]}');
    expect(all).toEqual({ ids: ['train-3', 'train-2', 'train-1', 'train-0'], total: 4 });
    expect(await idsOf('jobs', 'byMetric: {name: "top1", descending: false}, filter: {kinds: [TRAIN]}')).toEqual(all.ids.toReversed());
    const paged: string[] = [];
    const query =
      'query ($after: String) { jobs(first: 1, after: $after, byMetric: {name: "top1"}) { nodes { id } pageInfo { endCursor hasNextPage } } }';
    for (let after: string | null = null, more = true; more; ) {
      const { data } = await server.graphql(query, { after }, await server.as('VIEWER'));
      paged.push(...data.jobs.nodes.map(({ id }: { id: string }) => id));
      ({ endCursor: after, hasNextPage: more } = data.jobs.pageInfo);
    }
    const whole = await idsOf('jobs', 'byMetric: {name: "top1"}');
    expect(paged).toEqual(whole.map((id) => opaqueId('Job', id)));
    expect(whole).toHaveLength(10);
  });

  test('versions are found over all models, by name, tag, metric and hyperparameter, also those that were converted', async () => {
    const by = (filter: string) => idsOf('modelVersions', `orderBy: OLDEST, filter: {${filter}}`);
    expect(await by('nameContains: "PEAR"')).toEqual(['onnx-2', 'onnx-3', 'weights-2', 'weights-3']);
    expect(await by('nameContains: "pear", formats: [ONNX]')).toEqual(['onnx-2', 'onnx-3']);
    expect(await by('tags: [{key: "team"}]')).toEqual(['onnx-2']);
    expect(await by('formats: [ONNX], metrics: [{name: "top1", value: 0.95}]')).toEqual(['onnx-3']);
    expect(await by('hyperparameters: [{name: "batchSize", value: 16}]')).toEqual(['onnx-1', 'weights-1']);
  });

  test('a version stands once in the order of a metric: where the first of its evaluations is', async () => {
    expect(await list('modelVersions', 'byMetric: {name: "top1"}, filter: {formats: [ONNX]}')).toEqual({
      ids: ['onnx-3', 'onnx-2', 'onnx-1', 'onnx-0'],
      total: 4,
    });
    expect(await idsOf('modelVersions', 'byMetric: {name: "top1", descending: false}, filter: {formats: [ONNX]}')).toEqual([
      'onnx-1',
      'onnx-0',
      'onnx-2',
      'onnx-3',
    ]);
  });

  test('lists tell how long they are, with and without a filter', async () => {
    const query = `{ all: jobs(first: 1) { totalCount } trained: jobs(first: 1, filter: {kinds: [TRAIN], text: "fruit"}) { totalCount }
      models(first: 1) { totalCount nodes { versions(first: 1) { totalCount } } } datasets { totalCount nodes { versions { totalCount } } }
      good: models(filter: {metrics: [{name: "top1", value: 0.95}]}) { totalCount nodes { name } } }`;
    const { data, errors } = await server.graphql(query, {}, await server.as('VIEWER'));
    expect(errors).toBeUndefined();
    expect(data).toEqual({
      all: { totalCount: 10 },
      trained: { totalCount: 0 },
      models: { totalCount: 2, nodes: [{ versions: { totalCount: 4 } }] },
      datasets: { totalCount: 1, nodes: [{ versions: { totalCount: 1 } }] },
      good: { totalCount: 1, nodes: [{ name: 'pears' }] },
    });
  });

  test('a filter that means nothing says so', async () => {
    await expect(idsOf('jobs', 'filter: {hyperparameters: [{name: "optimizer", operator: LESS, value: "SGD"}]}')).rejects.toThrow(
      'The value of the hyperparameter optimizer is "SGD": compare with a number, or with a text or a boolean by EQUAL or NOT_EQUAL.',
    );
    const many = Array.from({ length: 6 }, () => '{name: "top1", value: 0}').join(', ');
    await expect(idsOf('modelVersions', `filter: {metrics: [${many}]}`)).rejects.toThrow('`metrics` has at most 5 conditions; it has 6.');
  });
});

test('what an earlier version has trained and measured is found after the upgrade', () =>
  withFolder(async (folder) => {
    const [dataDir, migrations] = [join(folder, 'data'), join(folder, 'migrations')];
    cpSync('drizzle', migrations, { recursive: true });
    const journal = join(migrations, 'meta', '_journal.json');
    const { entries, ...rest } = JSON.parse(readFileSync(journal, 'utf8'));
    const before = entries.findIndex(({ tag }: { tag: string }) => tag.endsWith('_retention-and-search'));
    writeFileSync(journal, JSON.stringify({ ...rest, entries: entries.slice(0, before) }));
    const earlier = openDatabase(dataDir, migrations);
    earlier.db.$client.exec(`
      INSERT INTO job (id, kind, state, specJson, slotsNeeded, priority, createdAt)
        VALUES ('j', 'TRAIN', 'SUCCEEDED', '{"hyperparameters": {"batchSize": 16, "learningRate": 0.1, "optimizer": "SGD"}}', 1, 0, 0),
          ('other', 'EVALUATE', 'SUCCEEDED', '{}', 1, 0, 0);
      INSERT INTO dataset (id, name, task, createdAt) VALUES ('d', 'd', 'CLASSIFICATION', 0);
      INSERT INTO dataset_version (id, datasetId, number, state, splitSeed, createdAt) VALUES ('dv', 'd', 1, 'READY', 0, 0);
      INSERT INTO model (id, name, task, createdAt) VALUES ('m', 'm', 'CLASSIFICATION', 0);
      INSERT INTO model_version (id, modelId, number, state, format, precision, origin, jobId, createdAt)
        VALUES ('v', 'm', 1, 'READY', 'CHECKPOINT', 'FP32', 'TRAINED', 'j', 0);
      INSERT INTO evaluation (id, modelVersionId, datasetVersionId, split, engine, metricsJson, jobId, createdAt)
        VALUES ('e', 'v', 'dv', 'val', 'torch', '{"top1": 0.75, "images": 4}', 'j', 0)`);
    earlier.close();
    const { db, close } = openDatabase(dataDir);
    try {
      const reader = { db, request: {} };
      const found = async (filter: JobFilter) => (await listJobs(reader, filter, 'NEWEST', 10, null)).map(({ id }) => id);
      expect(await found({ hyperparameters: [{ name: 'optimizer', operator: 'EQUAL', value: 'SGD' }] })).toEqual(['j']);
      expect(await found({ hyperparameters: [{ name: 'learningRate', operator: 'LESS', value: 0.2 }] })).toEqual(['j']);
      expect(await found({ metrics: [{ name: 'top1', operator: 'AT_LEAST', value: 0.75 }] })).toEqual(['j']);
      expect(await listVersionsByMetric(reader, {}, { name: 'top1', descending: true }, 10, null)).toMatchObject([
        { id: 'v', metricValue: 0.75 },
      ]);
    } finally {
      close();
    }
  }));
