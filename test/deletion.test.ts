import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eq, sql } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { deleteDataset } from '../src/datasets/change.ts';
import type { Queryable } from '../src/db.ts';
import { deletedAtOnce, deleteJob } from '../src/jobs/delete.ts';
import { jobKindTable } from '../src/jobs/specs.ts';
import { job } from '../src/jobs/tables.ts';
import { deleteModel } from '../src/models/change.ts';
import { modelVersion } from '../src/models/tables.ts';
import { countDueJobs, removeJobs } from '../src/retention/jobs.ts';
import { artifact } from '../src/storage/tables.ts';
import { deleteStudy } from '../src/tuning/delete.ts';
import { extendStudy } from '../src/tuning/start.ts';
import { findStudy, findStudyOf, frontOf, studySettings, trainingsOf } from '../src/tuning/studies.ts';
import { deployed } from './support/deployments.ts';
import { eventually } from './support/eventually.ts';
import { digitFolders, zipOf } from './support/images.ts';
import { nobody } from './support/jobs.ts';
import { idOf, storeObjects } from './support/objects.ts';
import { makeModelFiles } from './support/onnx.ts';
import { type TestServer, withServer } from './support/server.ts';
import { withSharedServer } from './support/shared.ts';
import { blobsOf } from './support/storage.ts';
import { type Api, ask, datasetVersionOf, modelVersionOf, mutate, succeeded, trained, uploaded } from './support/training.ts';
import { type Studied, withStudies, workThrough } from './support/tuning.ts';

/** Kinds of the jobs of which it is tried what deleting does. */
const kindsTried = new Set<string>();
const tryKinds = (db: Queryable) => {
  for (const { kind } of db.selectDistinct({ kind: job.kind }).from(job).all()) kindsTried.add(kind);
};

/** What has rows when all is deleted: the tombstones of versions and deployments, who did it, and what no user has made. */
const staying = [
  ...['dataset', 'dataset_version', 'model', 'model_version', 'deployment', 'deployment_revision', 'upload'],
  ...['audit', 'user', 'session', 'slot', 'sqlite_sequence', '__drizzle_migrations'],
];

/** Tables of the program that have rows. */
const tablesWithRows = (db: Queryable): string[] =>
  db
    .all<{ name: string }>(sql`SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name`)
    .flatMap(({ name }) => (db.get(sql`SELECT 1 FROM ${sql.identifier(name)}`) ? [name] : []));

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
    const onnx = String(versions[0]?.id);
    const measuring = versions.map(({ id }) =>
      mutate(api, 'startEvaluation', { modelVersionId: id, datasetVersionId: dataset, split: 'TRAIN' }, 'job { id }'),
    );
    const compressing = mutate(api, 'startCompression', { modelVersionId: onnx, precision: 'FP16', budget: 10 }, 'job { id }');
    for (const { job } of await Promise.all([...measuring, compressing])) await succeeded(api, job.id);

    // Benchmarked with a report, deployed, driven and undeployed.
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
    const driving = { deployment: 'linear', rates: [5], secondsPerRate: 1 };
    await succeeded(api, (await mutate(api, 'startLoadTest', driving, 'job { id }')).job.id);

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
      '{ jobs(first: 100, filter: {kinds: [TRAIN, CONVERT, COMPRESS, EVALUATE, IMPORT_DATASET]}) { nodes { id state } } }',
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
    expect(db.get(sql`SELECT count(*) AS n, count(artifactId) AS files FROM evaluation`)).toEqual({ n: 5, files: 0 });
    // A report can be made again of its benchmark's samples.
    const kept = db.select({ sha256: artifact.sha256, kind: artifact.kind }).from(artifact).all();
    expect(kept.map(({ kind }) => kind)).toEqual(['SAMPLES']);
    await eventually(() => expect(blobsOf(config.dataDir)).toEqual(kept.map(({ sha256 }) => sha256)));
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
    tryKinds(db);
    for (const id of jobs) expect(await jobDeletion(id)).toEqual([]);
    const gone = await ask(api, 'query ($id: ID!) { job(id: $id) { id } }', { id: jobs[0] });
    expect(gone.data.job).toBeNull();
    expect(db.all(sql`PRAGMA foreign_key_check`)).toEqual([]);
    expect(readdirSync(join(config.dataDir, 'logs'))).toEqual([]);
    await eventually(() => expect(blobsOf(config.dataDir)).toEqual([]));
    await eventually(() => expect(tablesWithRows(db).filter((name) => !staying.includes(name))).toEqual([]));
    const audited = db.get(sql`SELECT count(*) AS n FROM audit WHERE action = 'deleteJob'`);
    expect(audited).toEqual({ n: jobs.length });
  });
});

describe('a study', () => {
  const halved = { objectives: ['TOP1', 'LATENCY'], halving: { firstEpoch: 1, reduction: 2 }, registerMax: 1 };

  const finishAll = (studies: Studied) => {
    studies.claim();
    for (let [one] = studies.attempts(); one; [one] = studies.attempts()) {
      studies.finish(one);
      studies.claim();
    }
  };

  test('can be deleted in every state in which it may have ended, and nothing is left of it but the audit log', () =>
    withStudies(async (studies) => {
      const services = studies.services();
      const { db, config } = services;
      const begin = async (modelName: string) => {
        const started = (await studies.start({ ...halved, modelName })).study;
        if (!started) throw new Error('The study was not started.');
        expect(() => deleteModel(services, nobody, started.modelId)).toThrow(/^A job \(TUNE\) needs the model /);
        expect(() => deleteDataset(services, nobody, 'set')).toThrow(/^A job \(TUNE\) needs version 1/);
        await expect(deleteStudy(services, nobody, started.id)).rejects.toThrow(
          /^The study is RUNNING\. Wait for its end or cancel its job/,
        );
        return started;
      };
      const ended = await begin('ended');
      await workThrough(studies, ended.id);
      const cancelled = await begin('cancelled');
      studies.cancel(cancelled.id);
      await workThrough(studies, cancelled.id);
      const failed = await begin('failed');
      await workThrough(studies, failed.id, (one) => {
        if (one.kind === 'TRAIN') studies.end(one, { state: 'FAILED', failure: { code: 'INTERNAL', message: 'Invented.' } });
        return one.kind === 'TRAIN';
      });
      // What ran beside the trial that failed.
      await expect(deleteStudy(services, nobody, failed.id)).rejects.toThrow('It has made a job that has not ended: TRAIN is CANCELLING.');
      finishAll(studies);
      expect([ended, cancelled, failed].map(({ id }) => studies.job(id).state)).toEqual(['SUCCEEDED', 'CANCELLED', 'FAILED']);
      tryKinds(db);

      for (const { modelId } of [ended, cancelled, failed]) deleteModel(services, nobody, modelId);
      expect(db.select().from(artifact).where(eq(artifact.ownerType, 'MODEL_VERSION')).all()).toEqual([]);
      expect(() => extendStudy(services, nobody, ended.id, 1)).toThrow(/^The model was deleted/);
      for (const { id } of [cancelled, failed]) expect(() => studies.retry(id)).toThrow(/^The model was deleted/);
      deleteDataset(services, nobody, 'set');
      const jobs = db.select().from(job).all();
      for (const { id } of jobs) {
        const deleting = deleteJob(services, nobody, id);
        await expect(deleting).rejects.toThrow('It belongs to a study, which needs the jobs of its trials. Delete the study');
        mkdirSync(join(config.dataDir, 'work', id, '1'), { recursive: true });
        mkdirSync(join(config.dataDir, 'logs'), { recursive: true });
        writeFileSync(join(config.dataDir, 'logs', `${id}.jsonl`), '');
      }
      for (const { id } of [ended, cancelled, failed]) await deleteStudy(services, nobody, id);
      expect(db.all(sql`PRAGMA foreign_key_check`)).toEqual([]);
      expect(tablesWithRows(db).filter((name) => !staying.includes(name))).toEqual(['blob']);
      for (const folder of ['work', 'logs']) expect(readdirSync(join(config.dataDir, folder))).toEqual([]);
      const audited = db.all<{ targetId: string; jobs: number }>(
        sql`SELECT targetId, detailJson ->> 'jobs' AS jobs FROM audit WHERE action = 'deleteStudy' ORDER BY seq`,
      );
      expect(audited.map(({ targetId }) => targetId)).toEqual([ended.id, cancelled.id, failed.id]);
      expect(audited.reduce((sum, line) => sum + line.jobs, 0)).toBe(jobs.length);
      await expect(deleteStudy(services, nobody, ended.id)).rejects.toThrow('There is no such study');
    }));

  test('is gone at once, and its jobs a few at a time: those that a crash leaves behind are deleted as others', () =>
    withStudies(async (studies) => {
      const services = studies.services();
      const { db } = services;
      const id = String((await studies.start({ ...halved, registerMax: 0 })).study?.id);
      const { jobId } = studies.study(id);
      await workThrough(studies, id);
      finishAll(studies);
      const count = () => db.select().from(job).all().length;
      const before = count();
      const { transaction } = db.$client;
      let begun = 0;
      const dying = vi.spyOn(db.$client, 'transaction').mockImplementation(((work: () => unknown) => {
        begun += 1;
        if (begun === 3) throw new Error('The server dies here.');
        return transaction.call(db.$client, work);
      }) as never);
      await expect(deleteStudy(services, nobody, id)).rejects.toThrow('dies here');
      dying.mockRestore();
      expect(findStudy(db, id)).toBeUndefined();
      expect(before - count()).toBe(deletedAtOnce);
      expect(db.all(sql`PRAGMA foreign_key_check`)).toEqual([]);
      expect(countDueJobs(db, Date.now() + 1000)).toBe(count());
      await deleteJob(services, nobody, jobId);
      expect(count()).toBe(0);
    }));

  test('is deleted over the API: its id is the answer, and then there is no such study', () =>
    withServer(async (server) => {
      storeObjects(server);
      const own = { url: server.url, token: await server.admin() };
      const mutation = 'mutation ($id: ID!) { deleteStudy(input: { studyId: $id }) { deletedStudyId userErrors { code field message } } }';
      const id = idOf('Study');
      const { db } = server.services;
      db.update(job).set({ state: 'RUNNING' }).where(eq(job.id, 'Job')).run();
      const message = 'The study is RUNNING. Wait for its end or cancel its job, then delete.';
      const running = (await ask(own, mutation, { id })).data.deleteStudy;
      expect(running).toEqual({ deletedStudyId: null, userErrors: [{ code: 'IN_USE', field: ['studyId'], message }] });
      db.update(job).set({ state: 'SUCCEEDED' }).where(eq(job.id, 'Job')).run();
      expect((await ask(own, mutation, { id })).data.deleteStudy).toEqual({ deletedStudyId: id, userErrors: [] });
      expect((await ask(own, 'query ($id: ID!) { study(id: $id) { id } }', { id })).data.study).toBeNull();
    }));

  test.each(['deleteStudy', 'its age'])('leaves what made a version that is still there when it is deleted by %s', (how) =>
    withStudies(async (studies) => {
      const services = studies.services();
      const { db } = services;
      const jobs = () => db.select().from(job).orderBy(sql`rowid`).all();
      const id = String((await studies.start(halved)).study?.id);
      let step = 0;
      await workThrough(studies, id, (one) => {
        step += one.kind === 'TRAIN' ? 1 : 0;
        if (step === 6) studies.cancel(id);
        return step === 6;
      });
      studies.retry(id);
      await workThrough(studies, id);
      extendStudy(services, nobody, id, 1);
      await workThrough(studies, id);
      finishAll(studies);
      expect(jobs().filter(({ kind }) => kind === 'TUNE')).toHaveLength(3);
      const made = studies
        .trials(id)
        .flatMap((one) => (one.finalJobId === null ? [] : [trainingsOf(db, one).map((training) => training.id)]));
      expect(made.length).toBeGreaterThan(0);
      const conversions = jobs().filter(({ kind }) => kind === 'CONVERT');
      const versions = db.select().from(modelVersion).all();
      const later = String((await studies.start({ modelName: 'later', beginStudyId: id, registerMax: 0 })).study?.id);
      const front = frontOf(studySettings(studies.study(id)), studies.trials(id)).map(({ paramsJson }) => paramsJson);

      if (how === 'deleteStudy') await deleteStudy(services, nobody, id);
      else {
        const before = jobs().length;
        const due = countDueJobs(db, Date.now() + 1000);
        expect(countDueJobs(db, 0)).toBe(0);
        await removeJobs(services, Date.now() + 1000);
        expect(before - jobs().length).toBe(due);
        expect(countDueJobs(db, Date.now() + 1000)).toBe(0);
      }
      expect(findStudy(db, id)).toBeUndefined();
      expect(db.all(sql`PRAGMA foreign_key_check`)).toEqual([]);
      const kept = jobs().filter(({ state }) => state === 'SUCCEEDED');
      expect(kept.map((one) => one.id).sort()).toEqual([...new Set(made.flat()), ...conversions.map((one) => one.id)].sort());
      const parentOf = (jobId: string) => kept.find((one) => one.id === jobId)?.parentId;
      for (const chain of made) expect(chain.map(parentOf)).toEqual([null, ...chain.slice(0, -1)]);
      const trainings = conversions.map(
        ({ specJson }) => versions.find((one) => one.id === (specJson as { modelVersionId: string }).modelVersionId)?.jobId,
      );
      expect(conversions.map((one) => parentOf(one.id))).toEqual(trainings);
      expect(db.select().from(modelVersion).all()).toEqual(versions);
      for (const one of kept) expect(findStudyOf(db, one)).toBeUndefined();
      await workThrough(studies, later);
      expect(studies.trials(later).slice(0, front.length)).toMatchObject(front.map((paramsJson) => ({ paramsJson })));

      const roots = new Set(made.map(([first]) => String(first)));
      for (const root of roots) await expect(deleteJob(services, nobody, root)).rejects.toThrow(/^Version \d+ of a model was made by it/);
      deleteModel(services, nobody, String(versions[0]?.modelId));
      for (const root of roots) await deleteJob(services, nobody, root);
      await deleteStudy(services, nobody, later);
      expect(jobs()).toEqual([]);
    }),
  );
});

test('no kind of job is left out: it was tried what deleting does to one of each', () => {
  expect([...kindsTried].sort()).toEqual(Object.keys(jobKindTable).sort());
});
