import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { readImage } from '../src/datasets/imageTable.ts';
import { layOutClassFolders } from '../src/datasets/import/classFolders.ts';
import { nameProblem } from '../src/datasets/import/names.ts';
import { createOutputFile, files } from '../src/datasets/import/outputs.ts';
import { collectProblems, printable } from '../src/datasets/import/problems.ts';
import { splitBySeed } from '../src/datasets/import/splits.ts';
import { ChildError } from '../src/jobs/childio.ts';
import { DatasetItem, manifestVersion } from '../src/jobs/manifest.ts';
import { coco, yolo } from './support/detection.ts';
import { digit, digitFolders, type Files, photo, rawZip, zipOf } from './support/images.ts';
import { withImport } from './support/imports.ts';
import { withFolder } from './support/server.ts';

const image = await digit(5, 0);
const other = await digit(6, 0);
const third = await digit(7, 0);
/** Class folders with a few images each; the same bytes nowhere twice. */
const classes = await digitFolders([0, 1, 2], 5);
const splitFolders = {
  ...(await digitFolders([0, 1], 3, { under: 'train/' })),
  ...(await digitFolders([0, 1], 1, { under: 'val/', first: 10 })),
};
/** Renames every file. */
const moved = (all: Files, rename: (name: string) => string): Files =>
  Object.fromEntries(Object.entries(all).map(([name, data]) => [rename(name), data]));

describe('layouts', () => {
  test('class folders are split by the seed: 80 and 20 % of each class', () =>
    withImport(classes, ({ summary, paths }) => {
      expect(summary()).toMatchObject({
        classes: ['0', '1', '2'],
        items: 15,
        bySplit: { train: [4, 4, 4], val: [1, 1, 1], test: [0, 0, 0] },
      });
      expect(paths().every((path) => /^(train|val) [012]\/\d\.png$/.test(path))).toBe(true);
    }));

  test('split folders are taken as they are', () =>
    withImport(splitFolders, ({ summary, paths, warnings }) => {
      expect(summary()).toMatchObject({ classes: ['0', '1'], bySplit: { train: [3, 3], val: [1, 1], test: [0, 0] } });
      expect(paths().at(-1)).toBe('val val/1/10.png');
      expect(warnings).toEqual([]);
    }));

  test('Roboflow: Folder Structure', () =>
    withImport(
      { ...moved(classes, (name) => `train/${name}`), 'valid/0/z.png': other, 'README.roboflow.txt': 'x' },
      ({ summary, warnings }) => {
        expect(summary()).toMatchObject({ classes: ['0', '1', '2'], images: { val: 1, test: 0 } });
        expect(warnings.filter((code) => code !== 'CLASSES_WITHOUT_VAL')).toEqual(['FILES_IGNORED']);
      },
    ));

  test.each([
    ['valid', 'val'],
    ['Validation', 'val'],
    ['TRAIN', 'train'],
    ['testing', 'test'],
  ])('a folder %s is the split %s', (name, split) =>
    withImport({ ...splitFolders, [`${name}/0/x.png`]: image, [`${name}/1/x.png`]: other }, ({ error, paths }) => {
      if (split === 'test') expect(paths()).toContain('test test/0/x.png');
      else expect(error?.details).toEqual([expect.stringMatching(`are all folders for the split ${split}: keep one`)]);
    }),
  );

  test('folders around everything are left out, and the content is the same', () =>
    withImport(classes, (plain) =>
      withImport({ ...moved(classes, (name) => `digits/v1/${name}`), 'digits/': '', 'digits/v1/': '' }, (wrapped) => {
        expect(wrapped.text(files.manifest)).toBe(plain.text(files.manifest));
        expect(wrapped.summary().contentHash).toBe(plain.summary().contentHash);
      }),
    ));

  test('what operating systems add is ignored and counted, documents beside the classes too', () =>
    withImport(
      {
        ...moved(classes, (name) => `digits/${name}`),
        '__MACOSX/digits/0/._0.png': 'x',
        'digits/.DS_Store': 'x',
        'digits/0/Thumbs.db': 'x',
        'digits/0/._0.png': 'x',
        'digits/README.md': 'Digits.',
        'digits/classes.txt': '0 1 2',
      },
      ({ summary, events }) => {
        expect(summary().items).toBe(15);
        expect(events).toContainEqual(expect.objectContaining({ code: 'FILES_IGNORED', message: expect.stringMatching(/^5 files/) }));
        expect(events).toContainEqual(
          expect.objectContaining({ code: 'FOLDERS_IGNORED', message: expect.stringContaining('__MACOSX (1 file)') }),
        );
      },
    ));

  test('without a folder val, the share is taken from train by the seed, and said', () =>
    withImport(
      { ...moved(classes, (name) => `train/${name}`), 'test/0/x.png': image, 'test/1/x.png': other },
      ({ summary, events, paths }) => {
        expect(summary().bySplit).toEqual({ train: [4, 4, 4], val: [1, 1, 1], test: [1, 1, 0] });
        expect(paths().filter((path) => path.startsWith('val '))).toEqual([0, 1, 2].map(() => expect.stringMatching(/^val train\//)));
        const message = 'There is no split val: 28 % of each class of train were taken, by the seed 0.';
        expect(events).toContainEqual({ type: 'warning', code: 'VAL_FROM_TRAIN', message });
      },
      { splitShares: { val: 0.28, test: 0 } },
    ));

  test('without a folder val and with a share of 0, there is no validation split', () =>
    withImport(
      moved(classes, (name) => `train/${name}`),
      ({ summary, warnings }) => {
        expect(summary().bySplit.val).toEqual([0, 0, 0]);
        expect(warnings).toEqual([]);
      },
      { splitShares: { val: 0, test: 0 } },
    ));

  test('classes may be called like splits when others are not', () =>
    withImport({ ...classes, 'train/a.png': image }, ({ summary }) => expect(summary().classes).toEqual(['0', '1', '2', 'train'])));

  test.each<[string, Files, RegExp]>([
    ['no images', { 'README.md': 'x', '0/': '' }, /^There are no images in the zip\.$/],
    [
      'images outside of classes',
      { ...classes, 'a.png': image },
      /1 file does not lie in a class folder[\s\S]*a\.png: expected <class>\/<image>/,
    ],
    ['folders inside of classes', { ...classes, '0/more/a.png': image }, /0\/more\/a\.png: expected/],
    [
      'some images in splits and some not',
      { ...splitFolders, '0/a.png': image, 'train/a.png': image },
      /2 files do not[\s\S]*0\/a\.png: expected <split>\/<class>\/<image>[\s\S]*train\/a\.png: expected/,
    ],
    [
      'splits without classes',
      { 'train/a.png': image, 'val/b.png': other },
      /^The folders train, val hold images, but no class folders\.$/,
    ],
    ['a YOLO dataset', yolo(), /^The folders train, val hold images.* belongs to a detection dataset.*`task: DETECTION`\.$/],
    ['a COCO dataset', coco(), /annotations\/instances_train\.json belongs to a detection dataset.*`task: DETECTION`\.$/],
    [
      'an image beside the class folders',
      { ...moved(classes, (name) => `photos/${name}`), 'photos/cover.png': image },
      /^1 file does not.*\nphotos\/cover\.png: expected <class>\/<image>[^\n]*$/,
    ],
    [
      'Roboflow: Multi-Label Classification',
      { 'train/a.png': image, 'train/_classes.csv': 'filename, cat, dog\na.png, 1, 0', 'valid/b.png': other, 'valid/_classes.csv': '' },
      /no class folders\. train\/_classes\.csv is a table of labels.*Export the dataset as class folders \("Folder Structure"\)/,
    ],
    ['only one class', { '0/a.png': image, '0/b.png': other }, /^There is only one class, 0/],
    ['an empty class', { ...classes, '7/': '' }, /1 class is empty[\s\S]*7: has no images/],
    [
      'a class without images in train',
      { ...splitFolders, 'val/2/a.png': image },
      /1 class has no images to train on[\s\S]*2: has no images in train/,
    ],
    ['no train', moved(classes, (name) => `val/${name}`), /no images to train on: all are in val\. Add a split train, or name no splits/],
    ['classes that differ in case only', { 'Cat/a.png': image, 'cat/b.png': other }, /cat: differs from Cat only in the case/],
    ['classes that differ in spaces only', { 'cat/a.png': image, 'cat /b.png': other }, /cat : differs from cat only in spaces/],
    ['a class with a long name', { ...classes, [`${'c'.repeat(201)}/a.png`]: image }, /longer than 200 characters/],
  ])('%s: refused with the reason', (_what, zip, reason) =>
    withImport(zip, ({ error, exitCode }) => {
      expect(error?.code).toBe('DATA_INVALID');
      expect([error?.message, ...(error?.details ?? [])].join('\n')).toMatch(reason);
      expect(exitCode).toBe(65);
    }),
  );

  test('more than 10,000 classes are refused', () => {
    const names = Array.from({ length: 10_001 }, (_, i) => ({ name: `c${i}/a.png` }));
    expect(() => layOutClassFolders(names, [], collectProblems(50))).toThrow('There are 10,001 classes; 10,000 are allowed.');
  });
});

describe('what is made', () => {
  test('the manifest has a line for each image, sorted by split and path, which the protocol accepts', () =>
    withImport(classes, ({ text, items }) => {
      const lines = text(files.manifest).trimEnd().split('\n');
      expect(lines.map((line) => DatasetItem.parse(JSON.parse(line)).n)).toEqual(lines.map((_, n) => n));
      const keys = items().map(({ split, path }) => `${['train', 'val', 'test'].indexOf(split)} ${path}`);
      expect(keys).toEqual([...keys].sort());
      for (const { thumbnailOffset: _o, thumbnailBytes: _b, ...item } of items())
        expect(lines[item.n]).toBe(JSON.stringify({ v: manifestVersion, ...item }));
    }));

  test.each([true, false])('the images are read from where they lie in the zip, deflated there: %s', (compress) =>
    withImport(zipOf(classes, { compress }), async ({ zip, items, image, workDir }) => {
      for (const item of items()) expect(await image(item)).toEqual(classes[item.path]);
      const bytes = readFileSync(zip);
      bytes.fill(0, 40, 200);
      writeFileSync(zip, bytes);
      await expect(Promise.all(items().map(image))).rejects.toThrow();
      await expect(readImage({ zip, images: join(workDir, files.images) }, items().length)).rejects.toThrow(
        /has 15 images, none with the number 15/,
      );
    }),
  );

  test('a thumbnail is a WebP of at most 96 pixels, upright, and where the item says', async () => {
    const turned = await photo(300, 200).withMetadata({ orientation: 6 }).jpeg().toBuffer();
    await withImport({ ...classes, '0/turned.jpg': turned }, async ({ workDir, items }) => {
      const item = items().find(({ path }) => path === '0/turned.jpg');
      expect(item).toMatchObject({ width: 200, height: 300 });
      const { thumbnailOffset: at = 0, thumbnailBytes: bytes = 0 } = item ?? {};
      const thumbnail = readFileSync(join(workDir, files.thumbnails)).subarray(at, at + bytes);
      expect(await sharp(thumbnail).metadata()).toMatchObject({ format: 'webp', width: 64, height: 96 });
      const all = items().map(({ thumbnailBytes }) => thumbnailBytes);
      expect(readFileSync(join(workDir, files.thumbnails)).length).toBe(all.reduce((sum, n) => sum + n, 0));
    });
  });

  test('JPEG, PNG and WebP are told by their content, whatever they are called', async () => {
    const named = { '0/a.png': await photo(40, 30).jpeg().toBuffer(), '1/b': await photo(40, 30).webp().toBuffer(), '0/c.txt.jpg': image };
    await withImport(named, ({ summary }) => expect(summary().items).toBe(3));
  });

  test('25 megapixels are accepted', async () =>
    withImport({ ...classes, '0/large.jpg': await photo(50, 50).resize(5000).jpeg().toBuffer() }, ({ items }) =>
      expect(items().find(({ path }) => path === '0/large.jpg')).toMatchObject({ width: 5000, height: 5000 }),
    ));

  test('of invalid images all are counted and the first 50 named', () =>
    withImport(
      { ...classes, ...Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`0/bad${i}.png`, 'x'])) },
      ({ error, workDir }) => {
        expect(error?.message).toEqual(
          expect.stringMatching(/^60 files cannot be used as images\. .*`onProblem: LEAVE_OUT`.* The first 50:$/),
        );
        expect(error?.details).toHaveLength(50);
        expect(readdirSync(workDir)).toEqual([]);
      },
    ));

  test('the bytes of an image in two splits are counted once, and named in a warning', () =>
    withImport(
      {
        'train/0/a.png': image,
        'train/1/b.png': other,
        'val/0/same.png': image,
        'val/1/same.png': image,
        'test/0/same.png': image,
        'val/1/c.png': third,
      },
      ({ summary, events }) => {
        expect(summary().duplicatesAcrossSplits).toBe(1);
        const message = '1 image is in more than one split, which flatters the metrics: train/0/a.png (train) = val/0/same.png (val).';
        expect(events).toContainEqual({ type: 'warning', code: 'DUPLICATES_ACROSS_SPLITS', message });
      },
    ));
});

describe('identity', () => {
  const hashOf = (zip: Buffer | Files, changes = {}) => withImport(zip, ({ summary }) => summary().contentHash, changes);

  test('the same zip gives the same bytes twice', () =>
    withImport(classes, (once) =>
      withImport(classes, (twice) => {
        for (const name of [files.manifest, files.items, files.thumbnails, files.summary]) expect(twice.text(name)).toBe(once.text(name));
      }),
    ));

  test('another order, compression or thread count makes no difference', async () => {
    const hash = await hashOf(classes);
    const reversed = Object.fromEntries(Object.entries(classes).reverse());
    expect(await hashOf(zipOf(reversed, { compress: false }))).toBe(hash);
    expect(await hashOf(classes, { cpuThreads: 1 })).toBe(hash);
  });

  test('a moved, renamed, changed, missing or otherwise split image makes another', async () => {
    const { '0/0.png': first = '', ...rest } = classes;
    const hashes = await Promise.all(
      [classes, { ...rest, '1/00.png': first }, { ...rest, '0/00.png': first }, { ...rest, '0/0.png': image }, rest].map((zip) =>
        hashOf(zip),
      ),
    );
    hashes.push(await hashOf(classes, { splitSeed: 1 }), await hashOf(classes, { splitShares: { val: 0.4, test: 0 } }));
    expect(new Set(hashes).size).toBe(hashes.length);
  });

  test('names are the same in composed and decomposed form, with the flag for UTF-8 and without', async () => {
    const zip = (form: 'NFC' | 'NFD', flags: number) =>
      rawZip([...Object.entries(classes).map(([name, data]) => ({ name, data })), { name: 'é/a.png'.normalize(form), data: image, flags }]);
    const hashes = new Set(await Promise.all([zip('NFC', 0x800), zip('NFD', 0x800), zip('NFC', 0), zip('NFD', 0)].map((z) => hashOf(z))));
    expect(hashes.size).toBe(1);
  });

  test('a name that is no UTF-8 is read as code page 437', () =>
    withImport(
      rawZip([
        { name: Buffer.from([0x82, 0x2f, 0x61]), data: image },
        { name: '0/a', data: other },
      ]),
      ({ summary }) => expect(summary().classes).toEqual(['0', 'é']),
    ));
});

describe('the seeded split', () => {
  const images = (n: number, label = 0) => Array.from({ length: n }, (_, i) => ({ sha256: `${label}-${i}`, label }));
  const shares = { val: 0.2, test: 0.1 };

  test('has these shares of each class, with at least one image in each split', () => {
    const counts = (n: number) => {
      const chosen = splitBySeed(images(n), 0, shares);
      return ['train', 'val', 'test'].map((split) => chosen.filter((s) => s === split).length);
    };
    expect([1, 2, 3, 10, 100].map(counts)).toEqual([
      [1, 0, 0],
      [1, 1, 0],
      [1, 1, 1],
      [7, 2, 1],
      [70, 20, 10],
    ]);
  });

  test('depends on the seed and the bytes, not on the order', () =>
    fc.assert(
      fc.property(fc.shuffledSubarray(images(40), { minLength: 40 }), fc.nat(), (shuffled, seed) => {
        const inOrder = new Map(images(40).map(({ sha256 }, i) => [sha256, splitBySeed(images(40), seed, shares)[i]]));
        expect(splitBySeed(shuffled, seed, shares)).toEqual(shuffled.map(({ sha256 }) => inOrder.get(sha256)));
      }),
      { numRuns: 50 },
    ));

  test('puts the same bytes into one split, and what two classes have where the first one has it', () => {
    const first = splitBySeed(images(30), 7, shares);
    const shared = images(10).map((one) => ({ ...one, label: 1 }));
    const chosen = splitBySeed([...shared, ...images(20, 1), ...images(30), ...images(30)], 7, shares);
    expect(chosen.slice(0, 10)).toEqual(first.slice(0, 10));
    expect(chosen.slice(30)).toEqual([...first, ...first]);
  });

  test('keeps nearly every image where it is when a tenth is added', () => {
    const before = splitBySeed(images(1000), 3, shares);
    const after = splitBySeed(images(1100), 3, shares);
    expect(before.filter((split, i) => split !== after[i]).length).toBeLessThan(30);
  });

  test('another seed makes another split', () =>
    expect(splitBySeed(images(50), 1, shares)).not.toEqual(splitBySeed(images(50), 2, shares)));
});

describe('names', () => {
  test('no accepted name leads anywhere but below its folder', () =>
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('a', '.', '/', '\\', '\0', 'C', ':', ' ', 'é') }), (name) => {
        if (nameProblem(name) === null) expect(join('/below', name).startsWith('/below/')).toBe(true);
      }),
      { numRuns: 2000 },
    ));

  test('are shown without control characters, and cut in the middle', () => {
    expect(printable('a\n\u202eb\0')).toBe('a\\u000a\\u202eb\\u0000');
    expect(printable('x'.repeat(500))).toMatch(/^x{120}…x{70}$/);
  });

  test('a collection without problems throws nothing', () => {
    const problems = collectProblems(2);
    problems.check(() => 'none');
    problems.add('a', 'b');
    expect(() => problems.check((n) => `${n} problem`)).toThrow(ChildError);
  });
});

test('an output that is larger than its buffer is written and hashed whole', () =>
  withFolder(async (folder) => {
    const output = createOutputFile(folder, 'a');
    for (let i = 0; i < 10; i += 1) output.write(Buffer.alloc(100_000, i));
    const { name, sha256, sizeBytes } = output.end();
    expect({ name, sizeBytes }).toEqual({ name: 'a', sizeBytes: 1_000_000 });
    expect(sha256).toBe(
      createHash('sha256')
        .update(readFileSync(join(folder, 'a')))
        .digest('hex'),
    );
  }));
