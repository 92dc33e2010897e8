import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { crc32, deflateRawSync } from 'node:zlib';
import sharp, { type Sharp } from 'sharp';

const side = 28;
const require = createRequire(import.meta.url);
const digits = new Map<number, number[]>();

/** One of MNIST's real digits as PNG, 28 × 28 grey: `index` is 0 to about 1,000. */
export async function digit(label: number, index: number): Promise<Buffer> {
  const data = digits.get(label) ?? (JSON.parse(readFileSync(require.resolve(`mnist/src/digits/${label}.json`), 'utf8')).data as number[]);
  digits.set(label, data);
  const pixels = data.slice(index * side ** 2, (index + 1) * side ** 2).map((level) => Math.round(level * 255));
  return sharp(Buffer.from(pixels), { raw: { width: side, height: side, channels: 1 } })
    .png()
    .toBuffer();
}

/** Names and contents. A name that ends in a slash is a folder. */
export type Files = Record<string, Buffer | string>;

/** `count` images of each of these digits, in a folder each: `<under><digit>/<n>.png`, from image `first` of MNIST on. */
export async function digitFolders(labels: number[], count: number, { under = '', first = 0 } = {}): Promise<Files> {
  const files: Files = {};
  for (const label of labels) {
    for (let n = first; n < first + count; n += 1) files[`${under}${label}/${n}.png`] = await digit(label, n);
  }
  return files;
}

/** A zip of these, deflated or stored. */
export function zipOf(files: Files, { compress = true } = {}): Buffer {
  const isFolder = (name: string) => name.endsWith('/');
  return rawZip(
    Object.entries(files).map(([name, data]) => ({
      name,
      data,
      method: compress && !isFolder(name) ? 8 : 0,
      mode: isFolder(name) ? 0o040755 : 0o100644,
    })),
  );
}

export async function writeZip(path: string, files: Files, options?: { compress?: boolean }): Promise<string> {
  await writeFile(path, zipOf(files, options));
  return path;
}

/** An entry, also as no honest program writes it. */
export interface RawEntry {
  name: string | Buffer;
  data?: Buffer | string;
  /** Compression method: 8 deflates, 0 stores, another one stores and says so. */
  method?: number;
  /** General purpose bits: 1 is encrypted, 0x800 says that the name is UTF-8. */
  flags?: number;
  /** Unix mode with its type, such as 0o120777 for a symbolic link. */
  mode?: number;
  /** What it says that its size, and its checksum, is. */
  declaredSize?: number;
  declaredCrc?: number;
}

/** A zip with any headers. `count` is what its end says that it holds. */
export function rawZip(entries: RawEntry[], count = entries.length): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, data = '', method = 0, flags = 0, mode = 0o100644, declaredSize, declaredCrc } of entries) {
    const nameBytes = Buffer.from(name);
    const content = Buffer.from(data);
    const packed = method === 8 ? deflateRawSync(content, { level: 9 }) : content;
    // Version, flags, method, time, date, checksum, sizes, lengths: the same in both headers.
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(flags, 2);
    common.writeUInt16LE(method, 4);
    common.writeUInt32LE(declaredCrc ?? crc32(content), 10);
    common.writeUInt32LE(packed.length, 14);
    common.writeUInt32LE(declaredSize ?? content.length, 18);
    common.writeUInt16LE(nameBytes.length, 22);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(mode * 2 ** 16, 6);
    rest.writeUInt32LE(offset, 10);
    directory.push(Buffer.from('PK\x01\x02\x14\x03', 'latin1'), common, rest, nameBytes);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, nameBytes, packed]);
    parts.push(local);
    offset += local.length;
  }
  const listed = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(count % 2 ** 16, 8);
  end.writeUInt16LE(count % 2 ** 16, 10);
  end.writeUInt32LE(listed.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, listed, end]);
}

/** Noise on a gradient, as large as this; `frames` one below the other make an animation where the format has them. */
export function photo(width: number, height: number, frames = 1): Sharp {
  const pixels = Buffer.alloc(width * height * frames * 3);
  for (let i = 0; i < pixels.length; i += 1) pixels[i] = ((i * 255) / pixels.length + ((i * 2654435761) >>> 26)) & 255;
  return sharp(pixels, { raw: { width, height: height * frames, channels: 3, ...(frames > 1 ? { pageHeight: height } : {}) } });
}
