import { eq } from 'drizzle-orm';
import sharp from 'sharp';
import { expect, test } from 'vitest';
import { findDatasetByName } from '../src/datasets/datasets.ts';
import { artifact } from '../src/storage/tables.ts';
import { imported } from './support/datasetServer.ts';
import { withDatasets } from './support/datasets.ts';
import { coco, scenes, yolo } from './support/detection.ts';
import { digitFolders, type Files, photo, rawZip } from './support/images.ts';
import { type Imported, withImport } from './support/imports.ts';
import { messyDataset } from './support/messyDataset.ts';
import { byHost, byTrainer } from './support/oddImages.ts';
import { withServer } from './support/server.ts';

const classes = await digitFolders([0, 1], 10);
const half = (bytes: Buffer | string): Buffer => Buffer.from(bytes).subarray(0, 200);
const broken: Files = { ...classes, '0/cut.png': half(classes['0/0.png'] ?? ''), '1/text.png': 'no image' };

const leaveOut = { onProblem: 'LEAVE_OUT', leftOutShareMax: 0.1 } as const;
const messageOf = ({ events }: Imported, code: string) =>
  events.flatMap((e) => (e.type === 'warning' && e.code === code ? [e.message] : []))[0];
const said = ({ error }: Imported) => [error?.message, ...(error?.details ?? [])].join('\n');

test('damaged images are left out, counted and named', () =>
  withImport(
    broken,
    (made) => {
      expect(said(made)).toBe('');
      expect(made.summary()).toMatchObject({
        items: 20,
        leftOut: [
          { file: '0/cut.png', reason: 'is truncated or damaged' },
          { file: '1/text.png', reason: 'is not a JPEG, PNG, WebP, TIFF or BMP image' },
        ],
      });
      expect(messageOf(made, 'IMAGES_LEFT_OUT')).toMatch(/^2 images left out: 0\/cut\.png \(is truncated or damaged\), 1\/text\.png/);
      expect(made.items().map(({ n }) => n)).toEqual(Array.from({ length: 20 }, (_, n) => n));
    },
    leaveOut,
  ));

test('without it the dataset is refused, with all of them named at once', () =>
  withImport(broken, (made) => expect(said(made)).toMatch(/^2 files cannot be used as images\. .*\n0\/cut\.png: .*\n1\/text\.png: /)));

test('an image whose name has a control character is an image like any other that cannot be used', async () => {
  const odd = rawZip(Object.entries({ ...broken, '0/cup\n\x1b.png': classes['0/0.png'] ?? '' }).map(([name, data]) => ({ name, data })));
  await withImport(odd, (made) => expect(said(made)).toContain('cup\\u000a\\u001b.png: the name has a control character: rename the file'));
  await withImport(odd, (made) => expect(said(made)).toMatch(/\n0\/cut\.png: .*\n1\/text\.png: /));
  await withImport(
    odd,
    (made) => {
      expect(said(made)).toBe('');
      expect(made.summary().leftOut.map(({ file }) => file)).toEqual(['0/cup\\u000a\\u001b.png', '0/cut.png', '1/text.png']);
    },
    { ...leaveOut, leftOutShareMax: 0.2 },
  );
});

test('beyond the share it is refused, with the share', () =>
  withImport(
    broken,
    (made) => expect(said(made)).toMatch(/^2 of 22 images \(9\.09 %\) would be left out; leftOutShareMax allows 5 %\.\n/),
    { onProblem: 'LEAVE_OUT', leftOutShareMax: 0.05 },
  ));

test('a file whose bytes are damaged in the zip is left out', () =>
  withImport(
    rawZip([
      ...Object.entries(classes).map(([name, data]) => ({ name, data })),
      { name: '0/x.png', data: classes['0/0.png'] ?? '', declaredCrc: 1 },
    ]),
    (made) => {
      expect(made.summary().leftOut).toEqual([{ file: '0/x.png', reason: expect.stringContaining('checksum differs') }]);
      expect(made.paths()).not.toContain('train 0/x.png');
    },
    leaveOut,
  ));

test.each(['REFUSE', 'LEAVE_OUT'] as const)('files of other programs beside the images are ignored by name, with %s too', (onProblem) => {
  const names = ['a.txt', 'b.json', 'c.csv', 'd.xml', 'e.xmp', 'f.mp4', 'g.md', 'h.pdf'].map((name) => `0/${name}`);
  return withImport(
    { ...classes, ...Object.fromEntries(names.map((name) => [name, 'no image'])), 'film.MOV': 'x' },
    (made) => {
      expect(said(made)).toBe('');
      expect(made.summary().items).toBe(20);
      for (const name of [...names, 'film.MOV']) expect(messageOf(made, 'FILES_IGNORED')).toContain(name);
      expect(made.warnings).not.toContain('IMAGES_LEFT_OUT');
    },
    { onProblem, leftOutShareMax: 0 },
  );
});

test('an image that has the name of a film is an image', () =>
  withImport({ ...classes, '0/x.mp4': classes['0/0.png'] ?? '' }, (made) => expect(made.summary().items).toBe(21)));

test('the content hash of a zip with a film, which earlier versions imported with LEAVE_OUT, is still the same', () =>
  withImport(
    { ...classes, '0/x.mp4': 'x' },
    (made) => expect(made.summary().contentHash).toBe('4079e9b1f0a3fe4d28c843d86447561564544186572ad5e3f9f9c79446d9e3bd'),
    leaveOut,
  ));

const warned = (zip: Files) => withImport(zip, (made) => ({ codes: made.warnings, says: (code: string) => messageOf(made, code) }));

test('the same image in two classes, and a class that no validation image shows, are warned about', async () => {
  const { '0/0.png': zero = '' } = classes;
  const { says } = await warned({ ...classes, '1/again.png': zero, '2/only.png': await photo(8, 8).png().toBuffer() });
  expect(says('SAME_IMAGE_IN_CLASSES')).toMatch(/^1 image is in more than one class: .*0\/0\.png = .*1\/again\.png\. Remove/);
  expect(says('CLASSES_WITHOUT_VAL')).toMatch(/^1 class has no images in val, .*: 2\. Add images/);
  expect((await warned(classes)).codes).toEqual([]);
});

test('an image that only XMP turns is warned about', async () => {
  const xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>';
  const turned = await sharp(Buffer.from(classes['0/0.png'] ?? ''))
    .jpeg()
    .withXmp(xmp)
    .toBuffer();
  const { says } = await warned({ ...classes, '0/turned.jpg': turned });
  const cut = turned.subarray(0, turned.indexOf('</x:xmpmeta>'));
  expect(said(await withImport({ ...classes, '0/cut.jpg': cut }, (made) => made))).toMatch(/^1 file cannot be used as an image/);
  expect(says('XMP_ORIENTATION_IGNORED')).toMatch(/^1 image that only XMP data turn upright is used as stored.*0\/turned\.jpg/);
});

const nested: Files = { ...classes, '0/holidays/a.png': classes['0/1.png'] ?? '' };

test('an image in a folder inside of a class folder is left out and named', () =>
  withImport(
    nested,
    (made) => {
      expect(made.summary()).toMatchObject({ items: 20, leftOut: [{ file: '0/holidays/a.png' }] });
      expect(messageOf(made, 'IMAGES_LEFT_OUT')).toContain('0/holidays/a.png (expected <class>/<image>');
    },
    leaveOut,
  ));

test('a refusal names the damaged and the misplaced images at once, and says how to leave them out', () =>
  withImport({ ...nested, ...broken }, (made) =>
    expect(said(made).replace(/: .*/g, '').split('\n')).toEqual([
      '1 file does not lie in a class folder. 2 files cannot be used as images. Upload the zip again with these files corrected or removed, or with `onProblem',
      '0/holidays/a.png',
      '0/cut.png',
      '1/text.png',
    ]),
  ));

test('a refusal names bad labels, damaged images and boxes outside of their images at once', () =>
  withImport(
    {
      ...yolo(),
      'labels/train/a.txt': '9 .5 .5 .1 .1\n0 .9 .5 .9 .1',
      'labels/train/z.txt': '',
      'images/train/y.png': 'no image',
    },
    (made) => {
      expect(said(made)).toMatch(/^2 problems in the labels and splits\. 1 file cannot be used as an image\. 1 box or size does not fit/);
      for (const problem of ['a.txt: line 1: the class 9', 'z.txt: has no image', 'y.png: is not a', 'a.txt: line 2: the box reaches'])
        expect(said(made)).toContain(problem);
    },
    { task: 'DETECTION' },
  ));

test.each<[string, Files, string, number]>([
  ['a label of no class', { ...yolo(), 'labels/train/a.txt': '9 .5 .5 .1 .1' }, 'images/train/a.png', 5],
  ['a box outside of its image', { ...yolo(), 'labels/train/a.txt': '0 .9 .5 .9 .1' }, 'images/train/a.png', 5],
  ['a label file without an image', { ...yolo(), 'labels/train/z.txt': '0 .9 .5 .9 .1' }, 'labels/train/z.txt', 6],
  [
    'an annotation of no category',
    coco(scenes, (file) => Object.assign(file.annotations[0], { category_id: 99 })),
    'images/train/a.png',
    5,
  ],
  ['an image that is missing', coco(scenes, (file) => file.images.push({ id: 1, file_name: 'gone.png' })), 'gone.png', 6],
])('the image of %s is left out', (_what, zip, file, items) =>
  withImport(
    zip,
    (made) => {
      expect(said(made)).toBe('');
      expect(made.summary().leftOut.map((one) => one.file)).toEqual([file]);
      expect(made.items()).toHaveLength(items);
    },
    { ...leaveOut, leftOutShareMax: 0.2, task: 'DETECTION' },
  ),
);

test('what was left out is part of the content: another file left out is other content', async () => {
  const hashOf = (zip: Files) => withImport(zip, ({ summary }) => summary().contentHash, leaveOut);
  const { '1/text.png': _, ...one } = broken;
  const hashes = await Promise.all([hashOf(classes), hashOf(broken), hashOf(one), hashOf(broken)]);
  expect(new Set(hashes).size).toBe(3);
  expect(hashes[3]).toBe(hashes[1]);
});

test('when nothing is left to train a class on, the dataset is refused', () =>
  withImport(
    { ...classes, '2/a.png': 'no image' },
    (made) => expect(said(made)).toMatch(/1 class has no images to train on\.\n2: has no images in train/),
    leaveOut,
  ));

test('through the API: the arguments, and what was left out of the version', () =>
  withServer(async (server) => {
    const token = await server.as('ENGINEER');
    await imported(server, token, broken, leaveOut);
    const query = '{ dataset(name: "digits") { version { leftOut { count first { file reason } } counts { total } } } }';
    const { data, errors } = await server.graphql(query, {}, token);
    expect(errors).toBeUndefined();
    expect(data.dataset.version).toEqual({
      counts: { total: 20 },
      leftOut: {
        count: 2,
        first: [
          { file: '0/cut.png', reason: 'is truncated or damaged' },
          { file: '1/text.png', reason: 'is not a JPEG, PNG, WebP, TIFF or BMP image' },
        ],
      },
    });
  }));

test('a refused import gives back its name and its bytes', () =>
  withDatasets(async (datasets) => {
    await datasets.start();
    const { job, version } = await datasets.import(broken);
    expect(job.failureCode).toBe('DATA_INVALID');
    expect(datasets.db.select().from(artifact).where(eq(artifact.ownerId, version.id)).all()).toEqual([]);
    expect(findDatasetByName(datasets.db, 'digits')).toBeUndefined();
    const { version: next } = await datasets.import(yolo(), { task: 'DETECTION' });
    expect(next).toMatchObject({ state: 'READY', number: 1 });
    await datasets.import(yolo(scenes, { yaml: 'x' }), { task: 'DETECTION' });
    expect(findDatasetByName(datasets.db, 'digits')?.task).toBe('DETECTION');
  }));

test('300 images with every defect at once: imported, and manifest, host and trainer agree on each', async () => {
  const { zip, options, images, bytes } = await messyDataset();
  expect(images).toBe(300);
  await withImport(
    zip,
    async (made) => {
      expect(said(made)).toBe('');
      const { items, leftOut } = made.summary();
      expect(items + leftOut.length).toBe(300);
      expect(items).toBeGreaterThan(180);
      expect(leftOut.length).toBeGreaterThan(30);
      const trainer = byTrainer(made.zip, made.workDir);
      const different: unknown[] = [];
      for (const { n, path, width, height } of made.items()) {
        const host = await byHost(bytes.get(path) as Buffer);
        const stored = await byHost(await made.image({ n }));
        if (!host.startsWith(`${width} × ${height} `) || stored !== host || trainer.get(path) !== host)
          different.push({ path, width, height, host, stored, trainer: trainer.get(path) });
      }
      expect(different).toEqual([]);
      for (const code of [
        'IMAGES_LEFT_OUT',
        'IMAGES_CONVERTED',
        'FOLDERS_IGNORED',
        'POLYGONS_AS_BOXES',
        'BOXES_WITHOUT_AREA',
        'BOXES_TWICE',
        'SPLIT_MISSING',
      ])
        expect(made.warnings).toContain(code);
    },
    { ...options, task: 'DETECTION' },
  );
}, 180_000);
