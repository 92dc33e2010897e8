import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { crc32 } from 'node:zlib';
import { ApiError } from '../errors.ts';
import { attachment } from './files.ts';

/** A file of a zip; its content is read twice, for its checksum and for itself, and is the same both times. */
export interface ZipFile {
  name: string;
  content: () => AsyncIterable<Buffer> | Iterable<Buffer>;
}

export const textFile = (name: string, content: string): ZipFile => ({ name, content: () => [Buffer.from(content)] });

/** Downloads at a time: each reads the disk as fast as its client takes it. */
const downloadsMax = 4;
let downloads = 0;

/** Answers with a zip that is made while it is sent: neither the memory nor the disk of the server holds it. `open` prepares its files. */
export async function sendZip(
  req: IncomingMessage,
  res: ServerResponse,
  fileName: string,
  open: () => Promise<AsyncIterable<ZipFile> | Iterable<ZipFile>>,
): Promise<void> {
  if (downloads >= downloadsMax)
    throw new ApiError('UNAVAILABLE', `${downloadsMax} zips are being downloaded already. Try again in a moment.`, 5000);
  downloads += 1;
  try {
    const files = await open();
    res.setHeader('Content-Type', 'application/zip');
    res.setHeader('Content-Disposition', attachment(fileName));
    res.setHeader('Cache-Control', 'private, no-store');
    if (req.method === 'HEAD') {
      res.end();
      return;
    }
    await pipeline(Readable.from(writeZip(files), { objectMode: false }), res).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
    });
  } finally {
    downloads -= 1;
  }
}

const max16 = 0xffff;
const max32 = 0xffff_ffff;
/** 1 January 1980, the first day that a zip knows: the same files are the same bytes, whenever and wherever they are zipped. */
const date = 0x21;
const version = 45;
const utf8Names = 0x800;
/** Directory records that are put together: as a buffer each they would take five times their size. */
const recordsTogether = 1000;

/**
 * A zip (APPNOTE 6.3, with the 64-bit records where they are needed) as it grows: files are stored as they are, since images and
 * weights do not shrink, one after the other, each under 4 GiB. Of what was written only the directory stays in memory, about 100 bytes for each file.
 */
export async function* writeZip(files: AsyncIterable<ZipFile> | Iterable<ZipFile>): AsyncGenerator<Buffer, undefined> {
  const directory: Buffer[] = [];
  let records: Buffer[] = [];
  let count = 0;
  let offset = 0;
  for await (const { name, content } of files) {
    let crc = 0;
    let size = 0;
    for await (const chunk of content()) {
      crc = crc32(chunk, crc);
      size += chunk.length;
    }
    const nameBytes = Buffer.from(name);
    // Of both headers: version, flags, method (stored), time, date, checksum, size twice, length of the name.
    const common = Buffer.alloc(24);
    common.writeUInt16LE(version, 0);
    common.writeUInt16LE(utf8Names, 2);
    common.writeUInt16LE(date, 8);
    common.writeUInt32LE(crc, 10);
    common.writeUInt32LE(size, 14);
    common.writeUInt32LE(size, 18);
    common.writeUInt16LE(nameBytes.length, 22);
    yield Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, Buffer.alloc(2), nameBytes]);
    yield* content();

    const far = offset >= max32 ? Buffer.alloc(12) : Buffer.alloc(0);
    if (far.length > 0) {
      far.writeUInt16LE(1, 0);
      far.writeUInt16LE(8, 2);
      far.writeBigUInt64LE(BigInt(offset), 4);
    }
    const rest = Buffer.alloc(16);
    rest.writeUInt16LE(far.length, 0);
    rest.writeUInt32LE(0o100644 * 2 ** 16, 8);
    rest.writeUInt32LE(Math.min(offset, max32), 12);
    // Made on Unix, by the same version of the format.
    records.push(Buffer.concat([Buffer.from('PK\x01\x02', 'latin1'), Buffer.from([version, 3]), common, rest, nameBytes, far]));
    if (records.length === recordsTogether) {
      directory.push(Buffer.concat(records));
      records = [];
    }
    count += 1;
    offset += 30 + nameBytes.length + size;
  }
  directory.push(Buffer.concat(records));
  yield* directory;
  yield endOf(
    count,
    offset,
    directory.reduce((sum, { length }) => sum + length, 0),
  );
}

function endOf(count: number, offset: number, directoryBytes: number): Buffer {
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(Math.min(count, max16), 8);
  end.writeUInt16LE(Math.min(count, max16), 10);
  end.writeUInt32LE(Math.min(directoryBytes, max32), 12);
  end.writeUInt32LE(Math.min(offset, max32), 16);
  if (count < max16 && offset < max32) return end;

  const record = Buffer.alloc(56);
  record.write('PK\x06\x06', 'latin1');
  record.writeBigUInt64LE(44n, 4);
  record.writeUInt16LE(version, 12);
  record.writeUInt16LE(version, 14);
  record.writeBigUInt64LE(BigInt(count), 24);
  record.writeBigUInt64LE(BigInt(count), 32);
  record.writeBigUInt64LE(BigInt(directoryBytes), 40);
  record.writeBigUInt64LE(BigInt(offset), 48);
  const locator = Buffer.alloc(20);
  locator.write('PK\x06\x07', 'latin1');
  locator.writeBigUInt64LE(BigInt(offset + directoryBytes), 8);
  locator.writeUInt32LE(1, 16);
  return Buffer.concat([record, locator, end]);
}
