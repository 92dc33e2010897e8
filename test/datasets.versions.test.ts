import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { and, eq } from 'drizzle-orm';
import sharp from 'sharp';
import { describe, expect, test, vi } from 'vitest';
import { audit } from '../src/accounts/tables.ts';
import { deleteDataset, deleteDatasetVersion, updateDataset } from '../src/datasets/change.ts';
import { createDataset } from '../src/datasets/create.ts';
import {
  chooseDatasetVersion,
  findContent,
  findDataset,
  findDatasetByName,
  findDatasetVersion,
  findItem,
  listDatasets,
  listDatasetVersions,
  listItems,
} from '../src/datasets/datasets.ts';
import { imageFiles } from '../src/datasets/imageFiles.ts';
import { readImage } from '../src/datasets/imageTable.ts';
import { insertItems } from '../src/datasets/import/kind.ts';
import type { DatasetSummary } from '../src/datasets/import/outputs.ts';
import { summarizeDataset } from '../src/datasets/import/run.ts';
import { sweepDatasets } from '../src/datasets/sweep.ts';
import { type DatasetVersion, datasetItem, datasetVersion } from '../src/datasets/tables.ts';
import { InputError, type UserError } from '../src/errors.ts';
import { enqueue } from '../src/jobs/enqueue.ts';
import { AttemptCrash, JobFailure } from '../src/jobs/kinds.ts';
import { manifestVersion } from '../src/jobs/manifest.ts';
import { cancelJob } from '../src/jobs/moves.ts';
import { retryJob } from '../src/jobs/retry.ts';
import { job } from '../src/jobs/tables.ts';
import { blobPath, collectBlobs, findArtifact } from '../src/storage/blobs.ts';
import { artifact, upload } from '../src/storage/tables.ts';
import { type Datasets, forgetImages, withDatasets } from './support/datasets.ts';
import { eventually } from './support/eventually.ts';
import { digitFolders, type Files, zipOf } from './support/images.ts';
import { recordedChild } from './support/jobs.ts';

const classes = await digitFolders([0, 1], 5);
const more = await digitFolders([0, 1, 2], 3, { first: 20 });

const refusal = (run: () => unknown): UserError | undefined => {
  try {
    run();
  } catch (error) {
    if (error instanceof InputError) return error.userErrors[0];
    throw error;
  }
  return undefined;
};
const kindsOf = ({ db }: Datasets, ownerId: string) =>
  db
    .select()
    .from(artifact)
    .where(eq(artifact.ownerId, ownerId))
    .all()
    .map(({ kind }) => kind)
    .sort();
const itemsOf = ({ db }: Datasets, versionId: string) =>
  db.select().from(datasetItem).where(eq(datasetItem.versionId, versionId)).orderBy(datasetItem.n).all();
const cached = ({ config }: Datasets) => {
  const folder = join(config.dataDir, 'cache');
  return existsSync(folder) ? readdirSync(folder) : [];
};
/** By path, as the dataset has them. */
const imagesOf = async (datasets: Datasets, version: DatasetVersion): Promise<Files> => {
  const stored = await imageFiles(datasets, version);
  const read = itemsOf(datasets, version.id).map(async ({ n, path }) => [path, await readImage(stored, n)] as const);
  return Object.fromEntries(await Promise.all(read));
};

describe('creation', () => {
  test('an upload becomes version 1 of a new dataset, whose import waits in the queue', () =>
    withDatasets(async (datasets) => {
      const { dataset, version } = await datasets.create(classes, { notes: 'first', splitSeed: 7, valShare: 0.3 });
      expect(dataset).toMatchObject({ name: 'digits', task: 'CLASSIFICATION', notes: 'first', createdById: datasets.actor.actorId });
      expect(version).toMatchObject({ datasetId: dataset.id, number: 1, state: 'IMPORTING', splitSeed: 7, contentHash: null });
      expect(datasets.job(String(version.jobId))).toMatchObject({
        kind: 'IMPORT_DATASET',
        state: 'QUEUED',
        slotsNeeded: 0,
        specJson: { datasetVersionId: version.id, fileName: 'digits.zip', splitSeed: 7, splitShares: { val: 0.3, test: 0 }, cpuThreads: 1 },
      });
      expect(datasets.db.select().from(upload).all()).toMatchObject([{ state: 'CONSUMED' }]);
      expect(kindsOf(datasets, version.id)).toEqual(['DATASET_ZIP']);
      const entry = datasets.db.select().from(audit).where(eq(audit.action, 'createDataset')).get();
      expect(entry).toMatchObject({ actorId: datasets.actor.actorId, targetId: version.id, detailJson: { name: 'digits', number: 1 } });
    }));

  test('an existing name gets its next version', () =>
    withDatasets(async (datasets) => {
      const first = await datasets.create(classes);
      const second = await datasets.create(more, { notes: 'ignored' });
      expect(second.dataset).toEqual(first.dataset);
      expect(second.version.number).toBe(2);
      expect(listDatasetVersions(datasets.db, first.dataset.id, 10, null).map(({ number }) => number)).toEqual([2, 1]);
      expect(listDatasetVersions(datasets.db, first.dataset.id, 10, 2).map(({ number }) => number)).toEqual([1]);
    }));

  test('the same key gives the same version and takes nothing more', () =>
    withDatasets(async (datasets) => {
      const input = { ...(await datasets.upload(classes)), name: 'digits', task: 'CLASSIFICATION', idempotencyKey: 'k' };
      const first = createDataset(datasets, datasets.actor, input);
      expect(createDataset(datasets, datasets.actor, input)).toEqual(first);
      expect(datasets.db.select().from(datasetVersion).all()).toHaveLength(1);
    }));

  test('a key of another kind of job is refused', () =>
    withDatasets(async (datasets) => {
      enqueue(datasets.db, datasets.actor, { kind: 'IMPORT_MODEL', spec: {}, input: { idempotencyKey: 'k' } });
      const input = { ...(await datasets.upload(classes)), name: 'digits', task: 'CLASSIFICATION', idempotencyKey: 'k' };
      expect(refusal(() => createDataset(datasets, datasets.actor, input))).toMatchObject({
        code: 'IDEMPOTENCY_CONFLICT',
        field: ['idempotencyKey'],
      });
    }));

  test.each([
    [{ name: '../x' }, 'name'],
    [{ name: '' }, 'name'],
    [{ sha256: 'x' }, 'sha256'],
    [{ sha256: '0'.repeat(64) }, 'sha256'],
    [{ uploadId: 'none' }, 'uploadId'],
    [{ splitSeed: -1 }, 'splitSeed'],
    [{ splitSeed: 2 ** 32 }, 'splitSeed'],
    [{ valShare: Number.NaN }, 'valShare'],
    [{ valShare: 0.5, testShare: 0.5 }, 'valShare'],
    [{ testShare: -0.1 }, 'testShare'],
    [{ notes: 'x'.repeat(10_001) }, 'notes'],
  ])('a wrong input is refused with its field, and the upload stays: %#', (change, field) =>
    withDatasets(async (datasets) => {
      const input = { ...(await datasets.upload(classes)), name: 'digits', task: 'CLASSIFICATION', ...change };
      expect(refusal(() => createDataset(datasets, datasets.actor, input))?.field).toEqual([field]);
      expect(datasets.db.select().from(upload).all()).toMatchObject([{ state: 'COMPLETE' }]);
      expect(findDatasetByName(datasets.db, 'digits')).toBeUndefined();
    }),
  );
});

describe('an import', () => {
  test('makes the version READY with its items, files and images', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { job, version } = await datasets.import(classes);
      expect(job).toMatchObject({
        state: 'SUCCEEDED',
        resultJson: { datasetVersionId: version.id, contentHash: version.contentHash, existing: false },
      });
      const bytes = Object.values(classes).reduce((sum, data) => sum + data.length, 0);
      expect(version).toMatchObject({
        state: 'READY',
        classesJson: ['0', '1'],
        countsJson: {
          items: 10,
          images: { train: 8, val: 2, test: 0 },
          bySplit: { train: [4, 4], val: [1, 1], test: [0, 0] },
          boxesBySplit: null,
          duplicatesAcrossSplits: 0,
        },
        sizeBytes: bytes,
      });
      expect(kindsOf(datasets, version.id)).toEqual(['DATASET_ZIP', 'IMAGES', 'MANIFEST', 'THUMBNAILS']);

      const rows = itemsOf(datasets, version.id);
      const manifest = findArtifact(datasets.db, 'DATASET_VERSION', version.id, 'MANIFEST');
      const lines = readFileSync(blobPath(datasets.folder, String(manifest?.sha256)), 'utf8')
        .trimEnd()
        .split('\n');
      expect(lines.map((line) => JSON.parse(line))).toEqual(
        rows.map(({ versionId: _v, thumbnailOffset: _o, thumbnailBytes: _b, boxesJson: boxes, ...item }) => ({
          v: manifestVersion,
          ...item,
          boxes,
        })),
      );
      expect(await imagesOf(datasets, version)).toEqual(classes);
      expect(cached(datasets)).toEqual([]);
      await eventually(() => expect(readdirSync(join(datasets.folder, 'work'))).toEqual([]));
    }));

  test('of content that the dataset has ends with that version, however it was zipped, and leaves nothing', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { version } = await datasets.import(classes);
      const again = {
        ...(await datasets.upload(zipOf(classes, { compress: false }))),
        name: 'digits',
        task: 'CLASSIFICATION',
        idempotencyKey: 'k',
      };
      const made = createDataset(datasets, datasets.actor, again);
      expect(made.version.number).toBe(2);
      const job = await datasets.ended(String(made.version.jobId));
      expect(job.resultJson).toMatchObject({ datasetVersionId: version.id, existing: true });
      expect(datasets.db.select().from(datasetVersion).all()).toHaveLength(1);
      expect(kindsOf(datasets, made.version.id)).toEqual([]);
      expect(createDataset(datasets, datasets.actor, again).version).toEqual(version);
    }));

  test('of content that another dataset has makes a version of its own, with the same files', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const first = (await datasets.import(classes)).version;
      const second = (await datasets.import(classes, { name: 'copy' })).version;
      expect(second).toMatchObject({ state: 'READY', number: 1, contentHash: first.contentHash });
      expect(second.id).not.toBe(first.id);
      expect(await imageFiles(datasets, second)).toEqual(await imageFiles(datasets, first));
      expect(itemsOf(datasets, second.id).length).toBe(10);
    }));

  test('two of the same content at the same time make one version', () =>
    withDatasets(async (datasets) => {
      const made = await Promise.all([datasets.create(classes), datasets.create(zipOf(classes, { compress: false }))]);
      await datasets.start();
      const jobs = await Promise.all(made.map(({ version }) => datasets.ended(String(version.jobId))));
      expect(jobs.map(({ resultJson }) => resultJson?.existing).sort()).toEqual([false, true]);
      const [only, ...rest] = datasets.db.select().from(datasetVersion).all();
      expect(rest).toEqual([]);
      expect(itemsOf(datasets, String(only?.id))).toHaveLength(10);
      expect(datasets.db.select().from(datasetItem).all()).toHaveLength(10);
    }));

  test('that finds bad files fails with their names, throws the zip away and cannot be retried', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { job, version } = await datasets.import({ ...classes, '0/bad.png': 'no image', '1/worse.png': '' });
      expect(job).toMatchObject({ state: 'FAILED', failureCode: 'DATA_INVALID' });
      expect(job.failureMessage).toMatch(
        /^2 files cannot be used as images\. .*`onProblem: LEAVE_OUT`.*\n0\/bad\.png: is not.*\n1\/worse\.png: is empty/,
      );
      expect(version).toMatchObject({ state: 'FAILED', contentHash: null });
      expect([kindsOf(datasets, version.id), cached(datasets), itemsOf(datasets, version.id)]).toEqual([[], [], []]);
      expect(refusal(() => retryJob(datasets, datasets.kinds, datasets.actor, job.id))).toMatchObject({
        code: 'INVALID',
        field: ['jobId'],
      });
      expect(datasets.job(job.id).state).toBe('FAILED');
    }));

  test('that was cancelled can be retried, and makes the same version READY', () =>
    withDatasets(async (datasets) => {
      const { version } = await datasets.create(classes);
      cancelJob(datasets.db, datasets.kinds, datasets.actor, String(version.jobId));
      expect(datasets.version(version.id).state).toBe('FAILED');
      const retried = retryJob(datasets, datasets.kinds, datasets.actor, String(version.jobId));
      expect(datasets.version(version.id)).toMatchObject({ state: 'IMPORTING', jobId: retried.id });
      await datasets.start();
      expect(await datasets.ended(retried.id)).toMatchObject({ state: 'SUCCEEDED' });
      expect(datasets.version(version.id).state).toBe('READY');
    }));

  test('that the server’s stop has interrupted goes on after its start', () =>
    withDatasets(async (datasets) => {
      const { version } = await datasets.create(classes);
      const id = String(version.jobId);
      const scheduler = await datasets.start();
      await datasets.event(id, ({ type }) => type === 'PHASE');
      await scheduler.stop();
      await datasets.start();
      expect(await datasets.ended(id)).toMatchObject({ state: 'SUCCEEDED' });
      expect(datasets.attempts(id).filter(({ charged }) => charged)).toEqual([]);
    }));
});

describe('items', () => {
  const item = (n: number) => ({
    n,
    split: 'train' as const,
    path: `0/${n}.png`,
    sha256: n.toString(16).padStart(64, '0'),
    width: 1,
    height: 2,
    label: 0,
    boxes: null,
  });
  const lines = (items: object[]) => items.map((one) => `${JSON.stringify({ ...one, thumbnailOffset: 0, thumbnailBytes: 1 })}\n`).join('');
  const sorted = (n: number) =>
    Array.from({ length: n }, (_, i) => item(i))
      .sort((a, b) => (a.path < b.path ? -1 : 1))
      .map((one, at) => ({ ...one, n: at }));

  test('are inserted in parts that leave others their turn, over what a lost attempt has left', () =>
    withDatasets(async (datasets) => {
      const { version } = await datasets.create(classes);
      const items = sorted(12_000);
      const summary: DatasetSummary = { ...summarizeDataset('CLASSIFICATION', items, ['0', '1']), sizeBytes: 1 };
      const path = join(datasets.folder, 'items.jsonl');
      writeFileSync(path, lines(items));
      let turns = 0;
      const timer = setInterval(() => {
        turns += 1;
      });
      await insertItems(datasets.db, version.id, path, summary);
      await insertItems(datasets.db, version.id, path, summary);
      clearInterval(timer);
      expect(itemsOf(datasets, version.id)).toHaveLength(12_000);
      expect(turns).toBeGreaterThan(10);
      expect(listItems(datasets.db, datasets.version(version.id), {}, 10, null)).toEqual([]);
      expect(findItem(datasets.db, version.id, 0)).toBeUndefined();
    }));

  test('are inserted without waiting for the disk on the event loop; what counts them in waits for it', () =>
    withDatasets(async (datasets) => {
      const { db, folder } = datasets;
      const { version } = await datasets.create(classes);
      const items = sorted(12_000);
      const path = join(folder, 'items.jsonl');
      writeFileSync(path, lines(items));
      const pragma = (name: string) => db.$client.pragma(name, { simple: true });
      const inside: unknown[] = [];
      const transaction = vi.spyOn(db.$client, 'transaction').mockImplementation(((work: () => unknown) => ({
        immediate() {
          db.$client.exec('BEGIN IMMEDIATE');
          inside.push([pragma('synchronous'), pragma('wal_autocheckpoint')]);
          const result = work();
          db.$client.exec('COMMIT');
          return result;
        },
      })) as never);
      await insertItems(db, version.id, path, { ...summarizeDataset('CLASSIFICATION', items, ['0', '1']), sizeBytes: 1 });
      transaction.mockRestore();
      // 24 full ones and the rest: NORMAL, and no checkpoint at their end.
      expect(inside).toEqual(Array(25).fill([1, 0]));
      expect([pragma('synchronous'), pragma('wal_autocheckpoint')]).toEqual([2, 1000]);
      // The thread has moved them into the database, so that the next commit finds little.
      expect(pragma('wal_checkpoint(PASSIVE)')).toBe(0);
      expect(statSync(join(folder, 'whetstone.db-wal')).size).toBeLessThan(1000 * 4120);
      expect(itemsOf(datasets, version.id)).toHaveLength(12_000);
    }));

  test.each([
    ['missing', (items: object[]) => items.slice(1)],
    ['out of order', (items: object[]) => [...items].reverse()],
    ['another image', (items: object[]) => items.map((one, i) => (i === 2 ? { ...one, sha256: 'f'.repeat(64) } : one))],
    ['a class that is not there', (items: object[]) => items.map((one) => ({ ...one, label: 2 }))],
    ['no size', (items: object[]) => items.map((one) => ({ ...one, width: 0 }))],
  ])('are refused when they are not those of the summary: %s', (_what, change) =>
    withDatasets(async (datasets) => {
      const { version } = await datasets.create(classes);
      const items = sorted(5);
      const path = join(datasets.folder, 'items.jsonl');
      writeFileSync(path, lines(change(items)));
      await expect(
        insertItems(datasets.db, version.id, path, { ...summarizeDataset('CLASSIFICATION', items, ['0', '1']), sizeBytes: 1 }),
      ).rejects.toThrow();
    }),
  );

  test('are listed by split and class, page by page', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { version } = await datasets.import(classes);
      const all = listItems(datasets.db, version, {}, 100, null);
      expect(all.map(({ n }) => n)).toEqual([...all.keys()]);
      expect(listItems(datasets.db, version, {}, 4, 3)).toEqual(all.slice(4, 8));
      expect(listItems(datasets.db, version, { split: 'val' }, 100, null)).toEqual(all.filter(({ split }) => split === 'val'));
      const ones = listItems(datasets.db, version, { split: 'train', class: '1' }, 100, null);
      expect(ones.map(({ path, class: name }) => [path.split('/')[0], name])).toEqual(Array(4).fill(['1', '1']));
      expect(listItems(datasets.db, version, { class: 'none' }, 100, null)).toEqual([]);
      expect(findItem(datasets.db, version.id, 9)).toEqual(all[9]);
      expect(findItem(datasets.db, version.id, 10)).toBeUndefined();
      expect(findItem(datasets.db, version.id, Number.NaN)).toBeUndefined();
    }));
});

describe('the images of a version of before there was a table of them', () => {
  test('are found in its zip when they are first used, once for all who wait', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { version } = await datasets.import(classes);
      const files = await imageFiles(datasets, version);
      forgetImages(datasets.db.$client);
      const both = Promise.all([imageFiles(datasets, version), imageFiles(datasets, version)]);
      await sweepDatasets(datasets);
      expect(await both).toEqual([files, files]);
      expect(await imagesOf(datasets, version)).toEqual(classes);
      expect([cached(datasets), kindsOf(datasets, version.id)]).toEqual([[], ['DATASET_ZIP', 'IMAGES', 'MANIFEST', 'THUMBNAILS']]);
    }));

  test('are found by the manifest, however a later version would read the zip; the same bytes may be there twice', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const converted = await sharp(classes['0/0.png'] as Buffer)
        .toColourspace('cmyk')
        .jpeg()
        .toBuffer();
      const twice: Files = { ...classes, '1/again.png': classes['1/0.png'] as Buffer, '1/cmyk.jpg': converted };
      const { version } = await datasets.import(twice);
      const before = await imagesOf(datasets, version);
      expect(String(before['1/cmyk.jpg']).slice(1, 4)).toBe('PNG');
      forgetImages(datasets.db.$client);
      const { specJson } = datasets.job(version.jobId as string);
      datasets.db
        .update(job)
        .set({ specJson: { ...(specJson as object), task: 'DETECTION' } })
        .where(eq(job.id, version.jobId as string))
        .run();
      expect(await imagesOf(datasets, version)).toEqual(before);
    }));

  test('are found by the next attempt when the process that does it is killed', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { version } = await datasets.import(classes);
      forgetImages(datasets.db.$client);
      const killed = expect(imageFiles(datasets, version)).rejects.toBeInstanceOf(AttemptCrash);
      process.kill(await recordedChild(datasets.folder), 'SIGKILL');
      await killed;
      expect(await imagesOf(datasets, version)).toEqual(classes);
    }));

  test('cannot be when the zip is damaged: that is said, and nothing is left', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { version } = await datasets.import(classes);
      const { zip } = await imageFiles(datasets, version);
      writeFileSync(zip, 'damaged');
      forgetImages(datasets.db.$client);
      const failure = await imageFiles(datasets, version).catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(JobFailure);
      expect(failure).toMatchObject({
        code: 'DATASET_UNAVAILABLE',
        message: expect.stringMatching(/cannot be read from its zip: The file is not a whole/),
      });
      expect(cached(datasets)).toEqual([]);
    }));

  test('are not kept when it is deleted meanwhile', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { version } = await datasets.import(classes);
      forgetImages(datasets.db.$client);
      const finding = expect(imageFiles(datasets, version)).rejects.toMatchObject({ code: 'DATASET_UNAVAILABLE' });
      deleteDatasetVersion(datasets, datasets.actor, version.id);
      await finding;
      expect([cached(datasets), kindsOf(datasets, version.id)]).toEqual([[], []]);
    }));

  test('are there for READY versions only', () =>
    withDatasets(async (datasets) => {
      const { version } = await datasets.create(classes);
      await expect(imageFiles(datasets, version)).rejects.toThrow('READY');
    }));
});

describe('changes', () => {
  test('the name and the notes can be changed, to a name that is free', () =>
    withDatasets(async (datasets) => {
      const { dataset } = await datasets.create(classes);
      await datasets.create(more, { name: 'other' });
      expect(updateDataset(datasets, datasets.actor, dataset.id, { name: 'mnist', notes: 'real' })).toMatchObject({
        name: 'mnist',
        notes: 'real',
      });
      expect(updateDataset(datasets, datasets.actor, dataset.id, { name: 'mnist' })).toMatchObject({ name: 'mnist', notes: 'real' });
      expect(refusal(() => updateDataset(datasets, datasets.actor, dataset.id, { name: 'other' }))).toMatchObject({
        code: 'TAKEN',
        field: ['name'],
      });
      expect(refusal(() => updateDataset(datasets, datasets.actor, dataset.id, { name: '-' }))?.field).toEqual(['name']);
      expect(() => updateDataset(datasets, datasets.actor, 'none', {})).toThrow('no such dataset');
    }));

  test('datasets are listed by name or age, and found by a part of the name', () =>
    withDatasets(async (datasets) => {
      for (const name of ['Beta', 'alpha', 'gamma_1']) await datasets.create(classes, { name });
      const names = (...args: [Parameters<typeof listDatasets>[1], 'NAME' | 'CREATED_AT', string | null]) =>
        listDatasets(datasets.db, args[0], args[1], 10, args[2]).map(({ name }) => name);
      expect(names({}, 'NAME', null)).toEqual(['Beta', 'alpha', 'gamma_1']);
      expect(names({}, 'NAME', 'Beta')).toEqual(['alpha', 'gamma_1']);
      expect(names({}, 'CREATED_AT', null)).toEqual(['gamma_1', 'alpha', 'Beta']);
      expect(names({}, 'CREATED_AT', String(findDatasetByName(datasets.db, 'alpha')?.id))).toEqual(['Beta']);
      expect(names({ nameContains: 'BET' }, 'NAME', null)).toEqual(['Beta']);
      expect(names({ nameContains: '%' }, 'NAME', null)).toEqual([]);
      expect(names({ task: 'CLASSIFICATION' }, 'NAME', null)).toHaveLength(3);
    }));

  test('a version is found by its number, or as the newest that is READY', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { version } = await datasets.import(classes);
      const failed = (await datasets.import({ 'a.png': 'x' })).version;
      expect(chooseDatasetVersion(datasets.db, version.datasetId, null)?.id).toBe(version.id);
      expect(chooseDatasetVersion(datasets.db, version.datasetId, 2)?.id).toBe(failed.id);
      expect(findContent(datasets.db, version.datasetId, String(version.contentHash))?.id).toBe(version.id);
    }));
});

describe('deletion', () => {
  test('of a version leaves its metadata and hashes; the sweep takes its items and images', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { version } = await datasets.import(classes);
      const kept = (await datasets.import(more)).version;
      const deleted = deleteDatasetVersion(datasets, datasets.actor, version.id);
      expect(deleted).toMatchObject({ contentHash: version.contentHash, countsJson: version.countsJson, deletedAt: expect.any(Number) });
      expect(kindsOf(datasets, version.id)).toEqual([]);
      expect(findDatasetVersion(datasets.db, version.id)).toBeUndefined();
      expect(listItems(datasets.db, deleted, {}, 10, null)).toEqual([]);
      expect(() => deleteDatasetVersion(datasets, datasets.actor, version.id)).toThrow('no such dataset version');

      await sweepDatasets(datasets);
      expect(itemsOf(datasets, version.id)).toEqual([]);
      expect(itemsOf(datasets, kept.id)).toHaveLength(9);
      expect(await imagesOf(datasets, kept)).toEqual(more);
      expect((await datasets.import(classes)).version).toMatchObject({ number: 3, state: 'READY', contentHash: version.contentHash });
    }));

  test('keeps the images that another dataset has too', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { version } = await datasets.import(classes);
      const copy = (await datasets.import(classes, { name: 'copy' })).version;
      deleteDatasetVersion(datasets, datasets.actor, version.id);
      await collectBlobs(datasets, Date.now());
      expect(await imagesOf(datasets, copy)).toEqual(classes);
    }));

  test('of a dataset takes all its versions, and frees the name', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { version } = await datasets.import(classes);
      deleteDataset(datasets, datasets.actor, version.datasetId);
      expect(findDataset(datasets.db, version.datasetId)).toBeUndefined();
      expect(findDatasetVersion(datasets.db, version.id)).toBeUndefined();
      const again = await datasets.import(classes);
      expect(again.version).toMatchObject({ number: 1, state: 'READY' });
      expect(again.version.datasetId).not.toBe(version.datasetId);
      expect(() => deleteDataset(datasets, datasets.actor, version.datasetId)).toThrow('no such dataset');
    }));

  test('is refused while a job needs a version', () =>
    withDatasets(async (datasets) => {
      const importing = await datasets.create(classes);
      const inUse = { code: 'IN_USE', message: expect.stringContaining('IMPORT_DATASET') };
      expect(refusal(() => deleteDatasetVersion(datasets, datasets.actor, importing.version.id))).toMatchObject(inUse);
      expect(refusal(() => deleteDataset(datasets, datasets.actor, importing.dataset.id))).toMatchObject(inUse);
      await datasets.start();
      await datasets.ended(String(importing.version.jobId));
      enqueue(datasets.db, datasets.actor, { kind: 'TRAIN', spec: { datasetVersionId: importing.version.id } });
      expect(refusal(() => deleteDataset(datasets, datasets.actor, importing.dataset.id))?.message).toContain('TRAIN');
      expect(findDatasetVersion(datasets.db, importing.version.id)?.state).toBe('READY');
    }));

  test('what a dead server left unfinished, and what earlier versions of Whetstone unpacked, is swept', () =>
    withDatasets(async (datasets) => {
      await datasets.start();
      const { version } = await datasets.import(classes);
      for (const name of ['images/0', 'datasets/1', version.id]) mkdirSync(join(datasets.folder, 'cache', name), { recursive: true });
      await sweepDatasets(datasets);
      expect(cached(datasets)).toEqual([]);
      const last = and(eq(audit.action, 'createDataset'), eq(audit.targetId, version.id));
      expect(datasets.db.select().from(audit).where(last).all()).toHaveLength(1);
    }));
});
