import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { eq } from 'drizzle-orm';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { files as outputs } from '../src/datasets/import/outputs.ts';
import { datasetItem, datasetItemLabel } from '../src/datasets/tables.ts';
import { DatasetItem } from '../src/jobs/manifest.ts';
import { artifact } from '../src/storage/tables.ts';
import { withDatasets } from './support/datasets.ts';
import { annotationsOf, type Coco, changed, coco, names, scenes, unsplit, yolo } from './support/detection.ts';
import { eventually } from './support/eventually.ts';
import { type Files, photo } from './support/images.ts';
import { asChild, type SpecChanges, withImport } from './support/imports.ts';

const task = 'DETECTION';
const detection = { task } as const;
const said = (error: { message: string; details: string[] } | undefined) => [error?.message, ...(error?.details ?? [])].join('\n');

/** What both forms of `scenes` are read into: [split, path, boxes]. */
const expected: [string, string, number[][]][] = [
  ['train', 'train/a.png', [[0, 3, 4, 20, 21.5]]],
  ['train', 'train/c.png', []],
  ['train', 'train/d.png', [[1, 341 / 1024, 683 / 1024, 9319 / 1024, 3788 / 1024]]],
  [
    'train',
    'train/more/b.png',
    [
      [0, 0, 0, 28, 28],
      [1, 10.25, 2, 8, 24],
    ],
  ],
  ['val', 'val/a.png', [[0, 5, 5, 5, 5]]],
  ['val', 'val/e.png', [[1, 6, 6, 12, 12]]],
];

const rename = (all: Files, name: (old: string) => string): Files =>
  Object.fromEntries(Object.entries(all).map(([old, data]) => [name(old), data]));

describe('both forms', () => {
  test.each<[string, Files]>([
    ['YOLO: images/train beside labels/train', yolo()],
    ['YOLO: train/images beside train/labels', yolo(scenes, { inSplits: true })],
    ['YOLO: names as a map', yolo(scenes, { yaml: 'train: images/train\nval: [images/val]\ntest:\nnames:\n  1: stroke\n  0: ring\n' })],
    [
      'YOLO: the folder of the split, not of its images',
      yolo(scenes, { inSplits: true, yaml: 'train: ./train\nval: ../val/\nnames: [ring, stroke]' }),
    ],
    ['YOLO: no folders named', yolo(scenes, { yaml: 'names: [ring, stroke]' })],
    ['YOLO: no folders named, in splits', yolo(scenes, { inSplits: true, yaml: 'names: [ring, stroke]' })],
    [
      'YOLO: inside folders, with what programs leave',
      {
        ...rename(yolo(), (name) => `a/b/${name}`),
        'a/b/labels/train/classes.txt': 'x',
        'a/b/labels/train.cache': 'x',
        'a/README.md': 'x',
      },
    ],
    ['COCO: a file for each split', coco()],
    [
      'COCO: in folders with a year',
      rename(coco(), (name) => name.replace('images/train', 'images/train2017').replace('_val', '_val2017')),
    ],
    [
      'COCO: images beside the file, in the folder of the split',
      rename(coco(), (name) => name.replace('images/', '').replace(/annotations.instances_(\w+)/, '$1/_annotations.coco')),
    ],
    ['COCO: inside folders', rename(coco(), (name) => `a/b/${name}`)],
  ])('are read into the same: %s', (_what, zip) =>
    withImport(
      zip,
      ({ error, summary, items, text }) => {
        expect(said(error)).toBe('');
        expect(items().map(({ split, path, boxes }) => [split, path, boxes?.map((b) => [b.label, b.x, b.y, b.width, b.height])])).toEqual(
          expected,
        );
        const boxesOf = (boxes: number[][]) => boxes.map(([label = 0, ...box]) => [names[label], ...box]);
        const lines = [names, ...expected.map(([split, path, boxes], n) => [split, path, boxesOf(boxes), items()[n]?.sha256])]
          .map((line) => `${JSON.stringify(line)}\n`)
          .join('');
        expect(summary()).toMatchObject({
          classes: names,
          items: 6,
          images: { train: 4, val: 2, test: 0 },
          bySplit: { train: [2, 2], val: [1, 1], test: [0, 0] },
          boxesBySplit: { train: [2, 2], val: [1, 1], test: [0, 0] },
          duplicatesAcrossSplits: 0,
          contentHash: createHash('sha256').update(lines).digest('hex'),
        });
        for (const line of text(outputs.manifest).trimEnd().split('\n')) expect(DatasetItem.parse(JSON.parse(line)).label).toBeNull();
      },
      detection,
    ),
  );
});

/** The warnings of an import, by code. */
const warned = (events: readonly { type: string }[]) =>
  Object.fromEntries(events.flatMap((e) => (e.type === 'warning' && 'code' in e && 'message' in e ? [[e.code, e.message]] : [])));

/** The boxes of one image of 28 × 28 pixels with these lines in its label file. */
const withLines = (text: string): Files => changed(yolo(), { 'labels/train/a.txt': text });
/** The COCO form whose file of train was broken. */
const withCoco = (change: (file: Coco) => void): Files => coco(scenes, change);

describe('what is read', () => {
  test('images without split folders are divided by the seed, in both forms alike', () =>
    withImport(
      yolo(unsplit(scenes)),
      (text) =>
        withImport(
          coco(unsplit(scenes)),
          (json) => {
            expect(text.summary().images).toEqual({ train: 5, val: 1, test: 0 });
            expect(json.text(outputs.manifest)).toBe(text.text(outputs.manifest));
            expect(json.summary()).toEqual(text.summary());
          },
          detection,
        ),
      detection,
    ));

  test.each([
    ['YOLO', yolo(scenes.filter(({ split }) => split === 'train'))],
    ['COCO', coco(scenes.filter(({ split }) => split === 'train'))],
  ])('without a split val, the share is taken from train, and said: %s', (_form, zip) =>
    withImport(
      zip,
      ({ summary, events }) => {
        expect(summary().images).toEqual({ train: 3, val: 1, test: 0 });
        expect(warned(events)).toHaveProperty('VAL_FROM_TRAIN');
      },
      detection,
    ),
  );

  test('classes without a box are kept and told', () =>
    withImport(
      yolo(scenes, { yaml: 'names: [ring, stroke, "no, thing", 4]' }),
      ({ summary, events }) => {
        expect(summary().classes).toEqual(['ring', 'stroke', 'no, thing', '4']);
        expect(warned(events).CLASSES_WITHOUT_BOXES).toBe('2 classes have no boxes to train on: no, thing, 4.');
      },
      detection,
    ));

  test('a box up to a pixel out of its image is cut off there, and counted', () =>
    withImport(
      withLines('0 0.5 0.5 1.07 1\n1 0.9 0.9 0.201 0.2\n'),
      ({ items, events }) => {
        expect(items()[0]?.boxes?.map(({ x, y, width, height }) => [x, y, x + width, y + height])).toEqual([
          [0, 0, 28, 28],
          [expect.closeTo(22.386, 3), expect.closeTo(22.4, 3), 28, 28],
        ]);
        expect(warned(events).BOXES_CLIPPED).toMatch(/^2 boxes reached out of their images/);
      },
      detection,
    ));

  test('a box that stands twice with its class counts once, and is told', () =>
    withImport(
      withLines('0 0.5 0.5 0.25 0.25\n1 0.5 0.5 0.25 0.25\r\n\n0 0.50000001 0.5 0.25 0.25'),
      ({ items, events }) => {
        expect(items()[0]?.boxes).toEqual([0, 1].map((label) => ({ label, x: 10.5, y: 10.5, width: 7, height: 7 })));
        expect(warned(events).BOXES_TWICE).toMatch(/^1 box stood in an image before/);
      },
      detection,
    ));

  test('images without boxes are counted; crowds are kept to be ignored, images that no file names are left out, and both are told', () =>
    withImport(
      changed(
        withCoco((file) => {
          file.annotations[1].iscrowd = 1;
        }),
        { 'images/train/x.png': 'not even an image' },
      ),
      ({ summary, items, text, events }) => {
        expect(summary()).toMatchObject({ items: 6, boxesBySplit: { train: [2, 1] } });
        expect(
          items()
            .find(({ path }) => path === 'train/more/b.png')
            ?.boxes?.map(({ crowd }) => crowd),
        ).toEqual([undefined, true]);
        expect(text(outputs.manifest).match(/"crowd":true/g)).toHaveLength(1);
        expect(warned(events)).toEqual({
          CROWDS_IGNORED: '1 annotation is a crowd (iscrowd): training and evaluation ignore their class there.',
          IMAGES_NOT_LISTED: '1 file that no JSON file names was left out: images/train/x.png.',
          IMAGES_WITHOUT_BOXES: '1 image without boxes: it is learned as showing nothing.',
        });
      },
      detection,
    ));

  test('boxes belong to the upright image: of one that EXIF turns by 90 degrees, too', async () => {
    const turned = await photo(300, 200).withMetadata({ orientation: 6 }).jpeg().toBuffer();
    await withImport(
      changed(yolo(), { 'images/train/a.png': turned, 'labels/train/a.txt': '0 0.5 0.25 1 0.5' }),
      ({ items }) => {
        const [item] = items();
        expect(item).toMatchObject({ width: 200, height: 300, boxes: [{ label: 0, x: 0, y: 0, width: 200, height: 150 }] });
      },
      detection,
    );
    await withImport(
      changed(
        withCoco((file) => {
          Object.assign(file.images[0], { width: 300, height: 200 });
        }),
        { 'images/train/a.png': turned },
      ),
      ({ error }) => {
        const reason = 'says 300 × 200 pixels, but the image has 200 × 300 when its EXIF orientation is applied, as boxes need it';
        expect(error?.details).toEqual([`annotations/instances_train.json: the image train/a.png: ${reason}`]);
      },
      detection,
    );
  });

  test('a thumbnail shows the boxes in the colour of their class', async () => {
    const grey = await sharp(Buffer.alloc(192 * 96 * 3, 128), { raw: { width: 192, height: 96, channels: 3 } })
      .png()
      .toBuffer();
    await withImport(
      changed(yolo(), { 'images/train/a.png': grey, 'labels/train/a.txt': '1 0.5 0.5 0.5 0.5' }),
      async ({ workDir, items }) => {
        const { thumbnailOffset: at = 0, thumbnailBytes: bytes = 0 } = items()[0] ?? {};
        const thumbnail = readFileSync(join(workDir, outputs.thumbnails)).subarray(at, at + bytes);
        const { data, info } = await sharp(thumbnail).raw().toBuffer({ resolveWithObject: true });
        expect(info).toMatchObject({ width: 96, height: 48 });
        /** How much more green than red there is. */
        const green = (x: number, y: number) => (data[(y * 96 + x) * 3 + 1] ?? 0) - (data[(y * 96 + x) * 3] ?? 0);
        for (const [x, y] of [
          [24, 24],
          [72, 24],
          [48, 12],
          [48, 36],
        ] as const)
          expect(green(x, y)).toBeGreaterThan(40);
        for (const [x, y] of [
          [10, 24],
          [48, 24],
          [48, 4],
        ] as const)
          expect(Math.abs(green(x, y))).toBeLessThan(15);
      },
      detection,
    );
  });

  test('names with the line separators of Unicode do not end a line of the manifest', () =>
    withImport(
      yolo(scenes.map((scene) => ({ ...scene, name: scene.name.replace('.', '\u2028\u2029.') }))),
      async ({ text, items, image }) => {
        expect(text(outputs.manifest)).not.toMatch(/[\u2028\u2029]/);
        expect(items()[0]?.path).toBe('train/a\u2028\u2029.png');
        expect(await image({ n: 0 })).toEqual(scenes[0]?.image);
      },
      detection,
    ));

  test('for the task CLASSIFICATION the same zip is no dataset', () =>
    withImport(yolo(), ({ error }) => expect(error?.code).toBe('DATA_INVALID')));
});

interface Refusal {
  title: string;
  zip: () => Files;
  says: RegExp;
  code?: 'LIMIT_EXCEEDED';
  limits?: SpecChanges['limits'];
  /** Tried on a real child too. */
  child?: true;
}

const line = (text: string) => () => withLines(text);
const yaml = (text: string) => () => yolo(scenes, { yaml: text });
const broken = (change: (file: Coco) => void) => () => withCoco(change);
const firstBox = (change: object) => broken((file) => Object.assign(file.annotations[0], change));
const raw = (text: string) => () => changed(coco(), { 'annotations/instances_train.json': text });
const trained = scenes.filter(({ split }) => split === 'train');
const manyLines = (count: number) => Array.from({ length: count }, (_, i) => `0 0.5 0.5 ${0.1 + i / 1e6} 0.1`).join('\n');

const refusals: Refusal[] = [
  // Which form it is.
  {
    title: 'neither form',
    zip: () => ({ 'a/0.png': scenes[0]?.image ?? '' }),
    says: /neither a file with the names of the classes \(data\.yaml.* nor a \.json .* nor a \.xml/,
  },
  {
    title: 'both forms',
    zip: () => ({ ...yolo(), ...coco() }),
    says: /data\.yaml \(the form YOLO\) and annotations.instances_train\.json \(the form COCO\)/,
  },
  {
    title: 'two YAML files',
    zip: () => changed(yolo(), { 'data.yaml': null, 'a.yaml': 'names: [a]', 'b.yml': 'names: [a]' }),
    says: /several YAML files.*a\.yaml, b\.yml/,
  },

  // YOLO: data.yaml.
  { title: 'YAML that is none', zip: yaml('names: [a\nb: "c'), says: /data\.yaml is not the description of a dataset: line \d/ },
  { title: 'YAML that is a list', zip: yaml('- a'), says: /it is a map with names/ },
  { title: 'no names', zip: yaml('train: images/train'), says: /names is a list of names, or a map/ },
  {
    title: 'more classes in nc than names',
    zip: yaml('nc: 3\nnames: [a, b]'),
    says: /data\.yaml: nc is 3, but there are 2 names: a, b\. Correct/,
  },
  { title: 'fewer classes in nc than names', zip: yaml('names: {0: a, 1: b}\nnc: "1"'), says: /nc is 1, but there are 2 names/ },
  {
    title: 'another number of classes in obj.data than names in obj.names',
    zip: () => changed(yolo(), { 'data.yaml': null, 'obj.names': 'a\nb\n', 'obj.data': 'classes= 3\nnames = obj.names' }),
    says: /obj\.data: classes is 3, but there are 2 names/,
  },
  { title: 'no name in names', zip: yaml('names: []'), says: /names is empty/ },
  { title: 'names with a gap', zip: yaml('names: {0: a, 2: b}'), says: /names has 2 entries, but none for the class 1/ },
  { title: 'a number twice', zip: yaml('names: {0: a, 1: b, 0: c}'), says: /a key stands there twice/ },
  { title: 'a name twice', zip: yaml('names: [a, a]'), says: /a: is the name of two classes/ },
  { title: 'an empty name', zip: yaml('names: [a, ""]'), says: /is an empty name/ },
  { title: 'a name that a terminal obeys', zip: yaml('names: [a, "b\\e[31m"]'), says: /b\\u001b\[31m: has control characters/ },
  {
    title: 'a name that is read backwards',
    zip: yaml('names: [a, "b\\u202Ec"]'),
    says: /b\\u202ec: has control characters or direction marks/,
  },
  { title: 'a long name', zip: yaml(`names: [a, ${'b'.repeat(201)}]`), says: /longer than 200 characters/ },
  {
    title: '10,001 names',
    zip: yaml(`names: [${Array.from({ length: 10_001 }, (_, i) => `n${i}`)}]`),
    says: /There are 10,001 classes; 10,000 are allowed/,
    code: 'LIMIT_EXCEEDED',
  },
  {
    title: 'a billion laughs',
    child: true,
    zip: yaml('a: &a [x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b]\nnames: *c'),
    says: /has an alias/,
  },
  { title: 'YAML that is nested deeply', zip: yaml(`names: ${'['.repeat(3000)}`), says: /not the description of a dataset/ },
  { title: 'YAML of a megabyte', zip: yaml(`names: [a]\n#${' '.repeat(2 ** 20)}`), says: /data\.yaml: is larger than 256 KiB/ },
  {
    title: 'YAML that is no UTF-8',
    zip: () => changed(yolo(), { 'data.yaml': Buffer.from('names: [\xe4]', 'latin1') }),
    says: /data\.yaml: is not a text in UTF-8/,
  },
  {
    title: 'a split in a folder that is not there',
    zip: yaml('train: images/train\nval: images/valid\nnames: [ring, stroke]'),
    says: /images\/val\/a\.png: lies in no folder of a split/,
  },
  {
    title: 'a split in a list of files that is not there',
    zip: yaml('train: train.txt\nnames: [ring, stroke]'),
    says: /There are no images for data\.yaml\. .*: train \(train\.txt\)/,
  },
  {
    title: 'an image of no split',
    zip: yaml('train: images/train\nnames: [ring, stroke]'),
    says: /images\/val\/a\.png: lies in no folder of a split/,
  },
  {
    title: 'splits in the same folder',
    zip: yaml('train: images\nval: images/val\nnames: [ring, stroke]'),
    says: /images\/val\/a\.png: lies in the folders of train \(images\) and val \(images\/val\)/,
  },

  // YOLO: labels.
  {
    title: 'a label file without an image',
    zip: () => changed(yolo(), { 'labels/val/z.txt': '' }),
    says: /labels\/val\/z\.txt: has no image of its name/,
  },
  {
    title: 'an image that is not under images',
    zip: () => changed(yolo(), { 'train/z.png': 'x' }),
    says: /train\/z\.png: lies in no folder of a split/,
  },
  {
    title: 'two images with one label file',
    zip: () => changed(yolo(), { 'images/train/a.jpg': 'x' }),
    says: /images\/train\/a\.jpg: has the same label file as images\/train\/a\.png/,
  },
  {
    title: 'labels but no images',
    zip: () => ({ 'data.yaml': 'names: [a]', 'README.md': 'x' }),
    says: /There are no images in the zip\. Export the dataset with its images/,
  },
  {
    title: 'no box in train',
    zip: () => yolo(scenes.map((s) => (s.split === 'train' ? { ...s, boxes: [] } : s))),
    says: /There are no boxes to train on/,
  },
  {
    title: 'a class that is not there',
    zip: line('0 .5 .5 .1 .1\n2 .5 .5 .1 .1'),
    says: /labels\/train\/a\.txt: line 2: the class 2 is none of 0 to 1/,
  },
  { title: 'a negative class', zip: line('-1 .5 .5 .1 .1'), says: /line 1: the class -1/ },
  { title: 'a class with a fraction', zip: line('0.5 .5 .5 .1 .1'), says: /line 1: the class 0\.5/ },
  { title: 'a line that is cut off', zip: line('0 .1 .1'), says: /line 1: has 3 numbers/ },
  ...['nan', 'inf', '-Infinity', '1e999', '0x1', '1,5', 'a'].map((word) => ({
    title: `a number ${word}`,
    zip: line(`\n0 .5 ${word} .1 .1`),
    says: /line 2: has something that is not a number/,
  })),
  { title: 'a negative height', zip: line('0 .5 .5 .1 -.1'), says: /line 1: the width and the height of a box are not below 0/ },
  {
    title: 'a box that reaches out',
    zip: line('0 .5 .5 .1 .1\n1 0.95 0.5 0.2 0.2'),
    says: /1 box or size does not fit the images[\s\S]*labels\/train\/a\.txt: line 2: the box reaches 1\.4 pixels out/,
  },
  { title: 'boxes in pixels', zip: line('0 14 14 10 10'), says: /line 1: the box reaches 504\.0 pixels out/ },
  { title: '1,001 boxes in an image', zip: line(manyLines(1001)), says: /labels\/train\/a\.txt: has more than 1000 boxes/ },
  { title: 'a label file of a megabyte', zip: line(' '.repeat(2 ** 20 + 1)), says: /labels\/train\/a\.txt: is larger than 1024 KiB/ },
  {
    title: 'more boxes than a dataset may have',
    zip: line(manyLines(1000)),
    limits: { boxesMax: 999 },
    code: 'LIMIT_EXCEEDED',
    says: /more than 999 boxes/,
  },
  {
    title: 'a damaged image',
    zip: () => changed(yolo(), { 'images/train/a.png': 'x' }),
    says: /images\/train\/a\.png: is not a JPEG/,
  },

  // COCO.
  ...['images', 'annotations', 'categories'].map((key) => ({
    title: `no ${key}`,
    zip: broken((file) => delete file[key]),
    says: new RegExp(`instances_train\\.json: has no list ${key}`),
  })),
  { title: 'another type', zip: broken((file) => (file.images = 'x')), says: /has images that is not a list/ },
  {
    title: 'JSON that is cut off',
    zip: raw(JSON.stringify(annotationsOf(scenes)).slice(0, 200)),
    says: /instances_train\.json: is not/,
  },
  { title: 'JSON that is an empty file', zip: raw(''), says: /instances_train\.json: is not JSON/ },
  { title: 'JSON that is a list', zip: raw('[]'), says: /is a list, but an object with images/ },
  { title: 'JSON with more behind it', zip: raw('{} {}'), says: /more behind its end/ },
  {
    title: 'JSON that is nested 50 million deep',
    child: true,
    zip: raw(`{"images":${'['.repeat(5e7)}`),
    says: /is nested deeper than 100 levels/,
  },
  {
    title: 'JSON that is nested deep where nobody looks',
    zip: raw(`{"info":${'{"a":'.repeat(1e6)}`),
    says: /is nested deeper than 100 levels/,
  },
  { title: 'a list twice', zip: raw('{"images":[],"images":[]}'), says: /has images twice/ },
  {
    title: 'NaN',
    zip: raw(JSON.stringify(annotationsOf(trained)).replace('"bbox":[3', '"bbox":[NaN')),
    says: /annotations\[0\] is not JSON \(NaN/,
  },
  {
    title: 'an infinite number',
    zip: raw(JSON.stringify(annotationsOf(trained)).replace('"bbox":[3', '"bbox":[1e999')),
    says: /annotations\[0\]: bbox/,
  },
  { title: 'a bbox of three numbers', zip: firstBox({ bbox: [1, 2, 3] }), says: /annotations\[0\]: bbox is a list of 4 numbers/ },
  ...[null, true, undefined].map((image_id) => ({
    title: `the image_id ${image_id}`,
    zip: firstBox({ image_id }),
    says: /annotations\[0\]: image_id is a number, or a text of at most 200 characters/,
  })),
  { title: 'the category_id null', zip: firstBox({ category_id: null }), says: /annotations\[0\]: category_id is a number, or a text/ },
  { title: 'an iscrowd that is a text', zip: firstBox({ iscrowd: 'no' }), says: /annotations\[0\]: iscrowd is 0 or 1, or true or false/ },
  {
    title: 'a polygon with an odd number of numbers',
    zip: firstBox({ bbox: undefined, segmentation: [[1, 1, 30, 30, 10, 1, 10]] }),
    says: /annotation 1: has neither a bbox nor a polygon/,
  },
  { title: 'no bbox', zip: firstBox({ bbox: undefined, segmentation: null }), says: /annotation 1: has neither a bbox nor a polygon/ },
  { title: 'an image id that is not there', zip: firstBox({ image_id: 99 }), says: /annotation 1: there is no image 99/ },
  {
    title: 'a negative width',
    zip: firstBox({ bbox: [3, 4, -20, 21] }),
    says: /annotation 1: the width and the height of a box are not below 0/,
  },
  {
    title: 'a bbox that reaches out',
    child: true,
    zip: firstBox({ bbox: [3, 4, 26.5, 21] }),
    says: /instances_train\.json: the image train\/a\.png: annotation 1: the box reaches 1\.5 pixels out of the image of 28 × 28/,
  },
  { title: 'a huge bbox', zip: firstBox({ bbox: [-1e308, 0, 1e308, 1] }), says: /annotation 1: the box reaches/ },
  { title: 'a bbox as corners', zip: firstBox({ bbox: [20, 20, 27, 27] }), says: /annotation 1: the box reaches 19\.0 pixels/ },
  { title: 'a category that is not there', zip: firstBox({ category_id: 1 }), says: /annotation 1: there is no category 1/ },
  { title: 'an image id twice', zip: broken((file) => (file.images[1].id = 100)), says: /two images have the id 100/ },
  { title: 'a category id twice', zip: broken((file) => (file.categories[1].id = 7)), says: /two categories have the id 7/ },
  {
    title: 'a category name twice',
    zip: () =>
      coco(
        scenes.filter((s) => s.split === 'train'),
        (file) => (file.categories[1].name = 'stroke'),
      ),
    says: /stroke: is the name of two classes/,
  },
  {
    title: 'an image that is missing',
    zip: () => changed(coco(), { 'images/train/d.png': null }),
    says: /instances_train\.json: the image d\.png is not in the zip/,
  },
  {
    title: 'an image that leads out of the zip',
    zip: broken((file) => (file.images[0].file_name = '../../etc/passwd')),
    says: /the image \.\.\/\.\.\/etc\/passwd is not in the zip/,
  },
  {
    title: 'an image that can be two',
    zip: () => changed(coco(), { 'train/a.png': 'x' }),
    says: /the image a\.png can be images\/train\/a\.png or train\/a\.png/,
  },
  {
    title: 'an image twice',
    zip: broken((file) => file.images.push({ ...file.images[0], id: 999 })),
    says: /the image a\.png was named before/,
  },
  {
    title: 'an image of another size',
    zip: broken((file) => (file.images[0].width = 29)),
    says: /the image train\/a\.png: says 29 × 28 pixels, but the image has 28 × 28/,
  },
  {
    title: 'two files for a split',
    zip: () => changed(coco(), { 'annotations/train2017.json': JSON.stringify(annotationsOf([])) }),
    says: /instances_train\.json, annotations\/train2017\.json are all for the split train/,
  },
  {
    title: 'no images',
    zip: () => ({ 'a.png': 'x', 'a.json': '{"images":[],"annotations":[],"categories":[]}' }),
    says: /There are no images in the lists/,
  },
  {
    title: '300,000 boxes in an image',
    child: true,
    zip: broken(
      (file) => (file.annotations = Array.from({ length: 3e5 }, (_, id) => ({ id, image_id: 100, category_id: 3, bbox: [1, 1, 5, 5] }))),
    ),
    says: /1 problem in annotations\/instances_train\.json[\s\S]*annotation 1000: the image a\.png has more than 1000 boxes/,
  },
  {
    title: 'more boxes than a dataset may have, COCO',
    zip: () => coco(),
    limits: { boxesMax: 3 },
    code: 'LIMIT_EXCEEDED',
    says: /more than 3 boxes/,
  },
  {
    title: 'an element of 5 MiB',
    zip: broken((file) => (file.annotations[0].segmentation = 'x'.repeat(5 * 2 ** 20))),
    says: /annotations\[0\] is larger than 4 MiB/,
  },
];

describe('refused, with the place and without leaving anything:', () => {
  const refuse = async ({ zip, says, code, limits }: Refusal, run?: typeof asChild) =>
    withImport(
      zip(),
      ({ error, exitCode, workDir }) => {
        expect(said(error)).toMatch(says);
        expect(error).toMatchObject({ code: code ?? 'DATA_INVALID', retryable: false });
        expect(exitCode).toBe(65);
        expect(readdirSync(workDir)).toEqual([]);
      },
      { ...detection, ...(limits ? { limits } : {}), ...(run ? { run } : {}) },
    );

  test.each(refusals)('$title', (refusal) => refuse(refusal));

  test.each(refusals.filter(({ child }) => child))('by a real child: $title', (refusal) => refuse(refusal, asChild));

  test('of many bad lines all are counted and the first 50 named', () =>
    withImport(
      withLines('x\n'.repeat(70)),
      ({ error }) => {
        expect(error?.message).toEqual(
          expect.stringMatching(/^70 problems in the labels and splits\. .*`onProblem: LEAVE_OUT`.* The first 50:$/),
        );
        expect(error?.details).toHaveLength(50);
      },
      detection,
    ));
});

test('a refused dataset leaves no row and no file but its failed version', () =>
  withDatasets(async (datasets) => {
    await datasets.start();
    const { job, version } = await datasets.import(withLines('9 .5 .5 .1 .1'), detection);
    expect(job).toMatchObject({
      state: 'FAILED',
      failureCode: 'DATA_INVALID',
      failureMessage: expect.stringContaining('labels/train/a.txt: line 1'),
    });
    expect(version).toMatchObject({ state: 'FAILED', contentHash: null, countsJson: null });
    for (const table of [datasetItem, datasetItemLabel]) expect(datasets.db.select().from(table).all()).toEqual([]);
    const owned = datasets.db.select().from(artifact).where(eq(artifact.ownerId, version.id)).all();
    expect(owned).toEqual([]);
    await eventually(() => expect(readdirSync(join(datasets.folder, 'work'))).toEqual([]));
  }));
