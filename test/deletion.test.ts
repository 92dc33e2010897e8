import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { artifact } from '../src/storage/tables.ts';
import { deployed } from './support/deployments.ts';
import { eventually } from './support/eventually.ts';
import { digitFolders, zipOf } from './support/images.ts';
import { makeModelFiles } from './support/onnx.ts';
import type { TestServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { blobsOf } from './support/storage.ts';
import { type Api, ask, datasetVersionOf, modelVersionOf, mutate, succeeded, trained, uploaded } from './support/training.ts';

/** One of everything that the product makes and can delete, in every state in which it may be when it is deleted. */
describe('everything that was made', () => {
  const files = mkdtempSync(join(tmpdir(), 'whetstone-files-'));
  let server: TestServer;
  let api: Api;
  withSharedServer((running) => {
    server = running;
  });
  afterAll(() => rmSync(files, { recursive: true }));

  const ids = async (field: 'datasets' | 'models'): Promise<{ id: string; versions: { nodes: { id: string; state: string }[] } }[]> =>
    (await ask(api, `{ ${field}(first: 50) { nodes { id versions(first: 50) { nodes { id state } } } } }`)).data[field].nodes;

  /** The answer of a deletion: its errors' codes, none when it was deleted. */
  async function deletion(what: 'DatasetVersion' | 'ModelVersion' | 'Dataset' | 'Model', id: string): Promise<string[]> {
    const field = `${what[0]?.toLowerCase()}${what.slice(1)}Id`;
    const query = `mutation ($id: ID!) { delete${what}(input: { ${field}: $id }) { userErrors { code } } }`;
    const { data, errors } = await ask(api, query, { id });
    expect(errors).toBeUndefined();
    return data[`delete${what}`].userErrors.map(({ code }: { code: string }) => code);
  }

  const jobsEnded = () =>
    eventually(() =>
      expect(server.services.db.all(sql`SELECT id FROM job WHERE state IN ('QUEUED', 'RUNNING', 'CANCELLING')`)).toEqual([]),
    );

  beforeAll(async () => {
    api = { url: server.url, token: await server.admin() };
    await makeModelFiles(files, ['linear.onnx', 'resnet50.safetensors']);
    const digits = await digitFolders([0, 1], 12);

    // Trained, converted, evaluated in every way.
    const dataset = await datasetVersionOf(api, 'digits', digits);
    const hyperparameters = { imageSize: 32, epochs: 1, batchSize: 8 };
    const start = { modelName: 'trained', datasetVersionId: dataset, preset: 'resnet18', hyperparameters };
    await trained(api, (await mutate(api, 'startTraining', start, 'job { id }')).job.id);
    const versions = (await ids('models'))[0]?.versions.nodes ?? [];
    for (const { id } of versions) {
      const { job } = await mutate(api, 'startEvaluation', { modelVersionId: id, datasetVersionId: dataset, split: 'TRAIN' }, 'job { id }');
      await succeeded(api, job.id);
    }
    const onnx = String(versions[0]?.id);

    // Benchmarked with a report, deployed and undeployed.
    const brief = {
      batchSizes: [1],
      intraOpThreads: [1],
      engines: ['ONNXRUNTIME_CPU'],
      secondsMin: 0.3,
      secondsMax: 0.3,
      warmupSecondsMax: 0.1,
    };
    const { job } = await mutate(api, 'startBenchmark', { modelVersionIds: [onnx], ...brief }, 'job { id }');
    await succeeded(api, job.id);
    const linear = await modelVersionOf(api, 'uploaded', join(files, 'linear.onnx'));
    await deployed(api, 'linear', linear);

    // Uploaded weights, with an alias; imports that failed.
    const weights = await modelVersionOf(api, 'weights', join(files, 'resnet50.safetensors'), { preset: 'resnet50' });
    const { data } = await ask(api, '{ models(first: 50, filter: {nameContains: "weights"}) { nodes { id } } }');
    await mutate(api, 'setModelAlias', { modelId: data.models.nodes[0].id, name: 'best', modelVersionId: weights }, 'model { id }');
    writeFileSync(join(files, 'broken.onnx'), 'no model');
    const broken = await uploaded(api, 'broken.onnx', readFileSync(join(files, 'broken.onnx')));
    await mutate(api, 'createModel', { name: 'broken', task: 'CLASSIFICATION', ...broken }, 'modelVersion { id }');
    const noZip = await uploaded(api, 'broken.zip', Buffer.from('no zip'));
    await mutate(api, 'createDataset', { name: 'broken', task: 'CLASSIFICATION', ...noZip }, 'datasetVersion { id }');
    await jobsEnded();
  }, 600_000);

  test('is IN_USE while it is being made or deployed', async () => {
    const importing = await uploaded(api, 'more.zip', zipOf(await digitFolders([3, 4], 20)));
    const { datasetVersion } = await mutate(
      api,
      'createDataset',
      { name: 'importing', task: 'CLASSIFICATION', ...importing },
      'datasetVersion { id }',
    );
    expect(await deletion('DatasetVersion', datasetVersion.id)).toEqual(['IN_USE']);
    const { data } = await ask(api, '{ models(first: 1, filter: {nameContains: "uploaded"}) { nodes { id versions { nodes { id } } } } }');
    const [{ id, versions }] = data.models.nodes;
    expect(await deletion('ModelVersion', versions.nodes[0].id)).toEqual(['IN_USE']);
    expect(await deletion('Model', id)).toEqual(['IN_USE']);
    await mutate(api, 'undeploy', { name: 'linear' }, 'deployment { name }');
    await jobsEnded();
  });

  test('keeps the jobs that it shows: of a version, of an evaluation', async () => {
    const { data } = await ask(
      api,
      '{ jobs(first: 100, filter: {kinds: [TRAIN, CONVERT, EVALUATE, IMPORT_DATASET]}) { nodes { id state } } }',
    );
    const done = data.jobs.nodes.filter(({ state }: { state: string }) => state === 'SUCCEEDED');
    for (const { id } of done) expect(await jobDeletion(id)).toEqual(['IN_USE']);
  });

  test('can be deleted: versions of each state first, then what is left with its name, and their bytes are freed without waiting for the hour', async () => {
    const [datasets, models] = [await ids('datasets'), await ids('models')];
    const states = [...datasets, ...models].flatMap(({ versions }) => versions.nodes.map(({ state }) => state));
    expect(new Set(states)).toEqual(new Set(['READY', 'FAILED']));
    // Of what has several versions all but the last one by itself.
    for (const { id } of models.flatMap(({ versions }) => versions.nodes.slice(1))) expect(await deletion('ModelVersion', id)).toEqual([]);
    for (const { id } of models) expect(await deletion('Model', id)).toEqual([]);
    for (const { id } of datasets.slice(1)) expect(await deletion('Dataset', id)).toEqual([]);
    for (const { versions } of datasets.slice(0, 1)) {
      for (const { id } of versions.nodes) expect(await deletion('DatasetVersion', id)).toEqual([]);
    }

    const { config, db } = server.services;
    expect(db.all(sql`SELECT ownerType, kind FROM artifact WHERE ownerType IN ('DATASET_VERSION', 'MODEL_VERSION')`)).toEqual([]);
    // What was measured stays as a record, without its files.
    expect(db.get(sql`SELECT count(*) AS n, count(artifactId) AS files FROM evaluation`)).toEqual({ n: 4, files: 0 });
    // A report can be made again of its benchmark's samples.
    const kept = db.select({ sha256: artifact.sha256, kind: artifact.kind }).from(artifact).all();
    expect(kept.map(({ kind }) => kind)).toEqual(['SAMPLES']);
    await eventually(() => expect(blobsOf(config.dataDir)).toEqual(kept.map(({ sha256 }) => sha256)));
    expect(readdirSync(join(config.dataDir, 'cache', 'images'))).toEqual([]);
    const { data, errors } = await ask(api, '{ reports(first: 1) { nodes { verified technical { models { name } } } } }');
    expect(errors).toBeUndefined();
    expect(data.reports.nodes).toEqual([{ verified: true, technical: { models: [{ name: 'trained' }] } }]);
  });

  /** The answer of `deleteJob`: the codes of its errors, none when it was deleted. */
  async function jobDeletion(id: string): Promise<string[]> {
    const mutation = 'mutation ($id: ID!) { deleteJob(input: { jobId: $id }) { deletedJobId userErrors { code } } }';
    const { data, errors } = await ask(api, mutation, { id });
    expect(errors).toBeUndefined();
    const { deletedJobId, userErrors } = data.deleteJob;
    expect(deletedJobId).toBe(userErrors.length === 0 ? id : null);
    return userErrors.map(({ code }: { code: string }) => code);
  }
  const rootJobs = async (): Promise<string[]> => {
    const { data } = await ask(api, '{ jobs(first: 100) { nodes { id parent { id } } } }');
    return data.jobs.nodes.flatMap(({ id, parent }: { id: string; parent: object | null }) => (parent === null ? [id] : []));
  };

  test('leaves jobs, which can be deleted then, with their reports and logs: nothing is left of them but the audit log', async () => {
    const { config, db } = server.services;
    const jobs = await rootJobs();
    expect(jobs.length).toBeGreaterThan(8);
    for (const id of jobs) expect(await jobDeletion(id)).toEqual([]);
    const gone = await ask(api, 'query ($id: ID!) { job(id: $id) { id } }', { id: jobs[0] });
    expect(gone.data.job).toBeNull();
    for (const table of [
      'job',
      'attempt',
      'job_event',
      'metric_point',
      'job_subject',
      'evaluation',
      'evaluation_findings',
      'benchmark_run',
      'benchmark_row',
      'benchmark_point',
      'report',
      'artifact',
    ]) {
      expect([table, db.all(sql`SELECT * FROM ${sql.identifier(table)}`)]).toEqual([table, []]);
    }
    expect(db.all(sql`PRAGMA foreign_key_check`)).toEqual([]);
    expect(readdirSync(join(config.dataDir, 'logs'))).toEqual([]);
    await eventually(() => expect(blobsOf(config.dataDir)).toEqual([]));
    const audited = db.get(sql`SELECT count(*) AS n FROM audit WHERE action = 'deleteJob'`);
    expect(audited).toEqual({ n: jobs.length });
  });
});
