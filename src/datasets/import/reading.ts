/** What every form of a dataset is read with. */
import { ChildError } from '../../jobs/childio.ts';
import { folderOf, type ImportChild, type Split, splitFolderOf } from './layout.ts';
import type { FileIndex } from './paths.ts';
import { type Problems, plural, printable, someOf } from './problems.ts';
import { rootNameOf } from './xml.ts';
import { DamagedEntry, type Zip, type ZipEntry } from './zip.ts';

/** What a form of a dataset needs of its zip. */
export type Contents = Pick<Zip, 'files' | 'folders' | 'read'>;

export interface FormReading {
  zip: Contents;
  problems: Problems;
  warn: ImportChild['warn'];
  /** Throws LIMIT_EXCEEDED when it was given too many boxes in all. */
  countBoxes(boxes: number): void;
}

/** A file of annotations; null, and a problem, when it is damaged. */
export async function readBytes({ zip, problems }: FormReading, file: ZipEntry, image?: string): Promise<Buffer | null> {
  try {
    return await zip.read(file);
  } catch (error) {
    if (!(error instanceof DamagedEntry)) throw error;
    problems.add(file.name, error.message, image);
    return null;
  }
}

/** The same as text, without a byte order mark; empty, and a problem, when it is larger than `bytesMax` or not UTF-8. */
export async function readText(reading: FormReading, file: ZipEntry, bytesMax: number, image?: string): Promise<string> {
  if (file.sizeBytes > bytesMax) {
    reading.problems.add(file.name, `is larger than ${bytesMax / 2 ** 10} KiB`, image);
    return '';
  }
  const bytes = await readBytes(reading, file, image);
  try {
    return bytes ? new TextDecoder('utf-8', { fatal: true }).decode(bytes) : '';
  } catch {
    reading.problems.add(file.name, 'is not a text in UTF-8: save it in this encoding', image);
    return '';
  }
}

export const isXml = ({ name }: ZipEntry): boolean => /\.xml$/i.test(name);

/** By XML file, the name of its root element: empty where there is no element, null where the file is damaged. */
export type XmlRoots = ReadonlyMap<ZipEntry, string | null>;

/** Looks at all XML files: the first ones do not tell whether a later one has another form. */
export async function readXmlRoots({ zip }: FormReading): Promise<XmlRoots> {
  const roots = new Map<ZipEntry, string | null>();
  for (const file of zip.files.filter(isXml)) {
    const bytes = await zip.read(file).catch(() => null);
    // Without the zeros of UTF-16, which is refused by name when the file is read.
    roots.set(file, bytes && rootNameOf(bytes.toString('utf8', 0, 2 ** 16).replaceAll('\0', '')));
  }
  return roots;
}

/** The files of a form: those with its root, and damaged ones, which become problems when they are read. */
export const xmlFilesOf = (roots: XmlRoots, root: string): ZipEntry[] =>
  [...roots].flatMap(([file, name]) => (name === root || name === null ? [file] : []));

/**
 * Call it after the files with the root `expected` are read. An XML file with another root may be the labels of images: it is a problem if
 * its name is that of an image that is not in `used`, or `annotations.xml`. Adds such images to `used`; returns the names of the other files.
 */
export function checkOtherXml(
  { problems }: FormReading,
  roots: XmlRoots,
  expected: string,
  index: FileIndex,
  used: Set<ZipEntry>,
): string[] {
  const unrelated: string[] = [];
  for (const [xml, root] of roots) {
    if (root === null || root === expected) continue;
    const found = root ? `its root element is <${printable(root)}>` : xml.sizeBytes === 0 ? 'is empty' : 'has no XML element';
    const reason = `${found}, but <${expected}> is expected`;
    const place = { split: splitFolderOf(xml.name) ?? null, near: folderOf(xml.name) };
    const images = index.find(xml.name, place, { byStem: true });
    const open = images.filter((image) => !used.has(image));
    for (const image of open) {
      problems.add(xml.name, reason, image.name);
      used.add(image);
    }
    if (open.length > 0) continue;
    if (/(^|\/)annotations\.xml$/i.test(xml.name)) problems.add(xml.name, `${reason}: export it again, or remove it from the zip`);
    else unrelated.push(xml.name);
  }
  return unrelated;
}

/** The file of an image that `source` names; undefined, and a problem of that image, when it is not there or not clear. */
export function findNamedImage(
  { problems }: FormReading,
  index: FileIndex,
  { source, split, used }: { source: ZipEntry; split: Split | null; used: Set<ZipEntry> },
  fileName: string,
): ZipEntry | undefined {
  const found = index.find(fileName, { split, near: folderOf(source.name) });
  const [file] = found;
  const about = `the image ${printable(fileName)}`;
  if (!file) problems.add(source.name, `${about} is not in the zip`, fileName);
  else if (found.length > 1)
    problems.add(source.name, `${about} can be ${found.map(({ name }) => printable(name)).join(' or ')}`, fileName);
  else if (used.has(file)) problems.add(source.name, `${about} was named before`, `${fileName} (again)`);
  else {
    used.add(file);
    return file;
  }
  return undefined;
}

export function createBoxCounter(max: number): (boxes: number) => void {
  let total = 0;
  return (boxes) => {
    total += boxes;
    if (total > max) throw new ChildError('LIMIT_EXCEEDED', `There are more than ${max.toLocaleString('en-US')} boxes, which are allowed.`);
  };
}

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** The upright box around one that is turned about its centre, as CVAT writes it: the box before the turn, and its `rotation`. */
export function boxAroundTurned({ x, y, width, height }: Box, degrees: number): Box {
  const [cos, sin] = [Math.cos, Math.sin].map((of) => Math.abs(of((degrees * Math.PI) / 180))) as [number, number];
  const [wide, high] = [width * cos + height * sin, width * sin + height * cos];
  return { x: x + (width - wide) / 2, y: y + (height - high) / 2, width: wide, height: high };
}

/** The smallest upright box around points, x and y by turns. */
export function boxAround(points: readonly number[]): Box {
  const xs = points.filter((_, i) => i % 2 === 0);
  const ys = points.filter((_, i) => i % 2 === 1);
  const least = (all: number[]) => all.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const most = (all: number[]) => all.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const [x, y] = [least(xs), least(ys)];
  return { x, y, width: most(xs) - x, height: most(ys) - y };
}

export function warnOfPolygons({ warn }: FormReading, polygons: number): void {
  if (polygons > 0)
    warn(
      'POLYGONS_AS_BOXES',
      `${plural(polygons, 'shape that is no upright box was', 'shapes that are no upright boxes were')} replaced by the upright box around ${polygons === 1 ? 'it' : 'each'}.`,
    );
}

export function warnOfUnlisted({ warn }: FormReading, unlisted: string[], by: string): void {
  if (unlisted.length > 0)
    warn(
      'IMAGES_NOT_LISTED',
      `${plural(unlisted.length, 'file')} that no ${by} names ${unlisted.length === 1 ? 'was' : 'were'} left out: ${someOf(unlisted)}.`,
    );
}
