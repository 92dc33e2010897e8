/** What people bring as zips: names in the encodings of old programs, what tools leave in them, and files that are no zips. */
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import type { NameEncoding } from '../src/jobs/specs.ts';
import { coco, yolo } from './support/detection.ts';
import { digit, digitFolders, type Files, type RawEntry, rawZip } from './support/images.ts';
import { type Imported, withImport } from './support/imports.ts';

const images = await Promise.all([0, 1, 2, 3, 4, 5].map((n) => digit(n, 0)));
const classes = await digitFolders([0, 1], 3);

const messageOf = ({ events }: Imported, code: string): string | undefined =>
  events.flatMap((e) => (e.type === 'warning' && e.code === code ? [e.message] : []))[0];
const said = ({ error }: Imported): string => [error?.message, ...(error?.details ?? [])].join('\n');

/** A zip of two class folders whose names are these bytes, in hexadecimal. */
const foldersOf = (names: string[], flags = 0): Buffer =>
  rawZip(
    names.flatMap((name, i) =>
      [0, 1].map(
        (n): RawEntry => ({
          name: Buffer.concat([Buffer.from(name, 'hex'), Buffer.from(`/${n}.png`)]),
          data: images[2 * i + n] ?? '',
          flags,
        }),
      ),
    ),
  );

describe('names that are not marked as UTF-8', () => {
  /** `asRead`: without `nameEncoding`. The first name of GB18030 is also valid UTF-8, the second is not. */
  test.each<[NameEncoding, string[], string[], string[]]>([
    ['GB18030', ['c3a8', 'b9b7'], ['狗', '猫'], ['├¿', '╣╖']],
    ['SHIFT_JIS', ['944c', '8ca2'], ['犬', '猫'], ['îó', 'öL']],
    ['CP866', ['aaaee2', 'aff1e1'], ['кот', 'пёс'], ['¬«Γ', '»±ß']],
    ['WINDOWS_1252', ['636166e9', '6e61ef7665'], ['café', 'naïve'], ['cafΘ', 'na∩ve']],
    ['WINDOWS_1251', ['eaeef2', 'efb8f1'], ['кот', 'пёс'], ['∩╕±', 'Ωε≥']],
    ['BIG5', ['bfdf', 'aaaf'], ['狗', '貓'], ['¬»', '┐▀']],
    ['EUC_KR', ['b0b3', 'b0edbee7c0cc'], ['개', '고양이'], ['░│', '░φ╛τ└╠']],
    ['CP850', ['b66d65', '816265'], ['Âme', 'übe'], ['╢me', 'übe']],
  ])(
    '%s: one decision for the zip, shown in a warning, and `nameEncoding` reads them right',
    async (nameEncoding, names, right, asRead) => {
      await withImport(foldersOf(names), (imported) => {
        expect([...imported.summary().classes].sort()).toEqual([...asRead].sort());
        const message = messageOf(imported, 'NAMES_NOT_MARKED');
        expect(message).toMatch(
          /^4 names in the zip are not ASCII and not marked as UTF-8\. Read as CP437: .*, for example `nameEncoding: SHIFT_JIS`\.$/,
        );
        for (const name of asRead) expect(message).toContain(name);
      });
      await withImport(
        foldersOf(names),
        (imported) => {
          expect([...imported.summary().classes].sort()).toEqual([...right].sort());
          expect(imported.warnings).toEqual([]);
        },
        { nameEncoding },
      );
    },
  );

  test('UTF-8 without a mark is read as such, and shown', () =>
    withImport(foldersOf(['c3a9', 'e78cab']), (imported) => {
      expect(imported.summary().classes).toEqual(['é', '猫']);
      expect(messageOf(imported, 'NAMES_NOT_MARKED')).toContain('Read as UTF_8: é, 猫.');
    }));

  test('UTF-8 with a mark needs no word, and no argument changes it', () =>
    withImport(
      foldersOf(['c3a9', 'e78cab'], 0x800),
      ({ summary, warnings }) => {
        expect(summary().classes).toEqual(['é', '猫']);
        expect(warnings).toEqual([]);
      },
      { nameEncoding: 'SHIFT_JIS' },
    ));

  test('a name that is no text in `nameEncoding` is refused by name', () =>
    withImport(foldersOf(['c3a9', 'ff41']), (imported) => expect(said(imported)).toMatch(/not in the encoding of the zip/), {
      nameEncoding: 'UTF_8',
    }));

  test('a backslash in the second byte of a Japanese character separates no folders', () =>
    withImport(foldersOf(['955c', '944c']), ({ summary }) => expect(summary().classes).toEqual(['猫', '表']), {
      nameEncoding: 'SHIFT_JIS',
    }));
});

describe('what tools leave in folders', () => {
  const left = (under: string): Files => ({
    [`${under}.ipynb_checkpoints/0-checkpoint.png`]: images[0] as Buffer,
    [`${under}@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg`]: 'x',
    [`${under}__pycache__/a.pyc`]: 'x',
    '.git/HEAD': 'ref',
    '.git/objects/aa/bb': 'x',
    '.vscode/settings.json': '{}',
    '.venv/data.yaml': 'names: [x]',
  });

  test.each<[string, Files, Parameters<typeof withImport>[2]]>([
    ['class folders', { ...classes, ...left(''), ...left('0/') }, {}],
    [
      'class folders in splits',
      { ...classes, ...Object.fromEntries(Object.entries(classes).map(([name, data]) => [`train/${name}`, data])), ...left('train/') },
      {},
    ],
    ['YOLO', { ...yolo(), ...left('images/train/') }, { task: 'DETECTION' }],
    ['COCO', { ...coco(), ...left('images/') }, { task: 'DETECTION' }],
  ])('%s: they are no class and no images, and one warning names them', (form, zip, changes) =>
    withImport(
      form === 'class folders in splits' ? Object.fromEntries(Object.entries(zip).filter(([name]) => !/^[01]\//.test(name))) : zip,
      (imported) => {
        expect(said(imported)).toBe('');
        expect(imported.summary().classes).toHaveLength(2);
        expect(imported.summary().items).toBe(6);
        const message = messageOf(imported, 'FOLDERS_IGNORED');
        for (const name of ['.ipynb_checkpoints (1 file)', '@eaDir (1 file)', '.git (2 files)', '.vscode (1 file)', '.venv (1 file)'])
          expect(message).toContain(name);
        expect(imported.warnings.filter((code) => code === 'FOLDERS_IGNORED')).toHaveLength(1);
        expect(imported.warnings).not.toContain('IMAGES_NOT_LISTED');
      },
      changes,
    ),
  );

  test('ignored files are named, the first 10 of them', () =>
    withImport(
      {
        ...classes,
        '0/.DS_Store': 'x',
        'Thumbs.db': 'x',
        ...Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`notes${i}.txt`, 'x'])),
      },
      (imported) =>
        expect(messageOf(imported, 'FILES_IGNORED')).toBe(
          `14 files that are no images were ignored: ${Array.from({ length: 10 }, (_, i) => `notes${i}.txt`).join(', ')}, ….`,
        ),
    ));
});

describe('files that are no zips are called what they are', () => {
  const tar = Buffer.alloc(1024);
  tar.write('ustar', 257);
  test.each<[string, Buffer | string, RegExp]>([
    ['tar.gz', gzipSync(tar), /is a gzip archive \(\.tar\.gz\), not a zip\. Unpack it/],
    ['tar', tar, /is a tar archive, not a zip/],
    ['7z', Buffer.from('377abcaf271c0004', 'hex'), /is a 7z archive/],
    ['rar', Buffer.from('526172211a070100', 'hex'), /is a RAR archive/],
    ['a page for logging in', '<!DOCTYPE html><html>', /is a web page \(HTML\).*download the file itself/],
    ['a pointer of Git LFS', 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n', /pointer of Git LFS.*`git lfs pull`/],
    ['an image', images[0] as Buffer, /is an image, not a zip\. Put it into a zip/],
    ['nothing', '', /is empty, not a zip/],
    ['half a zip', rawZip([{ name: 'a', data: 'x' }]).subarray(0, 35), /is not a whole zip: .*Upload it again/],
  ])('%s', (_what, bytes, says) => withImport(Buffer.from(bytes), (imported) => expect(said(imported)).toMatch(says)));

  test.each([
    ['a pointer of Git LFS', 'version https://git-lfs.github.com/spec/v1\n', /0\/a\.png: is a pointer of Git LFS/],
    ['a page', '<html>', /0\/a\.png: is a web page/],
    ['a HEIC photograph', '\0\0\0\x18ftypheic', /0\/a\.png: is a HEIC image: convert it to PNG or JPEG/],
  ])('also in the place of an image: %s', (_what, bytes, says) =>
    withImport({ ...classes, '0/a.png': bytes }, (imported) => expect(said(imported)).toMatch(says)),
  );
});

describe('how programs write zips', () => {
  const entries = Object.entries(classes).map(([name, data]): RawEntry => ({ name, data, method: 8 }));

  test('PowerShell: backslashes between folders', () =>
    withImport(rawZip(entries.map(({ name, ...rest }) => ({ name: String(name).replaceAll('/', '\\'), ...rest }))), ({ summary }) =>
      expect(summary()).toMatchObject({ classes: ['0', '1'], items: 6 }),
    ));

  test.each([
    [9, /is compressed by Deflate64, which Windows Explorer uses for large files: .*7-Zip/],
    [14, /is compressed by LZMA/],
    [77, /is compressed by method 77/],
  ])('compression %d is called by its name', (method, says) =>
    withImport(rawZip([...entries, { name: '0/x.png', data: images[3] ?? '', method }]), (imported) =>
      expect(said(imported)).toMatch(says),
    ),
  );
});
