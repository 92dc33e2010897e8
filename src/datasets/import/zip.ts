import { closeSync, openSync, readSync } from 'node:fs';
import { crc32, inflateRawSync } from 'node:zlib';
import yauzl from 'yauzl';
import { ChildError } from '../../jobs/childio.ts';
import type { NameEncoding } from '../../jobs/specs.ts';
import { headBytes, methodProblem, otherThanZip } from '../../vision/fileKinds.ts';
import type { ImagePlace } from '../imageTable.ts';
import { decodeNames, imageName, leftOutFor, nameProblem, type RawName } from './names.ts';
import { type Problems, plural, printable } from './problems.ts';

/** How a zip is read, and what it may hold. Sizes are checked as declared before anything is written; no file unpacks to more than it declares. */
export interface ZipOptions {
  /** Of names that are not marked as UTF-8; with null `decodeNames` chooses it. */
  nameEncoding: NameEncoding | null;
  /** Entries, folders included. */
  filesMax: number;
  /** Null: no limit but that of how far images shrink in a zip. */
  extractedBytesMax: number | null;
}

/** Largest file: 25 megapixels of 16-bit RGBA have 200 MB, the annotations of COCO's training split (2017) 449 MB. */
const fileBytesMax = (name: string): number => (/\.json$/i.test(name) ? 512 : 256) * 2 ** 20;
/** Beyond these a zip is no collection of images: those hardly shrink in a zip. */
const ratioMax = 100;
const ratioFreeBytes = 256 * 2 ** 20;

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
  /** Hidden files and those of operating systems, left out of `files`. */
  systemFiles: string[];
  /** Hidden folders and those of tools, with the number of their files, which are left out of `files`. */
  toolFolders: Map<string, number>;
  /** How names were read, and those that could be read otherwise. */
  encoding: NameEncoding;
  unmarked: string[];
  /** The content of a file; throws a DamagedEntry when it is not what the zip declares. */
  read(entry: ZipEntry): Promise<Buffer>;
  /** Where the content is. */
  locate(entry: ZipEntry): Promise<ImagePlace>;
  close(): void;
}

/** A file whose bytes are not what the zip says of them; the message is a reason. */
export class DamagedEntry extends Error {}

/**
 * Reads a zip's table of contents. Entries that could harm go to `problems`, and nothing should be read when there are any. Throws
 * DATA_INVALID for a file that is no whole zip and LIMIT_EXCEEDED for one that would unpack to too much. `seen` is called for each entry.
 */
export async function openZip(path: string, limits: ZipOptions, problems: Problems, seen: () => void): Promise<Zip> {
  // The names are decoded here: yauzl would turn backslashes into slashes and stop at the first bad name.
  // Sizes are checked here too: an entry that lies is named, and no reason to stop reading the others.
  const archive = await yauzl
    .openPromise(path, { decodeStrings: false, autoClose: false, validateEntrySizes: false })
    .catch((error: unknown) => damagedZip(error, path));
  if (archive.entryCount > limits.filesMax) {
    archive.close();
    throw new ChildError(
      'LIMIT_EXCEEDED',
      `The zip has ${plural(archive.entryCount, 'entry', 'entries')}; ${limits.filesMax.toLocaleString('en-US')} are allowed. An administrator can allow more with WHETSTONE_IMPORT_FILES_MAX.`,
    );
  }
  const fd = openSync(path, 'r');
  const zip: Zip = {
    files: [],
    folders: [],
    systemFiles: [],
    toolFolders: new Map(),
    encoding: 'UTF_8',
    unmarked: [],
    read: (entry) => readFile(archive, fd, entry),
    async locate(entry) {
      const { compressedBytes: storedBytes, sizeBytes, crc32, compressed } = entry;
      const where = compressed ? 'ZIP_DEFLATED' : 'ZIP_STORED';
      return { offset: await dataStart(archive, entry), storedBytes, sizeBytes, crc32, where };
    },
    close() {
      archive.close();
      closeSync(fd);
    },
  };
  try {
    await list(archive, fd, zip, limits, problems, seen);
    checkSizes(zip.files, archive.fileSize, limits);
    return zip;
  } catch (error) {
    zip.close();
    throw error;
  }
}

/** yauzl's own errors are plain ones without a code. */
function damagedZip(error: unknown, path?: string): never {
  if (!(error instanceof Error) || error.constructor !== Error || 'code' in error) throw error;
  const other = path === undefined ? null : otherThanZip(firstBytes(path));
  throw new ChildError(
    'DATA_INVALID',
    other ?? `The file is not a whole zip: ${error.message}. Upload it again, or make it again with \`zip -r\` or 7-Zip.`,
  );
}

function firstBytes(path: string): Buffer {
  const fd = openSync(path, 'r');
  const head = Buffer.alloc(headBytes);
  try {
    return head.subarray(0, readSync(fd, head, 0, headBytes, 0));
  } finally {
    closeSync(fd);
  }
}

type RawEntry = RawName &
  Pick<
    yauzl.Entry,
    'externalFileAttributes' | 'compressionMethod' | 'uncompressedSize' | 'compressedSize' | 'crc32' | 'relativeOffsetOfLocalHeader'
  >;

async function list(
  archive: yauzl.ZipFile,
  fd: number,
  zip: Zip,
  options: ZipOptions,
  problems: Problems,
  seen: () => void,
): Promise<void> {
  const entries: RawEntry[] = [];
  try {
    for await (const entry of archive.eachEntry()) {
      seen();
      entries.push(entry);
    }
  } catch (error) {
    damagedZip(error);
  }
  checkCount(archive, fd);
  const { names, encoding, unmarked } = decodeNames(entries, options.nameEncoding);
  zip.encoding = encoding;
  zip.unmarked = unmarked.filter((name) => leftOutFor(name) === null);
  const files = new Set<string>();
  const folders = new Set<string>();
  for (const [i, entry] of entries.entries()) {
    const name = names[i] as string;
    const isFolder = name.endsWith('/');
    const leftOut = leftOutFor(name);
    if (leftOut) {
      if ('file' in leftOut) zip.systemFiles.push(name);
      else zip.toolFolders.set(leftOut.folder, (zip.toolFolders.get(leftOut.folder) ?? 0) + (isFolder ? 0 : 1));
      continue;
    }
    const key = name.replace(/\/$/, '').toLowerCase();
    const twice = files.has(key) || (!isFolder && folders.has(key)) ? 'is in the zip twice, or only the case of a letter differs' : null;
    (isFolder ? folders : files).add(key);
    // Of an image's own name: it can be left out for it. Elsewhere others may depend on the name.
    const visible = imageName.test(name) ? name.replace(/\p{Cc}(?=[^/]*$)/gu, '') : name;
    const problem = nameProblem(visible) ?? entryProblem(name, entry) ?? twice;
    if (problem) problems.add(name, problem);
    else if (visible !== name) problems.add(printable(name), 'the name has a control character: rename the file', printable(name));
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
}

function checkCount(archive: yauzl.ZipFile, fd: number): void {
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

const fileTypes = { mask: 0o170000, unknown: 0, folder: 0o040000, regular: 0o100000 };

function entryProblem(
  name: string,
  { generalPurposeBitFlag, externalFileAttributes, compressionMethod, uncompressedSize, compressedSize }: RawEntry,
): string | null {
  // The upper half is the Unix mode, whatever system the entry says that it was made on.
  const type = (externalFileAttributes >>> 16) & fileTypes.mask;
  if (type !== fileTypes.unknown && type !== fileTypes.folder && type !== fileTypes.regular) return 'is a link or a special file';
  if (generalPurposeBitFlag & 1) return 'is encrypted';
  if (compressionMethod !== 0 && compressionMethod !== 8) return methodProblem(compressionMethod);
  const bytesMax = fileBytesMax(name);
  if (uncompressedSize > bytesMax || compressedSize > bytesMax) return `is larger than ${bytesMax / 2 ** 20} MiB`;
  return null;
}

function checkSizes(files: ZipEntry[], zipBytes: number, { extractedBytesMax }: ZipOptions): void {
  const total = files.reduce((sum, file) => sum + file.sizeBytes, 0);
  const max = Math.min(extractedBytesMax ?? Number.POSITIVE_INFINITY, Math.max(ratioFreeBytes, zipBytes * ratioMax));
  if (total > max) {
    const hint = max === extractedBytesMax ? ' An administrator can allow more with WHETSTONE_IMPORT_BYTES_MAX.' : '';
    throw new ChildError(
      'LIMIT_EXCEEDED',
      `The zip would unpack to ${plural(total, 'byte')}; ${max.toLocaleString('en-US')} are allowed for it.${hint}`,
    );
  }
}

async function dataStart(archive: yauzl.ZipFile, { relativeOffsetOfLocalHeader, compressedBytes }: ZipEntry): Promise<number> {
  const header = { relativeOffsetOfLocalHeader, compressedSize: compressedBytes } as yauzl.Entry;
  const { fileDataStart } = await archive.readLocalFileHeaderPromise(header, { minimal: true }).catch((error: Error) => {
    throw new DamagedEntry(`is damaged in the zip (${error.message})`);
  });
  return fileDataStart;
}

async function readFile(archive: yauzl.ZipFile, fd: number, entry: ZipEntry): Promise<Buffer> {
  const { compressedBytes, sizeBytes } = entry;
  const fileDataStart = await dataStart(archive, entry);
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
