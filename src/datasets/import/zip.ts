import { closeSync, openSync, readSync } from 'node:fs';
import { crc32, inflateRawSync } from 'node:zlib';
import yauzl from 'yauzl';
import { ChildError } from '../../jobs/childio.ts';
import { type Problems, plural } from './problems.ts';

/** What a zip may hold. Sizes are checked as declared before anything is written; no file unpacks to more than it declares. */
export interface ZipLimits {
  /** Entries, folders included. */
  filesMax: number;
  extractedBytesMax: number;
}

/** Largest file: 25 megapixels of 16-bit RGBA have 200 MB, the annotations of COCO's training split (2017) 449 MB. */
const fileBytesMax = (name: string): number => (/\.json$/i.test(name) ? 512 : 256) * 2 ** 20;
/** Beyond these a zip is no collection of images: those hardly shrink in a zip. */
const ratioMax = 100;
const ratioFreeBytes = 256 * 2 ** 20;

const pathCharactersMax = 1000;
const nameBytesMax = 255;

export interface ZipEntry {
  /** Path in the zip, in Unicode's composed form. */
  name: string;
  sizeBytes: number;
  compressedBytes: number;
  compressed: boolean;
  crc32: number;
  /** Where its local header is. */
  relativeOffsetOfLocalHeader: number;
}

export interface Zip {
  files: ZipEntry[];
  /** Paths of the folders that have an entry of their own, without the last slash. */
  folders: string[];
  /** Files of operating systems, left out of `files`. */
  ignored: number;
  /** The content of a file; throws a DamagedEntry when it is not what the zip declares. */
  read(entry: ZipEntry): Promise<Buffer>;
  close(): void;
}

/** A file whose bytes are not what the zip says of them; the message is a reason. */
export class DamagedEntry extends Error {}

const junk = /(^|\/)(__MACOSX|\.DS_Store|Thumbs\.db|desktop\.ini|\._[^/]*)(\/|$)/i;

/**
 * Reads a zip's table of contents. Entries that could harm go to `problems`, and nothing should be read when there are any. Throws
 * DATA_INVALID for a file that is no whole zip and LIMIT_EXCEEDED for one that would unpack to too much. `seen` is called for each entry.
 */
export async function openZip(path: string, limits: ZipLimits, problems: Problems, seen: () => void): Promise<Zip> {
  // The names are decoded here: yauzl would turn backslashes into slashes and stop at the first bad name.
  // Sizes are checked here too: an entry that lies is named, and no reason to stop reading the others.
  const archive = await yauzl.openPromise(path, { decodeStrings: false, autoClose: false, validateEntrySizes: false }).catch(damagedZip);
  if (archive.entryCount > limits.filesMax) {
    archive.close();
    throw new ChildError(
      'LIMIT_EXCEEDED',
      `The zip has ${plural(archive.entryCount, 'entry', 'entries')}; ${limits.filesMax.toLocaleString('en-US')} are allowed.`,
    );
  }
  const fd = openSync(path, 'r');
  const zip: Zip = {
    files: [],
    folders: [],
    ignored: 0,
    read: (entry) => readFile(archive, fd, entry),
    close() {
      archive.close();
      closeSync(fd);
    },
  };
  try {
    await list(archive, fd, zip, problems, seen);
    checkSizes(zip.files, archive.fileSize, limits);
    return zip;
  } catch (error) {
    zip.close();
    throw error;
  }
}

/** yauzl's own errors are plain ones without a code. */
function damagedZip(error: unknown): never {
  if (!(error instanceof Error) || error.constructor !== Error || 'code' in error) throw error;
  throw new ChildError('DATA_INVALID', `The file is not a whole zip: ${error.message}`);
}

async function list(archive: yauzl.ZipFile, fd: number, zip: Zip, problems: Problems, seen: () => void): Promise<void> {
  const files = new Set<string>();
  const folders = new Set<string>();
  try {
    for await (const entry of archive.eachEntry()) {
      seen();
      const name = nameOf(entry);
      if (junk.test(name)) {
        zip.ignored += 1;
        continue;
      }
      const isFolder = name.endsWith('/');
      const key = name.replace(/\/$/, '').toLowerCase();
      const twice = files.has(key) || (!isFolder && folders.has(key)) ? 'is in the zip twice, or only the case of a letter differs' : null;
      (isFolder ? folders : files).add(key);
      const problem = nameProblem(name) ?? entryProblem(name, entry) ?? twice;
      if (problem) problems.add(name, problem);
      else if (isFolder) zip.folders.push(name.slice(0, -1));
      else {
        const { uncompressedSize, compressedSize, compressionMethod, crc32, relativeOffsetOfLocalHeader } = entry;
        zip.files.push({
          name,
          sizeBytes: uncompressedSize,
          compressedBytes: compressedSize,
          compressed: compressionMethod === 8,
          crc32,
          relativeOffsetOfLocalHeader,
        });
      }
    }
  } catch (error) {
    damagedZip(error);
  }
  // Some programs, macOS's Archive Utility among them, count entries only up to 65,535 and begin again: the rest would be lost.
  const next = Buffer.alloc(4);
  readSync(fd, next, 0, 4, archive.readEntryCursor as unknown as number);
  if (next.readUInt32LE() === 0x02014b50) {
    throw new ChildError(
      'DATA_INVALID',
      `The zip says that it has ${plural(archive.entryCount, 'file')}, but it has more. Make it again with \`zip -r\` or 7-Zip.`,
    );
  }
}

/** An entry's name. Without the flag that says UTF-8 it is often UTF-8 all the same; else it is IBM's code page 437. */
function nameOf({ generalPurposeBitFlag, fileNameRaw, extraFields }: yauzl.Entry): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(fileNameRaw).normalize('NFC');
  } catch {
    return yauzl.getFileNameLowLevel(generalPurposeBitFlag, fileNameRaw, extraFields, true).normalize('NFC');
  }
}

/** Why a path must not be made a file of, or null. */
export function nameProblem(name: string): string | null {
  if (/\p{Cc}/u.test(name)) return 'the name has a control character';
  if (name.includes('\\')) return 'the name has a backslash: names are separated by "/"';
  if (/^(\/|[A-Za-z]:)/.test(name)) return 'the path is absolute';
  const parts = name.replace(/\/$/, '').split('/');
  if (parts.includes('..')) return 'the path leads out of the zip';
  if (parts.includes('.') || parts.includes('')) return 'the path has an empty part';
  if (name.length > pathCharactersMax || parts.some((part) => Buffer.byteLength(part) > nameBytesMax)) {
    return `the name is longer than ${nameBytesMax} bytes, or the path than ${pathCharactersMax} characters`;
  }
  return null;
}

const fileTypes = { mask: 0o170000, unknown: 0, folder: 0o040000, regular: 0o100000 };

function entryProblem(
  name: string,
  { generalPurposeBitFlag, externalFileAttributes, compressionMethod, uncompressedSize, compressedSize }: yauzl.Entry,
): string | null {
  // The upper half is the Unix mode, whatever system the entry says that it was made on.
  const type = (externalFileAttributes >>> 16) & fileTypes.mask;
  if (type !== fileTypes.unknown && type !== fileTypes.folder && type !== fileTypes.regular) return 'is a link or a special file';
  if (generalPurposeBitFlag & 1) return 'is encrypted';
  if (compressionMethod !== 0 && compressionMethod !== 8) return `is compressed by method ${compressionMethod}: only deflate is read`;
  const bytesMax = fileBytesMax(name);
  if (uncompressedSize > bytesMax || compressedSize > bytesMax) return `is larger than ${bytesMax / 2 ** 20} MiB`;
  return null;
}

function checkSizes(files: ZipEntry[], zipBytes: number, { extractedBytesMax }: ZipLimits): void {
  const total = files.reduce((sum, file) => sum + file.sizeBytes, 0);
  const max = Math.min(extractedBytesMax, Math.max(ratioFreeBytes, zipBytes * ratioMax));
  if (total > max) {
    throw new ChildError(
      'LIMIT_EXCEEDED',
      `The zip would unpack to ${plural(total, 'byte')}; ${max.toLocaleString('en-US')} are allowed for it.`,
    );
  }
}

async function readFile(archive: yauzl.ZipFile, fd: number, entry: ZipEntry): Promise<Buffer> {
  const { relativeOffsetOfLocalHeader, compressedBytes, sizeBytes } = entry;
  const header = { relativeOffsetOfLocalHeader, compressedSize: compressedBytes } as yauzl.Entry;
  const { fileDataStart } = await archive.readLocalFileHeaderPromise(header, { minimal: true }).catch((error: Error) => {
    throw new DamagedEntry(`is damaged in the zip (${error.message})`);
  });
  const raw = Buffer.allocUnsafe(compressedBytes);
  for (let read = 0; read < raw.length; ) {
    const bytes = readSync(fd, raw, read, raw.length - read, fileDataStart + read);
    if (bytes === 0) throw new DamagedEntry('is cut off in the zip');
    read += bytes;
  }
  const data = entry.compressed ? inflate(raw, sizeBytes) : raw;
  if (data.length !== sizeBytes) throw new DamagedEntry(`has ${plural(data.length, 'byte')}, but the zip declares ${sizeBytes}`);
  if (crc32(data) !== entry.crc32) throw new DamagedEntry('is damaged in the zip (its checksum differs)');
  return data;
}

function inflate(raw: Buffer, sizeBytes: number): Buffer {
  try {
    return inflateRawSync(raw, { maxOutputLength: Math.max(1, sizeBytes) });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE')
      throw new DamagedEntry(`has more than the ${plural(sizeBytes, 'byte')} that the zip declares`);
    throw new DamagedEntry('is damaged in the zip (it does not unpack)');
  }
}
