/**
 * Which file of a zip a path in its annotations means. The path may be one of another machine: files match by the longest tail that they have in
 * common with it.
 */
import { folderOf, type Split, splitFolderOf, splitOfYear } from './layout.ts';
import type { ZipEntry } from './zip.ts';

/** The folders and the name of a path, without what leads elsewhere: a drive, "..", a protocol. Those of splits by their usual names. */
function partsOf(path: string): string[] {
  return plainPath(path)
    .split('/')
    .map((part, i, all) => (i < all.length - 1 ? (splitOfYear(part) ?? part) : part));
}

/** A path as the names of a zip are written: with "/", in composed form, without what leads elsewhere. */
export function plainPath(path: string): string {
  return path
    .trim()
    .normalize('NFC')
    .replaceAll('\\', '/')
    .replace(/^(file|https?):\/\//i, '')
    .replace(/^[A-Za-z]:/, '')
    .split('/')
    .filter((part) => part !== '' && part !== '.' && part !== '..')
    .join('/');
}

export const withoutEnding = (path: string): string => path.replace(/\.[^./]*$/, '');

export interface Place {
  /** Of what names the file; null: not known. */
  split: Split | null;
  /** Folder of what names it: nearer files come first where several match alike. */
  near: string;
}

export interface FileIndex {
  /** The files that match best, none or one where it is clear. With `byStem` the endings of names do not count. */
  find(path: string, place: Place, options?: { byStem?: boolean }): ZipEntry[];
}

export function indexFiles(files: readonly ZipEntry[]): FileIndex {
  const byName = new Map<string, ZipEntry[]>();
  const byStem = new Map<string, ZipEntry[]>();
  const add = (map: Map<string, ZipEntry[]>, key: string, file: ZipEntry) => {
    const same = map.get(key);
    if (same) same.push(file);
    else map.set(key, [file]);
  };
  for (const file of files) {
    const name = file.name.slice(folderOf(file.name).length).replace(/^\//, '');
    add(byName, name, file);
    add(byStem, withoutEnding(name), file);
  }
  const find: FileIndex['find'] = (path, place, options = {}) => {
    const parts = partsOf(path);
    if (options.byStem) parts.push(withoutEnding(parts.pop() as string));
    const candidates = (options.byStem ? byStem : byName).get(parts.at(-1) as string) ?? [];
    const found = best(
      candidates.map((file) => ({ file, parts: partsOf(options.byStem ? withoutEnding(file.name) : file.name) })),
      parts,
      place,
    );
    const decoded = found.length === 0 ? decodedUrl(path) : null;
    return decoded ? find(decoded, place, options) : found;
  };
  return { find };
}

type Candidate = { file: ZipEntry; parts: string[] };

function best(candidates: Candidate[], parts: string[], { split, near }: Place): ZipEntry[] {
  const measured = candidates
    .map((candidate) => ({ ...candidate, tail: commonTail(candidate.parts, parts) }))
    // A folder of another split that the path does not name: the file is that split's.
    .filter(({ file, parts: own, tail }) => {
      const other = splitFolderOf(file.name);
      return split === null || other === undefined || other === split || own.slice(-tail, -1).some(splitOfYear);
    });
  const longest = mostOf(measured, ({ tail }) => tail);
  // Only where nothing else decides: the one that lies nearer.
  const nearest = longest.length > 1 ? mostOf(longest, ({ parts: own }) => commonHead(own, partsOf(`${near}/x`))) : longest;
  return nearest.map(({ file }) => file);
}

function mostOf<T>(all: T[], value: (one: T) => number): T[] {
  const most = Math.max(...all.map(value));
  return all.filter((one) => value(one) === most);
}

function commonTail(a: string[], b: string[]): number {
  let n = 0;
  while (n < Math.min(a.length, b.length) && a.at(-1 - n) === b.at(-1 - n)) n += 1;
  return n;
}

function commonHead(a: string[], b: string[]): number {
  let n = 0;
  while (n < Math.min(a.length, b.length) - 1 && a[n] === b[n]) n += 1;
  return n;
}

/** `a%20b.jpg` as `a b.jpg`; null when nothing is encoded. */
function decodedUrl(path: string): string | null {
  try {
    const decoded = decodeURIComponent(path);
    return decoded === path ? null : decoded;
  } catch {
    return null;
  }
}

/** The part of a path that `file` has in common with it, as written; the name alone at least. */
export function commonPath(written: string, file: ZipEntry): string {
  const path = commonTail(partsOf(file.name), partsOf(written)) > 0 ? written : (decodedUrl(written) ?? written);
  const plain = plainPath(path).split('/');
  return plain.slice(-Math.max(1, commonTail(partsOf(file.name), partsOf(path)))).join('/');
}
