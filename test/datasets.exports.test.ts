import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { exportFiles, exportForms } from '../src/datasets/export/forms.ts';
import { imageFiles } from '../src/datasets/imageFiles.ts';
import { files as outputs } from '../src/datasets/import/outputs.ts';
import { collectProblems } from '../src/datasets/import/problems.ts';
import { openZip } from '../src/datasets/import/zip.ts';
import { writeZip, type ZipFile } from '../src/storage/zip.ts';
import { imported } from './support/datasetServer.ts';
import { withDatasets } from './support/datasets.ts';
import { coco, scenes, unsplit, yolo } from './support/detection.ts';
import { digitFolders, photo } from './support/images.ts';
import { withImport } from './support/imports.ts';
import { withFolder, withServer } from './support/server.ts';

const detection = { task: 'DETECTION' } as const;

test('crowds are browsed and go out and in again as COCO; YOLO, which cannot write them, leaves them out', () =>
  withServer(async (server) => {
    const token = await server.as('ENGINEER');
    const files = coco(scenes, (file) => {
      file.annotations[1].iscrowd = 1;
    });
    await imported(server, token, files, { name: 'rings', ...detection });
    const query = `{ dataset(name: "rings") { version {
      contentHash boxCounts { total } items(first: 10) { nodes { path boxCount boxes { crowd } } }
      yolo: exportUrl(form: YOLO) coco: exportUrl(form: COCO)
    } } }`;
    const { version } = (await server.graphql(query, {}, token)).data.dataset;
    expect(version.boxCounts.total).toBe(5);
    expect(version.items.nodes).toContainEqual({ path: 'train/more/b.png', boxCount: 2, boxes: [{ crowd: false }, { crowd: true }] });
    const zipOf = async (path: string) => Buffer.from(await (await fetch(new URL(path, server.url))).arrayBuffer());
    await withImport(await zipOf(version.coco), ({ summary }) => expect(summary().contentHash).toBe(version.contentHash), detection);
    await withImport(
      await zipOf(version.yolo),
      ({ summary, text }) => {
        expect(summary().items).toBe(6);
        expect(text(outputs.manifest)).not.toContain('crowd');
      },
      detection,
    );
  }));

test('a detection dataset is browsed with its boxes, and downloaded in both forms, which go in again as the same', () =>
  withServer(async (server) => {
    const token = await server.as('ENGINEER');
    await imported(server, token, yolo(), { name: 'rings', ...detection });
    const query = `{ dataset(name: "rings") { task version {
      id contentHash counts { total train val } boxCounts { total train val }
      classes { index name counts { total train } boxCounts { total train } }
      yolo: exportUrl(form: YOLO) coco: exportUrl(form: COCO)
      items(class: "ring") { nodes { class path split boxCount boxes { classIndex class x y width height } some: boxes(first: 1) { class } thumbnailUrl } }
      val: items(split: VAL, class: "stroke") { nodes { path } }
    } } }`;
    const { dataset } = (await server.graphql(query, {}, token)).data;
    const { version } = dataset;
    expect(dataset.task).toBe('DETECTION');
    expect(version).toMatchObject({
      counts: { total: 6, train: 4, val: 2 },
      boxCounts: { total: 6, train: 4, val: 2 },
      classes: [
        { index: 0, name: 'ring', counts: { total: 3, train: 2 }, boxCounts: { total: 3, train: 2 } },
        { index: 1, name: 'stroke', counts: { total: 3, train: 2 }, boxCounts: { total: 3, train: 2 } },
      ],
      val: { nodes: [{ path: 'val/e.png' }] },
    });
    expect(version.items.nodes.map(({ path }: { path: string }) => path)).toEqual(['train/a.png', 'train/more/b.png', 'val/a.png']);
    expect(version.items.nodes[1]).toMatchObject({
      class: null,
      split: 'TRAIN',
      boxCount: 2,
      boxes: [
        { classIndex: 0, class: 'ring', x: 0, y: 0, width: 28, height: 28 },
        { classIndex: 1, class: 'stroke', x: 10.25, y: 2, width: 8, height: 24 },
      ],
      some: [{ class: 'ring' }],
    });

    for (const form of exportForms) {
      const url = new URL(version[form.toLowerCase()], server.url);
      const response = await fetch(url);
      expect(response.headers.get('content-disposition')).toContain(`rings-1-${form.toLowerCase()}.zip`);
      const zip = Buffer.from(await response.arrayBuffer());
      expect(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(zip)).toBe(true);
      await withImport(zip, ({ summary }) => expect(summary().contentHash).toBe(version.contentHash), detection);
      expect((await fetch(url.href.replace(form, form === 'YOLO' ? 'COCO' : 'YOLO'))).status).toBe(403);
    }

    const many = await server.graphql(`{ dataset(name: "rings") { version { items { nodes { boxes(first: 1001) { x } } } } } }`, {}, token);
    expect(many.errors?.[0].extensions.code).toBe('LIMIT');

    await imported(server, token, await digitFolders([0, 1], 2));
    const other = await server.graphql('{ dataset(name: "digits") { version { exportUrl(form: COCO) boxCounts { total } } } }', {}, token);
    expect(other.data.dataset.version).toEqual({ exportUrl: null, boxCounts: null });
    const mixed = await server.graphql(
      'mutation ($i: DeleteDatasetInput!) { deleteDataset(input: $i) { dataset { name } } }',
      { i: { datasetId: (await server.graphql('{ dataset(name: "rings") { id } }', {}, token)).data.dataset.id } },
      await server.admin(),
    );
    expect(mixed.errors).toBeUndefined();
    expect((await fetch(new URL(version.yolo, server.url))).status).toBe(404);
  }));

const bytesOf = async (chunks: AsyncIterable<Buffer>): Promise<Buffer> => {
  const all: Buffer[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return Buffer.concat(all);
};

test.each(exportForms)('images that were split by seed, and two of one name but for the ending, come out as they are: %s', (form) =>
  withDatasets(async (datasets) => {
    await datasets.start();
    const twin = { split: null, name: 'train-a.jpg', image: await photo(28, 28).jpeg().toBuffer(), boxes: [[1, 1, 1, 9, 9]] };
    const { version } = await datasets.import(coco([...unsplit(scenes), twin]), detection);
    const images = await imageFiles(datasets, version);
    const zip = await bytesOf(writeZip(exportFiles(form, { db: datasets.db, version, images })));
    await withImport(
      zip,
      ({ summary, paths }) => {
        expect(summary()).toMatchObject({ images: version.countsJson?.images, boxesBySplit: version.countsJson?.boxesBySplit });
        const twins = paths().filter((path) => path.includes('train-a'));
        expect(twins.map((path) => path.split('/').at(-1))).toEqual(['train-a.jpg', form === 'YOLO' ? 'train-a_2.png' : 'train-a.png']);
      },
      detection,
    );
  }),
);

describe('a zip that is written', () => {
  const written = async (files: Iterable<ZipFile>) => bytesOf(writeZip(files));
  const read = <T>(zip: Buffer, use: (zip: Awaited<ReturnType<typeof openZip>>) => Promise<T>) =>
    withFolder(async (folder) => {
      const file = join(folder, 'a.zip');
      writeFileSync(file, zip);
      const problems = collectProblems(5);
      const opened = await openZip(file, { nameEncoding: null, filesMax: 100_000, extractedBytesMax: 2 ** 30 }, problems, () => {});
      problems.check(() => 'the zip has problems');
      return use(opened).finally(opened.close);
    });

  test('is read by another program: names, contents, checksums', async () => {
    const zip = await written([
      { name: 'é/a.txt', content: () => [Buffer.from('one'), Buffer.from(' two')] },
      { name: 'empty', content: () => [] },
    ]);
    await read(zip, async ({ files, read: contentOf }) => {
      expect(files.map(({ name }) => name)).toEqual(['é/a.txt', 'empty']);
      expect(await Promise.all(files.map(async (file) => String(await contentOf(file))))).toEqual(['one two', '']);
    });
  });

  test('may have more files than 16 bits count', async () => {
    const zip = await written(Array.from({ length: 66_000 }, (_, i) => ({ name: `${i}`, content: () => [Buffer.from(`${i}`)] })));
    await read(zip, async ({ files, read: contentOf }) => {
      expect(files).toHaveLength(66_000);
      expect(String(await contentOf(files[65_999] as (typeof files)[number]))).toBe('65999');
    });
  });
});
