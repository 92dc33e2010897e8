import { beforeAll, describe, expect, test } from 'vitest';
import type { ImportedItem } from '../src/datasets/import/outputs.ts';
import { type Files, photo, zipOf } from './support/images.ts';
import { withImport } from './support/imports.ts';
import { byHost, byTrainer, type Decoded, oddImages } from './support/oddImages.ts';

interface Readings {
  item: ImportedItem;
  host: Decoded;
  /** Of the file that the dataset keeps. */
  hostOfStored: Decoded;
  trainer: Decoded;
}

let images: Map<string, Buffer>;
/** By name, of those that were accepted. */
const accepted = new Map<string, Readings>();
/** Why the others were not, by name. */
let refused: Map<string, string>;

beforeAll(async () => {
  images = await oddImages();
  const zip: Files = {};
  for (const [i, [name, bytes]] of [...images].entries()) zip[`${i % 2}/${name}`] = bytes;
  await withImport(
    zipOf(zip),
    async ({ items, image, zip, workDir, error, summary }) => {
      expect(error).toBeUndefined();
      const trainer = byTrainer(zip, workDir);
      for (const item of items()) {
        const name = item.path.slice(2);
        const stored = await image(item);
        accepted.set(name, {
          item,
          host: await byHost(images.get(name) as Buffer),
          hostOfStored: await byHost(stored),
          trainer: trainer.get(item.path) ?? 'not read',
        });
      }
      refused = new Map(summary().leftOut.map(({ file, reason }) => [file.slice(2), reason]));
    },
    { onProblem: 'LEAVE_OUT', leftOutShareMax: 1 },
  );
}, 300_000);

test('an image whose side `predict` would refuse is refused by the import too', async () =>
  withImport(
    {
      'a/0.png': await photo(30_001, 1).png().toBuffer(),
      'a/1.png': await photo(30_000, 1).png().toBuffer(),
      'b/0.png': await photo(9, 9).png().toBuffer(),
    },
    ({ error }) => expect(error?.details).toEqual(['a/0.png: has 30001 × 1 pixels: a side can have 30,000']),
  ));

describe('about 440 odd files', () => {
  test('each is accepted or left out with a reason', () => {
    expect(images.size).toBeGreaterThan(400);
    expect(accepted.size + refused.size).toBe(images.size);
    expect(accepted.size).toBeGreaterThan(250);
  });

  test('what is accepted, the manifest, the host and the trainer see alike', () => {
    const different = [...accepted].flatMap(([name, { item, host, hostOfStored, trainer }]) => {
      const size = `${item.width} × ${item.height} `;
      return host.startsWith(size) && hostOfStored === host && trainer === host ? [] : [{ name, size, host, hostOfStored, trainer }];
    });
    expect(different).toEqual([]);
  });

  test.each([
    ...['bmp-1', 'bmp-4', 'bmp-L', 'bmp-P', 'bmp-RGB', 'bmp-RGBA', 'bmp-32', 'bmp-16', 'bmp-16-masks', 'bmp-top-down'],
    ...['tiff-1', 'tiff-L', 'tiff-P', 'tiff-RGB', 'tiff-RGBA', 'tiff-I16', 'tiff-I16B', 'tiff-CMYK', 'tiff-big', 'tiff-tiff_lzw'],
    ...['jpeg-cmyk', 'jpeg-ycck', 'jpeg-grey', 'jpeg-mpo', 'jpeg-trailing', 'png-1', 'png-LA', 'png-PA', 'png-rgba-16', 'png-animated'],
    ...['png-no-end', 'png-behind-cut', 'png-text-bomb', 'webp-rgba-True-True', 'webp-exif-bare-6'],
  ])('%s is read', (name) => expect(accepted.has(name)).toBe(true));

  test.each([
    ['other-GIF', 'is a GIF: convert it to PNG or JPEG'],
    ['other-AVIF', 'is an AVIF image: convert it to PNG or JPEG'],
    ['tiff-pages', 'has 2 pages: one is needed'],
    ['tiff-F', 'has samples of the type float: 8 or 16 bits are needed'],
    ['tiff-YCbCr', 'has colours that are not read (YCbCr or Lab): convert it to PNG'],
    ['tiff-cut-5', 'is a TIFF that is truncated or damaged'],
    ['bmp-run-length', 'is a BMP with run-length coding: convert it to PNG'],
    ['bmp-cut', 'is truncated or damaged'],
    ['webp-animated', 'is an animation of 2 frames: a still image is needed'],
    ['jpeg-cut-9', 'is truncated or damaged'],
    ['png-too-few-pixels', 'is truncated or damaged'],
  ])('%s is left out: it %s', (name, reason) => expect(refused.get(name)).toBe(reason));

  /** Formats without loss have the same pixels. */
  test.each([
    [
      'png-RGB',
      [
        'png-gamma',
        'png-srgb',
        'png-text-bomb',
        'png-no-end',
        'webp-rgb-True-True',
        'bmp-RGB',
        'bmp-32',
        'bmp-top-down',
        'tiff-RGB',
        'tiff-big',
      ],
    ],
    ['png-RGB', ['png-RGBA', 'webp-rgba-True-True', 'bmp-RGBA', 'tiff-RGBA', 'png-rgb-8-transparent', 'tiff-tiff_lzw', 'tiff-packbits']],
    ['png-L', ['bmp-L', 'tiff-L', 'png-LA', 'tiff-LA', 'png-grey-8', 'png-I16', 'tiff-I16', 'tiff-I16B', 'png-grey-16', 'tiff-white-is-0']],
    ['png-1', ['bmp-1', 'tiff-1', 'tiff-group4']],
  ])('%s has the pixels of %j', (name, same) => {
    for (const other of same) expect([other, accepted.get(other)?.trainer]).toEqual([other, accepted.get(name)?.trainer]);
  });

  /** In XMP and in text chunks an orientation does not count. */
  test.each([
    ...[1, 2, 3, 4, 5, 6, 7, 8].map((n) => [`png-exif-${n}`, `webp-exif-${n}`] as const),
    ...[1, 2, 3, 4, 5, 6, 7, 8].map((n) => [`png-exif-${n}`, `tiff-orientation-${n}`] as const),
    ...[2, 6, 8].flatMap((n) =>
      [`png-xmp-${n}`, `png-raw-profile-${n}`, `png-raw-profile-text-${n}`].map((name) => ['png-RGB', name] as const),
    ),
    ...[2, 6, 8].map((n) => ['webp-rgb-True-True', `webp-xmp-${n}`] as const),
  ])('%s and %s are turned alike', (one, other) => expect(accepted.get(other)?.host).toBe(accepted.get(one)?.host));
});
