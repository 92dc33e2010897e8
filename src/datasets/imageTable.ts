/**
 * Where the bytes of a dataset's images are. An image is read in place from the zip that was uploaded: so it is on the disk once. What not every
 * reader decodes alike was converted to PNG; these lie one after the other at the beginning of the file `images.bin`. Behind them stands a row of
 * 24 bytes for each image, in the order of n, and in the last 8 bytes the number of rows. All numbers are unsigned and little-endian:
 *
 *   | bytes | of a row                                                            |
 *   | 0–7   | where it begins in its file                                         |
 *   | 8–11  | bytes that it takes there                                           |
 *   | 12–15 | bytes of the image                                                  |
 *   | 16–19 | CRC-32 of the image                                                 |
 *   | 20–23 | 0: as it is in the zip; 1: deflated in the zip; 2: in this file     |
 *
 * The trainer reads it in `stored_images.py`.
 */
import { open } from 'node:fs/promises';
import { crc32, inflateRawSync } from 'node:zlib';

/** The paths of both files. */
export interface ImageFiles {
  zip: string;
  images: string;
}

export interface ImagePlace {
  offset: number;
  storedBytes: number;
  sizeBytes: number;
  crc32: number;
  where: 'ZIP_STORED' | 'ZIP_DEFLATED' | 'HERE';
}

const places = ['ZIP_STORED', 'ZIP_DEFLATED', 'HERE'] as const;
const rowBytes = 24;
const countBytes = 8;

/** The rows of images, for the end of the file. */
export function createImageTable(countMax: number): { set(n: number, place: ImagePlace): void; end(count: number): Buffer } {
  const rows = Buffer.alloc(rowBytes * countMax);
  return {
    set(n, { offset, storedBytes, sizeBytes, crc32, where }) {
      const at = n * rowBytes;
      rows.writeBigUInt64LE(BigInt(offset), at);
      for (const [i, value] of [storedBytes, sizeBytes, crc32, places.indexOf(where)].entries()) rows.writeUInt32LE(value, at + 8 + 4 * i);
    },
    end(count) {
      const last = Buffer.alloc(countBytes);
      last.writeBigUInt64LE(BigInt(count));
      return Buffer.concat([rows.subarray(0, rowBytes * count), last]);
    },
  };
}

/** The bytes of image `n`. Throws when they are not the ones that were imported. */
export async function readImage({ zip, images }: ImageFiles, n: number): Promise<Buffer> {
  const { offset, storedBytes, sizeBytes, where, crc32: wanted } = await readPlace(images, n);
  const raw = await readBytes(where === 'HERE' ? images : zip, offset, storedBytes);
  const data = where === 'ZIP_DEFLATED' ? inflateRawSync(raw, { maxOutputLength: Math.max(1, sizeBytes) }) : raw;
  if (data.length !== sizeBytes || crc32(data) !== wanted) throw new Error(`Image ${n} is damaged in ${where === 'HERE' ? images : zip}.`);
  return data;
}

async function readPlace(images: string, n: number): Promise<ImagePlace> {
  const file = await open(images);
  try {
    const { size } = await file.stat();
    const count = Number((await file.read(Buffer.alloc(countBytes), 0, countBytes, size - countBytes)).buffer.readBigUInt64LE());
    if (n >= count) throw new Error(`${images} has ${count} images, none with the number ${n}.`);
    const { buffer: row } = await file.read(Buffer.alloc(rowBytes), 0, rowBytes, size - countBytes - rowBytes * (count - n));
    return {
      offset: Number(row.readBigUInt64LE(0)),
      storedBytes: row.readUInt32LE(8),
      sizeBytes: row.readUInt32LE(12),
      crc32: row.readUInt32LE(16),
      where: places[row.readUInt32LE(20)] as ImagePlace['where'],
    };
  } finally {
    await file.close();
  }
}

async function readBytes(path: string, offset: number, bytes: number): Promise<Buffer> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, offset);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
