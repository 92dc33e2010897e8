/**
 * Detection datasets in the form of Pascal VOC (Everingham et al. 2010): an XML file for each image, with `object`s that have a `name` and a
 * `bndbox` in pixels. Edges are taken as they stand there, as the tools write them that are used today. The splits are lists of names
 * in `ImageSets/Main`, or folders; the classes are the names of the objects, sorted.
 */
import { ChildError } from '../../jobs/childio.ts';
import { boxesPerImageMax } from '../../jobs/manifest.ts';
import {
  checkClassNames,
  document,
  folderOf,
  type Layout,
  type PlacedFile,
  type RawBox,
  type Split,
  splitFolderOf,
  splitOf,
} from './layout.ts';
import { imageName } from './names.ts';
import { type FileIndex, indexFiles, plainPath, withoutEnding } from './paths.ts';
import { plural, printable } from './problems.ts';
import {
  type Box,
  boxAround,
  boxAroundTurned,
  checkOtherXml,
  type FormReading,
  isXml,
  readText,
  warnOfPolygons,
  warnOfUnlisted,
  type XmlRoots,
  xmlFilesOf,
} from './reading.ts';
import { BadXml, child, type Element, finiteNumber, numberOf, parseXml, textOf } from './xml.ts';
import type { ZipEntry } from './zip.ts';

const xmlBytesMax = 2 ** 20;
const listBytesMax = 64 * 2 ** 20;

export const vocRoot = 'annotation';

type NamedBox = Omit<RawBox, 'label'> & { name: string };

export async function layOutVoc(reading: FormReading, roots: XmlRoots): Promise<Layout<ZipEntry>> {
  const { zip, problems, countBoxes } = reading;
  const { lists, splits } = await readLists(reading);
  const others = zip.files.filter((file) => !isXml(file) && !lists.includes(file));
  const index = indexFiles(others.filter(({ name }) => !document.test(name)));
  const used = new Map<ZipEntry, ZipEntry>();
  const found: { file: ZipEntry; xml: ZipEntry; split: Split | null; boxes: NamedBox[]; size: { width: number; height: number } | null }[] =
    [];
  let polygons = 0;
  const wanted = splits ? new Map([...roots].filter(([{ name }]) => splits.has(stemOf(name)))) : roots;
  for (const xml of xmlFilesOf(wanted, vocRoot)) {
    const split = splits?.get(stemOf(xml.name)) ?? splitFolderOf(xml.name) ?? null;
    const byName = findImage(index, xml, split, null);
    const root = await readAnnotation(reading, xml, (byName[0] ?? xml).name);
    if (!root) {
      if (byName[0]) used.set(byName[0], xml);
      continue;
    }
    const byFilename = findImage(index, xml, split, root);
    const [own, other] = [byName[0], byFilename[0]];
    if (own && other && nameOf(own.name) !== nameOf(other.name) && !byFilename.some((file) => byName.includes(file))) {
      const reason = `has the name of the image ${printable(own.name)}, but its <filename> is that of ${printable(other.name)}`;
      problems.add(xml.name, `${reason}: correct or remove the <filename>`, own.name);
      used.set(own, xml);
      continue;
    }
    const [file, ...more] = own ? byName : byFilename;
    if (!file || more.length > 0) {
      const named = textOf(root, 'filename') ?? stemOf(xml.name);
      const reason = file ? `can be ${[file, ...more].map(({ name }) => printable(name)).join(' or ')}` : 'is not in the zip';
      problems.add(xml.name, `its image ${printable(named)} ${reason}`, xml.name);
      continue;
    }
    const read = readObjects(reading, root, xml, file);
    const before = used.get(file);
    if (before) problems.add(xml.name, `describes the image ${printable(file.name)}, as ${printable(before.name)} does`, file.name);
    used.set(file, xml);
    countBoxes(read.boxes.length);
    polygons += read.polygons;
    found.push({ file, xml, split, boxes: read.boxes, size: sizeOf(root) });
  }
  const described = new Set(used.keys());
  const unrelated = checkOtherXml(reading, wanted, vocRoot, index, described);
  for (const [xml, root] of roots) if (root !== vocRoot && !wanted.has(xml)) unrelated.push(xml.name);
  problems.check((count) => `${plural(count, 'problem')} in the XML files.`);
  if (found.length === 0) throw new ChildError('DATA_INVALID', 'No XML file describes an image of the zip.');
  const classes = [...new Set(found.flatMap(({ boxes }) => boxes.map(({ name }) => name)))].sort();
  checkClassNames(classes, problems);
  const labels = new Map(classes.map((name, label) => [name, label]));
  const images = found.map(({ file, xml, split, boxes, size }): PlacedFile<ZipEntry> => {
    const labelled = boxes.map(({ name, ...box }) => ({ ...box, label: labels.get(name) as number }));
    return {
      file,
      path: [...(split ? [split] : []), ...inner(file.name)].join('/'),
      split,
      label: null,
      annotations: { file: xml.name, boxes: labelled, unit: 'PIXEL', counted: 'object', size },
    };
  });
  warnOfPolygons(reading, polygons);
  const unlisted = others.filter((file) => !described.has(file) && !document.test(file.name)).map(({ name }) => name);
  warnOfUnlisted(reading, unlisted, splits ? 'list of a split' : 'XML file');
  return { images, classes, ignored: [...others.map(({ name }) => name).filter((name) => document.test(name)), ...unrelated] };
}

const nameOf = (path: string): string => path.slice(path.lastIndexOf('/') + 1);
const stemOf = (path: string): string => withoutEnding(nameOf(path));

/** An image's path without the folders that stand in every dataset of this form. */
const inner = (name: string): string[] =>
  name.split('/').filter((part, i, all) => i === all.length - 1 || !(splitOf(part) || /^(JPEGImages|images|data|VOCdevkit)$/i.test(part)));

/** The lists `ImageSets/Main/<split>.txt` that are used, and the split of each name in them; `splits` is null when there are no such lists. */
async function readLists(reading: FormReading): Promise<{ lists: ZipEntry[]; splits: Map<string, Split> | null }> {
  const named = reading.zip.files.flatMap((file) => {
    const list = /(^|\/)ImageSets\/(?:Main\/)?([^/]+)\.txt$/i.exec(file.name)?.[2] ?? '';
    const split = list === 'trainval' ? 'train' : splitOf(list);
    return split ? [{ file, split, all: list === 'trainval' }] : [];
  });
  // trainval repeats what the lists for train and val say.
  const split = named.some(({ all, split }) => !all && split === 'train');
  const lists = named.filter(({ all }) => !all || !split);
  if (lists.length === 0) return { lists: [], splits: null };
  const result = new Map<string, Split>();
  for (const list of lists) {
    const text = await readText(reading, list.file, listBytesMax);
    for (const line of text.split('\n')) {
      // Lists of a class have 1 or -1 behind the name; some tools write the ending.
      const name = nameOf(plainPath(line.replace(/\s+-?[01]\s*$/, ''))).replace(imageName, '');
      if (name === '') continue;
      const other = result.get(name);
      if (other && other !== list.split) reading.problems.add(list.file.name, `${printable(name)} is in the list of ${other} too`, name);
      result.set(name, list.split);
    }
  }
  return { lists: lists.map(({ file }) => file), splits: result };
}

/** The images by the name of the XML file, beside it or in a folder of images; with `root` by the name that it says. */
function findImage(index: FileIndex, xml: ZipEntry, split: Split | null, root: Element | null): ZipEntry[] {
  const place = { split, near: folderOf(xml.name) };
  if (!root) return index.find(xml.name, place, { byStem: true });
  const named = textOf(root, 'filename');
  return named ? index.find(named, place) : [];
}

/** `image`: its image, or itself where that is not known. */
async function readAnnotation(reading: FormReading, xml: ZipEntry, image: string): Promise<Element | null> {
  const text = await readText(reading, xml, xmlBytesMax, image);
  if (text === '') return null;
  try {
    return parseXml(text);
  } catch (error) {
    if (!(error instanceof BadXml)) throw error;
    reading.problems.add(xml.name, error.message, image);
    return null;
  }
}

function readObjects({ problems }: FormReading, root: Element, xml: ZipEntry, image: ZipEntry): { boxes: NamedBox[]; polygons: number } {
  const boxes: NamedBox[] = [];
  let polygons = 0;
  for (const [i, object] of root.children.filter(({ name }) => name === 'object').entries()) {
    try {
      const name = textOf(object, 'name')?.normalize('NFC');
      if (!name) throw new BadXml('has no name');
      const rotation = rotationOf(object);
      const around = !child(object, 'bndbox') || rotation !== 0;
      boxes.push({ name, ...boxAroundTurned(boxOf(object), rotation), around, at: i + 1 });
      if (around) polygons += 1;
    } catch (error) {
      if (!(error instanceof BadXml)) throw error;
      problems.add(xml.name, `object ${i + 1}: ${error.message}`, image.name);
    }
  }
  if (boxes.length > boxesPerImageMax) problems.add(xml.name, `has more than ${boxesPerImageMax} boxes`, image.name);
  return { boxes: boxes.slice(0, boxesPerImageMax), polygons };
}

/** Degrees by which CVAT says that its `bndbox` is turned; polygons are turned already. */
function rotationOf(object: Element): number {
  const attributes = child(object, 'bndbox') ? (child(object, 'attributes')?.children ?? []) : [];
  const rotation = attributes.find((attribute) => textOf(attribute, 'name') === 'rotation');
  return finiteNumber(textOf(rotation, 'value') ?? '0', 'the attribute rotation');
}

/** From its `bndbox`, or around roLabelImg's `robndbox` or its `polygon`. Throws a BadXml. */
function boxOf(object: Element): Box {
  const numbersOf = (shape: Element, names: string[]) =>
    names.map((name) => finiteNumber(textOf(shape, name), `${name} in its ${shape.name}`));
  const edges = child(object, 'bndbox');
  if (edges) {
    const [left, top, right, bottom] = numbersOf(edges, ['xmin', 'ymin', 'xmax', 'ymax']) as [number, number, number, number];
    if (right < left || bottom < top) throw new BadXml('its xmax or ymax lies before xmin or ymin');
    return { x: left, y: top, width: right - left, height: bottom - top };
  }
  const turned = child(object, 'robndbox');
  if (turned) {
    const numbers = numbersOf(turned, ['cx', 'cy', 'w', 'h', 'angle']);
    const [x, y, width, height, radians] = numbers as [number, number, number, number, number];
    // Checked before it is turned: a negative side could disappear in the box around it.
    if (width < 0) throw new BadXml(`has the negative w ${width} in its robndbox`);
    if (height < 0) throw new BadXml(`has the negative h ${height} in its robndbox`);
    return boxAroundTurned({ x: x - width / 2, y: y - height / 2, width, height }, (radians * 180) / Math.PI);
  }
  const polygon = child(object, 'polygon');
  if (!polygon) throw new BadXml('has no bndbox, robndbox or polygon');
  return boxAround(pointsOf(polygon));
}

/** `x1`, `y1`, `x2`, `y2`, …: without one of them, those behind it would change between x and y. */
function pointsOf(polygon: Element): number[] {
  const points: number[] = [];
  for (let i = 0; i < polygon.children.length; i += 2) {
    const [x, y] = polygon.children.slice(i, i + 2) as [Element, Element | undefined];
    const [name, number] = /^x(\d*)$/.exec(x.name) ?? [];
    if (name === undefined) throw new BadXml(`has <${printable(x.name)}> in its polygon, where an x is expected`);
    if (y?.name !== `y${number}`) throw new BadXml(`has x${number} "${printable(x.text.trim())}" without y${number} in its polygon`);
    points.push(finiteNumber(x.text.trim(), `${x.name} in its polygon`), finiteNumber(y.text.trim(), `${y.name} in its polygon`));
  }
  if (points.length < 4) throw new BadXml('has a polygon with fewer than 2 points');
  return points;
}

/** Some tools write 0 where they do not know it. */
function sizeOf(root: Element): { width: number; height: number } | null {
  const size = child(root, 'size');
  const [width, height] = ['width', 'height'].map((name) => numberOf(textOf(size, name))) as [number, number];
  return width > 0 && height > 0 ? { width, height } : null;
}
