/**
 * Which file of a zip a path in its annotations means. The path may be one of another machine: files match by the longest tail that they have in
 * common with it.
 */
import { type Split, splitFolderOf, splitOfYear } from './layout.ts';
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

/** Files whose paths end alike, and these by the folder before that end: made when it is asked for. */
interface Node {
  files: Candidate[];
  children: Map<string, Node> | null;
}
interface Candidate {
  file: ZipEntry;
  parts: string[];
}

export function indexFiles(files: readonly ZipEntry[]): FileIndex {
  const nodes = new Map<string, Node>();
  const find: FileIndex['find'] = (path, place, options = {}) => {
    // Windows and macOS make no difference between capitals and small letters. As it is written comes first.
    for (const anyCase of [false, true]) {
      const key = (name: string) => {
        const stem = options.byStem ? withoutEnding(name) : name;
        return partsOf(anyCase ? stem.toLowerCase() : stem);
      };
      const kind = `${anyCase} ${options.byStem}`;
      const node = nodes.get(kind) ?? { files: files.map((file) => ({ file, parts: key(file.name) })), children: null };
      nodes.set(kind, node);
      const found = best(node, key(path), place);
      if (found.length > 0) return found;
    }
    const decoded = decodedUrl(path);
    return decoded ? find(decoded, place, options) : [];
  };
  return { find };
}

/** Of the files of `node`, whose last `depth` parts are alike, those that have this part before them. */
function childOf(node: Node, depth: number, part: string | undefined): Node | undefined {
  if (!node.children) {
    node.children = new Map();
    for (const candidate of node.files) {
      const own = candidate.parts.at(-1 - depth);
      if (own === undefined) continue;
      const same = node.children.get(own);
      if (same) same.files.push(candidate);
      else node.children.set(own, { files: [candidate], children: null });
    }
  }
  return part === undefined ? undefined : node.children.get(part);
}

function best(root: Node, parts: string[], { split, near }: Place): ZipEntry[] {
  const nodes: Node[] = [];
  for (let node: Node | undefined = root; node; node = childOf(node, nodes.length - 1, parts.at(-nodes.length))) nodes.push(node);
  for (let tail = nodes.length - 1; tail > 0; tail -= 1) {
    const found = (nodes[tail] as Node).files.filter(({ file, parts: own }) => {
      const other = splitFolderOf(file.name);
      // In the folder of another split, and the path does not name that folder: the file is that split's.
      return split === null || other === undefined || other === split || own.slice(-tail, -1).some(splitOfYear);
    });
    // Only where nothing else decides: the one that lies nearer.
    const nearest = found.length > 1 ? mostOf(found, ({ parts: own }) => commonHead(own, partsOf(`${near}/x`))) : found;
    if (nearest.length > 0) return nearest.map(({ file }) => file);
  }
  return [];
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

/** A path without the folders that only say its split. */
export const insideOf = (path: string, split: Split | null): string =>
  path
    .split('/')
    .filter((part, i, all) => i === all.length - 1 || split === null || splitOfYear(part) !== split)
    .join('/');
