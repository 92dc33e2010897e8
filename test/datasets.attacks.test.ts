import { readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { digit, digitFolders, photo, type RawEntry, rawZip, zipOf } from './support/images.ts';
import { asChild, type Imported, withImport } from './support/imports.ts';
import { unprintables } from './support/unprintable.ts';

const good = await digitFolders([0, 1], 2);
const image = await digit(3, 0);

/** A zip of two good classes and these entries. */
const withEntries = (...entries: RawEntry[]): Buffer =>
  rawZip([...Object.entries(good).map(([name, data]) => ({ name, data, method: 8 })), ...entries]);

interface Attack {
  title: string;
  zip: () => Promise<Buffer> | Buffer;
  code?: 'DATA_INVALID' | 'LIMIT_EXCEEDED';
  /** Of the message and the details together. */
  says: RegExp;
  /** Tried on a real child too. */
  child?: true;
}

/** One colour, whole and valid: 16,475 pixels wide and high it has 814 MB. */
const megapixels = photo(1, 1).resize(16_475, 16_475, { kernel: 'nearest' }).png({ compressionLevel: 9 }).toBuffer();

function overwrite(bytes: Buffer, from: number, to: number): Buffer {
  bytes.subarray(from, to).fill(0xff);
  return bytes;
}

const attacks: Attack[] = [
  // Paths.
  ...['../../evil.png', '0/../../evil.png', '..'].map((name) => ({
    title: `a path that leads out of the zip: ${name}`,
    child: true as const,
    zip: () => withEntries({ name, data: image }),
    says: /leads out of the zip/,
  })),
  ...['/etc/evil.png', 'C:/evil.png', 'c:evil.png'].map((name) => ({
    title: `an absolute path: ${name}`,
    zip: () => withEntries({ name, data: image }),
    says: /is absolute/,
  })),
  { title: 'a backslash', zip: () => withEntries({ name: '0\\..\\..\\evil.png', data: image }), says: /leads out of the zip/ },
  { title: 'a NUL', zip: () => withEntries({ name: '0/a.png\0.txt', data: image }), says: /0\/a\.png\\u0000\.txt: the name has a control/ },
  { title: 'a line feed', zip: () => withEntries({ name: '0/a\n.png', data: image }), says: /control character/ },
  ...Object.entries(unprintables).map(([what, odd]) => ({
    title: `a class folder with ${what}`,
    zip: () => withEntries({ name: `cup${odd}x/a.png`, data: image }),
    says: /cup\\u[0-9a-f]{4}x.*: (the name has a control character|has control characters or direction marks)/,
  })),
  { title: 'an empty part', zip: () => withEntries({ name: '0//a.png', data: image }), says: /empty part/ },
  {
    title: 'a name of 300 characters',
    zip: () => withEntries({ name: `0/${'a'.repeat(300)}.png`, data: image }),
    says: /longer than 255 bytes/,
  },
  { title: 'a deep path', zip: () => withEntries({ name: `${'a/'.repeat(600)}a.png`, data: image }), says: /path than 1000 characters/ },

  // Kinds of entries.
  {
    title: 'a symbolic link',
    child: true,
    zip: () => withEntries({ name: '0/link.png', data: '/etc/passwd', mode: 0o120777 }),
    says: /0\/link\.png: is a link/,
  },
  { title: 'a device', zip: () => withEntries({ name: '0/zero.png', mode: 0o020666 }), says: /special file/ },
  { title: 'an encrypted entry', zip: () => withEntries({ name: '0/a.png', data: image, flags: 1 }), says: /is encrypted/ },
  { title: 'another compression', zip: () => withEntries({ name: '0/a.png', data: image, method: 9 }), says: /compressed by Deflate64/ },
  { title: 'a name twice', zip: () => withEntries({ name: '0/0.png', data: image }), says: /0\/0\.png: is in the zip twice/ },
  { title: 'a name twice but for the case', zip: () => withEntries({ name: '0/0.PNG', data: image }), says: /only the case of a letter/ },
  {
    title: 'a file where a folder is',
    zip: () => withEntries({ name: '5/', mode: 0o040755 }, { name: '5', data: image }),
    says: /in the zip twice/,
  },

  // Sizes.
  {
    title: 'a bomb of 4 GiB in one file',
    child: true,
    zip: () => withEntries({ name: '0/bomb.png', data: Buffer.alloc(64), method: 8, declaredSize: 4 * 2 ** 30 - 2 }),
    says: /larger than 256 MiB/,
  },
  {
    title: 'a bomb of 4 GiB in 21 files of 200 MiB that overlap',
    child: true,
    zip: () =>
      withEntries(
        ...Array.from({ length: 21 }, (_, i) => ({
          name: `0/bomb${i}.png`,
          data: Buffer.alloc(64),
          method: 8,
          declaredSize: 200 * 2 ** 20,
        })),
      ),
    code: 'LIMIT_EXCEEDED',
    says: /would unpack to 4,4\d\d,\d{3},\d{3} bytes/,
  },
  {
    title: 'a bomb that lies about its size',
    child: true,
    zip: () => withEntries({ name: '0/bomb.png', data: Buffer.alloc(100 * 2 ** 20), method: 8, declaredSize: 1000 }),
    says: /0\/bomb\.png: has more than the 1,000 bytes that the zip declares/,
  },
  {
    title: 'a size that is too large',
    zip: () => withEntries({ name: '0/a.png', data: image, method: 8, declaredSize: 9999 }),
    says: /the zip declares 9999/,
  },
  {
    title: 'a stored size that differs',
    zip: () => withEntries({ name: '0/a.png', data: image, declaredSize: 9999 }),
    says: /0\/a\.png: has 485 bytes, but the zip declares 9999/,
  },
  {
    title: 'a checksum that differs',
    zip: () => withEntries({ name: '0/a.png', data: image, declaredCrc: 1 }),
    says: /0\/a\.png: .*checksum differs/,
  },
  {
    title: 'more entries than a zip may have',
    child: true,
    zip: () => rawZip(Array.from({ length: 60_000 }, (_, i) => ({ name: `${i}` }))),
    code: 'LIMIT_EXCEEDED',
    says: /has 60,000 entries; 50,000 are allowed/,
  },
  {
    title: 'more entries than its end counts, as macOS writes it beyond 65,535',
    zip: () => rawZip([...Object.entries(good).map(([name, data]) => ({ name, data })), { name: '0/more.png', data: image }], 4),
    says: /says that it has 4 files, but it has more/,
  },

  // No zips.
  { title: 'a text', zip: () => Buffer.from('no zip'), says: /not a whole zip/ },
  { title: 'an empty file', zip: () => Buffer.alloc(0), says: /is empty, not a zip/ },
  { title: 'a zip that is cut off', child: true, zip: () => withEntries().subarray(0, -30), says: /not a whole zip/ },
  { title: 'a directory that is overwritten', zip: () => overwrite(withEntries(), -120, -30), says: /not a whole zip/ },
  {
    title: 'a local header that is overwritten',
    zip: () => overwrite(withEntries(), 0, 4),
    says: /0\/0\.png: is damaged in the zip/,
  },
  { title: 'data that is overwritten', zip: () => overwrite(withEntries(), 60, 90), says: /0\/0\.png: is damaged in the zip/ },

  // Images.
  {
    title: 'a text that is called .png',
    child: true,
    zip: () => zipOf({ ...good, '0/a.png': 'no image' }),
    says: /0\/a\.png: is not a JPEG, PNG, WebP, TIFF or BMP/,
  },
  { title: 'an empty image', zip: () => zipOf({ ...good, '0/a.png': '' }), says: /0\/a\.png: is empty/ },
  {
    title: 'a GIF',
    zip: async () => zipOf({ ...good, '0/a.png': await photo(9, 9).gif().toBuffer() }),
    says: /0\/a\.png: is a GIF: convert it/,
  },
  {
    title: 'a TIFF that is cut off',
    zip: async () => zipOf({ ...good, '0/a.tif': (await photo(9, 9).tiff().toBuffer()).subarray(0, 100) }),
    says: /0\/a\.tif: is a TIFF that is truncated/,
  },
  {
    title: 'an SVG that reads a file',
    zip: () => zipOf({ ...good, '0/a.png': '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>' }),
    says: /0\/a\.png: is an SVG/,
  },
  {
    title: 'a zip in the zip',
    child: true,
    zip: async () => zipOf({ ...good, '0/inner.zip': await zipOf(good) }),
    says: /0\/inner\.zip: is a zip/,
  },
  {
    title: 'a PNG of 1 MB that decodes to 814 MB',
    child: true,
    zip: async () => zipOf({ ...good, '0/a.png': await megapixels }),
    says: /0\/a\.png: has 16475 × 16475 pixels: more than 25 megapixels/,
  },
  ...(['jpeg', 'png', 'webp'] as const).map((format) => ({
    title: `a ${format} that is cut in the middle`,
    child: true as const,
    zip: async () => {
      const whole = await photo(300, 200).toFormat(format).toBuffer();
      return zipOf({ ...good, '0/a.jpg': whole.subarray(0, whole.length / 2) });
    },
    says: /0\/a\.jpg: is truncated or damaged/,
  })),
  {
    title: 'an animation',
    zip: async () => zipOf({ ...good, '0/a.webp': await photo(16, 16, 3).webp().toBuffer() }),
    says: /0\/a\.webp: is an animation of 3 frames/,
  },
];

const refused = ({ workDir, exitCode, error }: Imported, { code = 'DATA_INVALID', says }: Attack) => {
  expect(error).toMatchObject({ type: 'error', code, retryable: false });
  expect([error?.message, ...(error?.details ?? [])].join('\n')).toMatch(says);
  expect(exitCode).toBe(65);
  expect(readdirSync(workDir)).toEqual([]);
};

describe('an import refuses, and leaves nothing of,', () => {
  test.each(attacks)('$title', async (attack) => {
    await withImport(await attack.zip(), (imported) => refused(imported, attack), { limits: { filesMax: 50_000 } });
  });
});

describe('its child refuses, and leaves nothing of,', () => {
  test.each(attacks.filter(({ child }) => child))('$title', async (attack) => {
    await withImport(await attack.zip(), (imported) => refused(imported, attack), { run: asChild, limits: { filesMax: 50_000 } });
  });
});
