/**
 * Detection datasets in CVAT's own form, "CVAT for images 1.1": an `annotations.xml` has an `image` for each image, and in it the shapes, in
 * pixels of the upright image. The classes are the labels of the task, in its order. The split is the image's `subset`, or a folder.
 */
import { ChildError } from '../../jobs/childio.ts';
import { boxesPerImageMax } from '../../jobs/manifest.ts';
import { type Annotations, checkClassNames, document, type Layout, type PlacedFile, type Split, splitFolderOf, splitOf } from './layout.ts';
import { commonPath, type FileIndex, indexFiles, insideOf } from './paths.ts';
import { plural, printable } from './problems.ts';
import {
  type Box,
  boxAround,
  boxAroundTurned,
  checkOtherXml,
  type FormReading,
  findNamedImage,
  readText,
  warnOfPolygons,
  warnOfUnlisted,
  type XmlRoots,
  xmlFilesOf,
} from './reading.ts';
import { attributeOf, BadXml, type Element, finiteNumber, numberOf, parseXml, textOf } from './xml.ts';
import type { ZipEntry } from './zip.ts';

const xmlBytesMax = 256 * 2 ** 20;

export const cvatRoot = 'annotations';

/** Shapes, and kinds of labels, that say nothing of an area. */
const withoutArea = ['tag', 'points', 'polyline', 'skeleton'];

interface CvatImage {
  fileName: string;
  file: ZipEntry;
  split: Split | null;
  annotations: Annotations;
}

interface CvatReading extends FormReading {
  index: FileIndex;
  used: Set<ZipEntry>;
  /** By name, in the order of the classes. */
  labels: Map<string, number>;
  /** All that the file at hand names; it may name none. */
  named: Set<string>;
  images: CvatImage[];
  polygons: number;
  /** How many shapes of each kind were left out. */
  leftOut: Map<string, number>;
}

export async function layOutCvat(reading: FormReading, roots: XmlRoots): Promise<Layout<ZipEntry>> {
  const { zip, problems } = reading;
  const xmlFiles = xmlFilesOf(roots, cvatRoot);
  const others = zip.files.filter((file) => !xmlFiles.includes(file));
  const index = indexFiles(others.filter(({ name }) => !document.test(name)));
  const cvat: CvatReading = {
    ...reading,
    index,
    used: new Set(),
    labels: new Map(),
    named: new Set(),
    images: [],
    polygons: 0,
    leftOut: new Map(),
  };
  for (const xml of xmlFiles) {
    const text = await readText(reading, xml, xmlBytesMax);
    cvat.named.clear();
    try {
      if (text !== '') parseXml(text, (element) => readElement(cvat, xml, element));
    } catch (error) {
      if (!(error instanceof BadXml)) throw error;
      problems.add(xml.name, error.message);
    }
    problems.check((count) => `${plural(count, 'problem')} in ${printable(xml.name)}.`);
  }
  checkOtherXml(reading, roots, cvatRoot, index, cvat.used);
  problems.check((count) => `${plural(count, 'problem')} in the XML files.`);
  if (cvat.images.length === 0) throw new ChildError('DATA_INVALID', `${printable(xmlFiles[0]?.name ?? '')} names no images of the zip.`);
  const classes = [...cvat.labels.keys()];
  checkClassNames(classes, problems);
  const byFolder = cvat.images.some(({ file }) => splitFolderOf(file.name) === 'train');
  const images = cvat.images.map(({ fileName, file, split: named, annotations }): PlacedFile<ZipEntry> => {
    const split = named ?? (byFolder ? (splitFolderOf(file.name) ?? null) : null);
    const path = [...(split ? [split] : []), insideOf(commonPath(fileName, file), split)].join('/');
    return { file, path, split, label: null, annotations };
  });
  warnOfPolygons(reading, cvat.polygons);
  warnOfShapes(cvat);
  const rest = others.filter((file) => !cvat.used.has(file)).map(({ name }) => name);
  warnOfUnlisted(
    reading,
    rest.filter((name) => !document.test(name)),
    'XML file',
  );
  return { images, classes, ignored: rest.filter((name) => document.test(name)) };
}

function warnOfShapes({ warn, leftOut }: CvatReading): void {
  if (leftOut.size === 0) return;
  const count = [...leftOut.values()].reduce((sum, one) => sum + one, 0);
  const kinds = [...leftOut].map(([kind, one]) => `${one} ${printable(kind)}`);
  warn(
    'SHAPES_LEFT_OUT',
    `${plural(count, 'annotation')} that no box can be made of ${count === 1 ? 'was' : 'were'} left out: ${kinds.join(', ')}.`,
  );
}

function readElement(cvat: CvatReading, xml: ZipEntry, element: Element): void {
  if (element.name === 'meta') {
    for (const label of labelsOf(element)) {
      const name = textOf(label, 'name') ?? '';
      cvat.named.add(nameOf(name));
      if (canHaveBox(label)) labelOf(cvat, name);
    }
  }
  if (element.name === 'image') readImage(cvat, xml, element);
  if (element.name === 'track') {
    throw new ChildError(
      'DATA_INVALID',
      `${printable(xml.name)} has the form "CVAT for video 1.1", which is not read. Export it as "CVAT for images 1.1", with the images.`,
    );
  }
}

const labelsOf = (meta: Element): Element[] => [
  ...meta.children.filter((element) => element.name === 'label' && textOf(element, 'name')),
  ...meta.children.flatMap(labelsOf),
];

/** Parts of skeletons, which name their `parent`, have none. */
const canHaveBox = (label: Element): boolean => !textOf(label, 'parent') && !withoutArea.includes(textOf(label, 'type') ?? '');

const nameOf = (written: string): string => written.normalize('NFC').trim();

function labelOf({ labels }: CvatReading, written: string): number {
  const name = nameOf(written);
  const known = labels.get(name) ?? labels.size;
  labels.set(name, known);
  return known;
}

function readImage(cvat: CvatReading, xml: ZipEntry, element: Element): void {
  const { problems, countBoxes, index, used, images } = cvat;
  const fileName = attributeOf(element, 'name')?.normalize('NFC');
  if (!fileName) {
    problems.add(xml.name, `image ${images.length + 1} has no name`);
    return;
  }
  const split = splitOf(attributeOf(element, 'subset') ?? '') ?? splitFolderOf(xml.name) ?? null;
  const file = findNamedImage(cvat, index, { source: xml, split, used }, fileName);
  if (!file) return;
  const [width, height] = [numberOf(attributeOf(element, 'width')), numberOf(attributeOf(element, 'height'))];
  const size = width > 0 && height > 0 ? { width, height } : null;
  const annotations: Annotations = { file: xml.name, boxes: [], unit: 'PIXEL', counted: 'shape', size };
  for (const [i, shape] of element.children.entries()) {
    try {
      readShape(cvat, shape, i + 1, annotations);
    } catch (error) {
      if (!(error instanceof BadXml)) throw error;
      problems.add(xml.name, `the image ${printable(fileName)}: shape ${i + 1} (${printable(shape.name)}) ${error.message}`, file.name);
    }
  }
  if (annotations.boxes.length > boxesPerImageMax) {
    problems.add(xml.name, `the image ${printable(fileName)} has more than ${boxesPerImageMax} boxes`, file.name);
    annotations.boxes.length = 0;
  }
  countBoxes(annotations.boxes.length);
  images.push({ fileName, file, split, annotations });
}

/** Throws a BadXml. */
function readShape(cvat: CvatReading, shape: Element, at: number, { boxes }: Annotations): void {
  const { leftOut } = cvat;
  // Of an object that has left the image.
  const kind = attributeOf(shape, 'outside') === '1' ? 'outside' : shape.name;
  const boxOf = Object.hasOwn(shapes, kind) ? shapes[kind] : undefined;
  if (!boxOf) {
    leftOut.set(kind, (leftOut.get(kind) ?? 0) + 1);
    return;
  }
  const label = attributeOf(shape, 'label');
  if (!label) throw new BadXml('has no label');
  if (cvat.named.size > 0 && !cvat.named.has(nameOf(label)))
    throw new BadXml(`has the label "${printable(label)}", which <meta> does not name: correct it, or add it there`);
  // CVAT leaves it out where it is 0.
  const rotation = finiteNumber(attributeOf(shape, 'rotation') ?? '0', 'rotation');
  const box = boxOf((...names) => names.map((name) => finiteNumber(attributeOf(shape, name), name)), shape, rotation);
  const around = kind !== 'box' || rotation !== 0;
  if (around) cvat.polygons += 1;
  boxes.push({ label: labelOf(cvat, label), ...box, around, at });
}

type Numbers = (...names: string[]) => number[];

/** Checked before it is turned: a negative side could disappear in the box around it. */
function upright(box: Box): Box {
  if (box.width < 0 || box.height < 0) throw new BadXml('ends before it begins');
  return box;
}

/** "x,y;x,y;…" */
function pointsOf(polygon: Element): number[] {
  const points = attributeOf(polygon, 'points');
  if (!points) throw new BadXml('has no points');
  return points.split(';').flatMap((point) => {
    const numbers = point.split(',').map(numberOf);
    if (numbers.length !== 2 || !numbers.every(Number.isFinite)) {
      throw new BadXml(`has the point "${printable(point)}", which is not two numbers, "x,y"`);
    }
    return numbers;
  });
}

/** The upright box of each kind of shape, from its attributes. */
const shapes: Record<string, (numbers: Numbers, shape: Element, rotation: number) => Box> = {
  box(numbers, _, rotation) {
    const [left, top, right, bottom] = numbers('xtl', 'ytl', 'xbr', 'ybr') as [number, number, number, number];
    return boxAroundTurned(upright({ x: left, y: top, width: right - left, height: bottom - top }), rotation);
  },
  polygon: (_, shape) => boxAround(pointsOf(shape)),
  mask(numbers) {
    const [x, y, width, height] = numbers('left', 'top', 'width', 'height') as [number, number, number, number];
    return upright({ x, y, width, height });
  },
  ellipse(numbers, _, rotation) {
    const [cx, cy, rx, ry] = numbers('cx', 'cy', 'rx', 'ry') as [number, number, number, number];
    const [cos, sin] = [Math.cos((rotation * Math.PI) / 180), Math.sin((rotation * Math.PI) / 180)];
    const [wide, high] = [Math.hypot(rx * cos, ry * sin), Math.hypot(rx * sin, ry * cos)];
    return { x: cx - wide, y: cy - high, width: 2 * wide, height: 2 * high };
  },
  cuboid: (numbers) =>
    boxAround(
      numbers(...['tl', 'bl', 'tr', 'br'].flatMap((corner) => [1, 2].flatMap((side) => [`x${corner}${side}`, `y${corner}${side}`]))),
    ),
};
